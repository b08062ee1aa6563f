"""MLIR bytecode as text, read in a process of its own, since bytecode that was damaged may crash the reader.

This file is also the program of that process: bytecode in base64 on stdin, text on stdout.
"""

from __future__ import annotations

import base64
import sys

from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import process

__all__ = ["bytecode_text"]

_TIMEOUT_S = 120.0


def bytecode_text(content: bytes) -> str:
    """Return the text of a module that is stored as bytecode.

    Raises:
        InputError: The content is no bytecode that this IREE reads.
    """
    command = [sys.executable, "-m", "pytest_shark_tune.dispatch.foreign.bytecode"]
    try:
        return process.run(command, stdin=base64.b64encode(content).decode(), timeout_s=_TIMEOUT_S).stdout
    except CommandFailed as error:
        why = error.lines[-1] if error.stderr.strip() else str(error)
        raise InputError(f"it is not MLIR that this IREE parses: {why}") from error


def _main() -> None:
    from iree.compiler import ir

    with ir.Context() as context:
        context.enable_multithreading(False)
        context.allow_unregistered_dialects = True
        try:
            text = str(ir.Module.parse(base64.b64decode(sys.stdin.read())))
        except ir.MLIRError as error:
            sys.exit(" ".join(str(error).split()))
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    _main()
