"""A process that compiles modules with the driver of a device, before the process that measures loads them.

`pytest_shark_tune.tuning.ahead.driver` starts it as ``python -m pytest_shark_tune.device.driver.helper URI``. A request
is the path of a compiled module, and the answer is empty, or says why it was not compiled.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pytest_shark_tune.device.driver.cuda import CudaCompiler, ptx_in
from pytest_shark_tune.system.child import die_with_parent, read_frame, write_frame

__all__ = ["main"]

_NICENESS = 10


def main() -> None:
    """Answer requests until stdin ends. Other output goes to stderr."""
    die_with_parent()
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(_NICENESS)
    compiler: CudaCompiler | None = None
    while (path := read_frame(requests)) is not None:
        answer = ""
        try:
            compiler = compiler or CudaCompiler(sys.argv[1])
            for ptx in ptx_in(Path(os.fsdecode(path)).read_bytes()):
                compiler.compile(ptx)
        except (OSError, RuntimeError, AttributeError) as error:
            answer = f"{type(error).__name__}: {error}"
        write_frame(replies, answer.encode())
    os._exit(0)  # Without tearing the driver down.


if __name__ == "__main__":
    main()
