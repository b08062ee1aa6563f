"""The only module that imports ONNX: a file in, the text of an MLIR module for iree-compile out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_shark_tune.compiler.refusals import NoOnnxPackage, NotAnOnnxModel, OpenOnnxInputs, refused_by_importer
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.files import check_plain

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["import_onnx", "load_fixed", "onnx_inputs", "write_fixed"]

# From this opset on IREE's importer knows every standard operator's form.
_OPSET = 17


def import_onnx(
    path: Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    open_dims: Collection[str] = (),
    timeout_s: float = 600.0,
) -> str:
    """Import an ONNX model. An older model is raised to opset 17, and its shapes are inferred.

    All inputs must have a fixed shape, apart from dimensions that stay open. The import runs as a command: it is IREE's
    tool, and a model may need more time or memory than a test session should give.

    Args:
        path: The model.
        shapes: The shapes of inputs without a fixed one, by name. Names of other models' inputs are ignored.
        open_dims: The dimensions that stay open, as ``NAME.DIMENSION``. They may be those of other models' inputs.
        timeout_s: The number of seconds that the import may take.

    Returns:
        The text of the MLIR module.

    Raises:
        InputError: the extra ``onnx`` is not installed, IREE cannot import the file, an input has dimensions without a
            fixed size, or ``shapes`` contradicts one.
        CommandFailed: the import ran out of time.
    """
    model, is_changed = load_fixed(path, shapes or {}, open_dims)
    with scratch_directory() as directory:
        output = directory / "model.mlir"
        source = directory / "model.onnx" if is_changed else path.absolute()
        if is_changed:
            write_fixed(model, path, source)
        command = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(source), "-o", str(output)]
        if any(entry.domain in ("", "ai.onnx") and entry.version < _OPSET for entry in model.opset_import):
            command += ["--opset-version", str(_OPSET)]
        try:
            process.run(command, timeout_s=timeout_s)
        except CommandFailed as error:
            if error.timed_out:
                raise
            raise refused_by_importer(path, error) from error
        return output.read_text(encoding="utf-8")


def load_fixed(
    path: Path, shapes: Mapping[str, Sequence[int]], open_dims: Collection[str] = ()
) -> tuple[ModelProto, bool]:
    """Read an ONNX model without its external weights, and give its inputs fixed shapes.

    Args:
        path: The model.
        shapes: The shapes of inputs without a fixed one, by name.
        open_dims: The dimensions that stay open, as ``NAME.DIMENSION``.

    Returns:
        The model, and whether ``shapes`` changed it.

    Raises:
        InputError: As `import_onnx`, apart from the import itself.
    """
    if find_spec("onnx") is None:
        raise NoOnnxPackage(
            path,
            'an ONNX model needs the package onnx; install it with: python -m pip install "pytest-shark-tune[onnx]"',
        )
    model = _load(path)
    is_changed = _fix(model.graph, shapes, path)
    dynamic = _dynamic_inputs(model.graph, open_dims)
    if dynamic:
        values = [value for value in model.graph.input if any(repr(value.name) in problem for problem in dynamic)]
        examples = " ".join(
            f"--tune-input-shape {shlex.quote(f'{value.name}={_example_shape(value)}')}" for value in values
        )
        raise OpenOnnxInputs(
            path,
            f"every dimension of an input needs a fixed size, but {'; '.join(dynamic)}. "
            f"Give them, as in {examples}, or several sizes of one that stays open, as in "
            f"--tune-dim {shlex.quote(f'{values[0].name}.0=1,16,128')}{_strays(model.graph, shapes)}",
        )
    return model, is_changed


def _strays(graph: Any, shapes: Mapping[str, Sequence[int]]) -> str:
    """A sentence about the given inputs that a model does not have; empty without any."""
    names = sorted(set(shapes) - {value.name for value in graph.input})
    return f". It has no input {' or '.join(map(repr, names))}" if names else ""


def onnx_inputs(path: Path) -> tuple[str, ...]:
    """The names of a model's inputs, in order. Weights, which old models list as inputs, are left out.

    Raises:
        InputError: the file is not an ONNX model.
    """
    graph = _load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return tuple(value.name for value in graph.input if value.name not in weights)


def write_fixed(model: Any, path: Path, output: Path) -> None:
    """Write a model that has got fixed inputs, with its weights.

    The import infers the other shapes. Weights in a file beside the model go into one beside ``output``, as protobuf
    writes at most 2 GB into one file.

    Args:
        model: The model without its external weights.
        path: The file that it was read from.
        output: The new file.

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
            if dim.dim_value < 0:
                dim.Clear()
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.save(model, output, save_as_external_data=is_external)
    except (OSError, ValueError, EncodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: it cannot be written with the sizes of --tune-input-shape: {error}") from error


def _fix(graph: Any, shapes: Mapping[str, Sequence[int]], path: Path) -> bool:
    """Give inputs their shapes, and return whether any has changed."""
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
            if dim.dim_value != size and dim.HasField("dim_value") and dim.dim_value >= 0:
                raise InputError(
                    f"{path}: --tune-input-shape: dimension {position} of input {name!r} is {dim.dim_value}, not {size}"
                )
            changed = changed or not dim.HasField("dim_value") or dim.dim_value != size
            dim.dim_value = size
    return changed


def _load(path: Path) -> Any:
    """Load a model without its external weights, which only the import needs."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        check_plain(path)
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise NotAnOnnxModel(path, f"not an ONNX model, or one that was cut short: {error}") from error
    if not model.graph.node:
        raise NotAnOnnxModel(path, "not an ONNX model, or one without a single node")
    return model


def _dynamic_inputs(graph: Any, open_dims: Collection[str]) -> list[str]:
    """List the reasons why inputs have no fixed shape, apart from dimensions that stay open."""
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
            # A stated size of 0 is a size.
            if (not dim.HasField("dim_value") or dim.dim_value < 0) and f"{value.name}.{position}" not in open_dims
        ]
        if loose:
            found.append(f"input {value.name!r} has none in dimension {', '.join(loose)}")
    return found


def _example_shape(value: Any) -> str:
    """An example of an input's shape, with the sizes that are known."""
    dims = value.type.tensor_type.shape.dim
    if not dims:
        return "1x3x224x224"
    guesses = (1, *(224 for _ in dims[1:]))
    return "x".join(
        str(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else guess)
        for dim, guess in zip(dims, guesses, strict=True)
    )
