"""The one door for ONNX: a file in, the text of an MLIR module that iree-compile takes out."""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.tools import process

__all__ = ["import_onnx"]

# From this opset on IREE's importer knows every standard operator's form.
_OPSET = 17


def import_onnx(path: Path, *, timeout_s: float = 600.0) -> str:
    """The model in ``path`` as MLIR text, raised to opset 17 if it is older, with its shapes inferred.

    Dispatches are tuned for one shape, so every input must have a fixed one. The import runs as a command of
    its own: it is IREE's tool, and a model may need more time or memory than a test session should give.

    Raises:
        InputError: the extra ``onnx`` is not installed, the file is no ONNX model that IREE can import, or an
            input has dimensions without a fixed size.
        CommandFailed: the import ran longer than ``timeout_s`` seconds.
    """
    if find_spec("onnx") is None:
        raise InputError(
            f"{path}: an ONNX model needs the package onnx; "
            'install it with: python -m pip install "pytest-shark-tune[onnx]"'
        )
    model = _load(path)
    dynamic = _dynamic_inputs(model.graph)
    if dynamic:
        raise InputError(
            f"{path}: every dimension of an input needs a fixed size, but {'; '.join(dynamic)}. "
            "Fix them, for instance with onnx.tools.update_model_dims.update_inputs_outputs_dims"
        )
    with tempfile.TemporaryDirectory(prefix="shark-tune-") as folder:
        output = Path(folder, "model.mlir")
        command = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(path.absolute()), "-o", str(output)]
        if any(entry.domain in ("", "ai.onnx") and entry.version < _OPSET for entry in model.opset_import):
            command += ["--opset-version", str(_OPSET)]
        try:
            process.run(command, timeout_s=timeout_s)
        except CommandFailed as error:
            if error.timed_out:
                raise
            raise InputError(f"{path}: IREE cannot import it: {_last_line(error)}") from error
        return output.read_text(encoding="utf-8")


def _load(path: Path) -> Any:
    """The model's graph without its external weights, which only the import itself needs."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX model, or one that was cut short: {error}") from error
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX model, or one without a single node")
    return model


def _dynamic_inputs(graph: Any) -> list[str]:
    """What keeps each input from having a fixed shape, in words; empty where nothing does."""
    found = []
    for value in graph.input:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            continue
        if not tensor.HasField("shape"):
            found.append(f"input {value.name!r} has no shape")
            continue
        loose = [
            f"{position} ({dim.dim_param!r})" if dim.dim_param else str(position)
            for position, dim in enumerate(tensor.shape.dim)
            if dim.dim_value < 1
        ]
        if loose:
            found.append(f"input {value.name!r} has none in dimension {', '.join(loose)}")
    return found


def _last_line(error: CommandFailed) -> str:
    """What a traceback on stderr comes down to, or how the command ended where it wrote nothing."""
    lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else str(error)
