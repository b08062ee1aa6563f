"""The one door for ONNX: a file in, the text of an MLIR module that iree-compile takes out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cleanup import scratch_folder

__all__ = ["import_onnx", "onnx_inputs", "write_fixed"]

# From this opset on IREE's importer knows every standard operator's form.
_OPSET = 17


def import_onnx(path: Path, shapes: Mapping[str, Sequence[int]] | None = None, *, timeout_s: float = 600.0) -> str:
    """The model in ``path`` as MLIR text, raised to opset 17 if it is older, with its shapes inferred.

    Dispatches are tuned for one shape, so every input must have a fixed one: ``shapes`` gives it, by the input's name,
    to those that have none; names that are no input's are for other models. The import runs as a command of its own:
    it is IREE's tool, and a model may need more time or memory than a test session should give.

    Raises:
        InputError: the extra ``onnx`` is not installed, the file is no ONNX model that IREE can import, an input has
            dimensions without a fixed size, or ``shapes`` contradicts one.
        CommandFailed: the import ran longer than ``timeout_s`` seconds.
    """
    if find_spec("onnx") is None:
        raise InputError(
            f"{path}: an ONNX model needs the package onnx; "
            'install it with: python -m pip install "pytest-shark-tune[onnx]"'
        )
    model = _load(path)
    fixed = _fix(model.graph, shapes or {}, path)
    dynamic = _dynamic_inputs(model.graph)
    if dynamic:
        values = [value for value in model.graph.input if any(repr(value.name) in each for each in dynamic)]
        examples = " ".join(f"--tune-input-shape {shlex.quote(f'{each.name}={_example(each)}')}" for each in values)
        raise InputError(
            f"{path}: every dimension of an input needs a fixed size, but {'; '.join(dynamic)}. "
            f"Give them, as in {examples}"
        )
    with scratch_folder() as folder:
        output = folder / "model.mlir"
        source = folder / "model.onnx" if fixed else path.absolute()
        if fixed:
            write_fixed(model, path, source)
        command = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(source), "-o", str(output)]
        if any(entry.domain in ("", "ai.onnx") and entry.version < _OPSET for entry in model.opset_import):
            command += ["--opset-version", str(_OPSET)]
        try:
            process.run(command, timeout_s=timeout_s)
        except CommandFailed as error:
            if error.timed_out:
                raise
            raise InputError(f"{path}: IREE cannot import it: {error.lines[-1]}") from error
        return output.read_text(encoding="utf-8")


def onnx_inputs(path: Path) -> tuple[str, ...]:
    """The names of a model's inputs, in the order in which it takes them; old models list their weights, too.

    Raises:
        InputError: the file is no ONNX model.
    """
    graph = _load(path).graph
    weights = {each.name for each in graph.initializer}
    return tuple(value.name for value in graph.input if value.name not in weights)


def write_fixed(model: Any, path: Path, output: Path) -> None:
    """Write ``model``, read from ``path`` without external weights and with its inputs fixed since, with its weights.

    Other shapes are for the import to infer. Weights that lie beside the model lie beside ``output``, too: protobuf
    writes no more than 2 GB into one file.

    Raises:
        InputError: the weights cannot be read, or the file cannot be written.
    """
    import onnx
    from google.protobuf.message import EncodeError
    from onnx.external_data_helper import uses_external_data

    is_external = any(map(uses_external_data, model.graph.initializer))
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 1:
                dim.Clear()
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.save(model, output, save_as_external_data=is_external)
    except (OSError, ValueError, EncodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: it cannot be written with the sizes of --tune-input-shape: {error}") from error


def _fix(graph: Any, shapes: Mapping[str, Sequence[int]], path: Path) -> bool:
    """Give inputs their shapes; tell whether that changed any."""
    inputs = {value.name: value for value in graph.input}
    changed = False
    for name, shape in shapes.items():
        if name not in inputs:
            continue
        tensor = inputs[name].type.tensor_type
        has_shape = tensor.HasField("shape")
        given = "x".join(map(str, shape))
        if has_shape and len(tensor.shape.dim) != len(shape):
            raise InputError(
                f"{path}: --tune-input-shape: input {name!r} has {len(tensor.shape.dim)} dimensions, "
                f"{given} has {len(shape)}"
            )
        for position, size in enumerate(shape):
            dim = tensor.shape.dim[position] if has_shape else tensor.shape.dim.add()
            if dim.dim_value not in (0, size) and dim.dim_value > 0:
                raise InputError(
                    f"{path}: --tune-input-shape: dimension {position} of input {name!r} is {dim.dim_value}, not {size}"
                )
            changed = changed or dim.dim_value != size
            dim.dim_value = size
    return changed


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


def _example(value: Any) -> str:
    """Sizes that an input might have, those that it says it has among them."""
    dims = value.type.tensor_type.shape.dim
    if not dims:
        return "1x3x224x224"
    guesses = (1, *(224 for _ in dims[1:]))
    return "x".join(
        str(dim.dim_value if dim.dim_value > 0 else guess) for dim, guess in zip(dims, guesses, strict=True)
    )
