"""Open sizes: how calls of dispatches depend on open dimensions of a model's inputs, and calls at given sizes.

iree-compile makes a benchmark only of a dispatch whose operands are constants. At ``executable-sources`` the code of a
dispatch is made already, for any size. A copy of a function with constants in place of the sizes of its inputs calls
the same code, and iree-compile makes a benchmark of each such call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import arith

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.integers import NotComputed, evaluate, origins
from pytest_shark_tune.dispatch.reasons import UnreadableBenchmark

__all__ = ["OpenDimension", "SizedCall", "SizedSources", "fix_sizes", "freeze_sizes", "with_sizes"]

_CALL, _DIM = "stream.cmd.dispatch", "hal.buffer_view.dim"
_SAME_SHAPE = (
    "amdgpu.fat_raw_buffer_cast",
    "iree_codegen.load_from_buffer",
    "memref.assume_alignment",
    "memref.cast",
    "tensor.cast",
)


class OpenDimension(NamedTuple):
    """A dimension of an input whose size is known only when a function is called."""

    function: str
    input: int
    """The position of the input."""
    dimension: int


class SizedCall(msgspec.Struct, frozen=True):
    """The first call of a dispatch by a function whose open dimensions have given sizes."""

    point: int
    """The position of the sizes among those that were given."""
    constants: tuple[int, ...]
    """The scalars that the call passes."""
    lengths: tuple[int, ...]
    """The numbers of bytes of its operands."""


class SizedSources(msgspec.Struct, frozen=True):
    """A module at ``executable-sources`` with the functions that have open inputs, once for each choice of sizes."""

    text: str
    calls: dict[str, tuple[SizedCall, ...]]
    """The calls with given sizes by executable, at most one for each choice."""
    open: dict[str, tuple[OpenDimension, ...]]
    """The executables that are called with other sizes than constants, with the dimensions that these depend on.

    There are none for an executable whose sizes depend on data.
    """


def fix_sizes(sources_text: str, points: Sequence[Mapping[tuple[int, int], int]]) -> SizedSources:
    """Copy every function with open inputs, with constants in place of the sizes that are given.

    Args:
        sources_text: A module at phase ``executable-sources``.
        points: The choices of sizes, by input and dimension.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    calls: dict[str, dict[int, SizedCall]] = {}
    found: dict[str, dict[OpenDimension, None]] = {}
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        module = mlir.parse_module(sources_text)
        copies = _add_copies(module, points)
        if copies:
            passmanager.PassManager.parse("builtin.module(util.func(canonicalize))").run(module.operation)
        for function in (op.operation for op in module.body.operations if op.name == "util.func"):
            name = mlir.string_of(function, "sym_name")
            for call in mlir.ops_named(function, _CALL):
                symbol = ir.SymbolRefAttr(ir.ArrayAttr(call.attributes["entry_points"])[0]).value[0]
                original, point = copies.get(name, (name, -1))
                try:
                    sized = _sized_call(call, point)
                except NotComputed:
                    found.setdefault(symbol, {}).update(dict.fromkeys(_open_dimensions(call, original)))
                else:
                    if point >= 0:
                        calls.setdefault(symbol, {}).setdefault(point, sized)
        return SizedSources(
            text=str(module),
            calls={symbol: tuple(by_point.values()) for symbol, by_point in calls.items()},
            open={symbol: tuple(dimensions) for symbol, dimensions in found.items()},
        )


def freeze_sizes(function: ir.Operation, constants: Sequence[int]) -> None:
    """Give every tensor and buffer in the function of a dispatch the sizes that it has in a call.

    The result is for reading only: the ops that compute sizes stay.

    Args:
        function: The function. It is changed.
        constants: The scalars that the call passes.

    Raises:
        CannotTune: A size is computed in a way that is not followed.
    """
    for op in mlir.ops_inside(function):
        for number, result in enumerate(op.results):
            kind = mlir.shaped_type(result.type)
            if kind is None or kind.has_static_shape:
                continue
            try:
                shape = [int(size) for size in _shape_of(op, number, constants)]
            except NotComputed as reason:
                raise UnreadableBenchmark(f"one of its sizes comes from {reason}, which is not followed") from reason
            result.set_type(_with_shape(result.type, shape))


def with_sizes(kind: ir.Type, number: int, sizes: Mapping[tuple[int, int], int]) -> ir.Type:
    """Return the type of an input with the sizes that are given for its open dimensions."""
    if not sizes or not isinstance(kind, ir.RankedTensorType) or kind.has_static_shape:
        return kind
    shape = [
        sizes.get((number, dimension), size) if size == ir.ShapedType.get_dynamic_size() else size
        for dimension, size in enumerate(kind.shape)
    ]
    return _with_shape(kind, shape)


def _add_copies(module: ir.Module, points: Sequence[Mapping[tuple[int, int], int]]) -> dict[str, tuple[str, int]]:
    """Add a copy of each function with open inputs for each choice of sizes, and remove the function.

    Returns:
        The name of the function and the position of the sizes, by the name of the copy.
    """
    functions = [op.operation for op in module.body.operations if op.name == "util.func" and op.regions[0].blocks]
    called = {ir.FlatSymbolRefAttr(call.attributes["callee"]).value for call in _calls_in(functions)}
    copies = {}
    for function in functions:
        name = mlir.string_of(function, "sym_name")
        given = {dimension for _, dimension in _dimensions_in(function)}
        if not any(given & sizes.keys() for sizes in points):
            continue
        for point, sizes in enumerate(points):
            copy = function.clone(ip=ir.InsertionPoint(function)).operation
            copies[f"{name}_at_{point}"] = (name, point)
            copy.attributes["sym_name"] = ir.StringAttr.get(f"{name}_at_{point}")
            for op, dimension in list(_dimensions_in(copy)):
                if dimension in sizes:
                    with ir.InsertionPoint(op):
                        size = arith.constant(ir.IndexType.get(), sizes[dimension])
                    op.results[0].replace_all_uses_with(size)
                    op.erase()
        if name not in called:
            function.erase()
    return copies


def _calls_in(functions: Sequence[ir.Operation]) -> Iterator[ir.Operation]:
    return (call for function in functions for call in mlir.ops_named(function, "util.call"))


def _dimensions_in(function: ir.Operation) -> Iterator[tuple[ir.Operation, tuple[int, int]]]:
    """Return the ops that read a size of an input, with the positions of the input and of the dimension."""
    for op in mlir.ops_named(function, _DIM):
        if (dimension := _dimension(op)) is not None:
            yield op, dimension


def _dimension(op: ir.Operation) -> tuple[int, int] | None:
    view = op.operands[0]
    if not isinstance(view.owner, ir.Block):
        return None
    return ir.BlockArgument(view).arg_number, int(ir.IntegerAttr(op.attributes["index"]).value)


def _open_dimensions(call: ir.Operation, function: str) -> Iterator[OpenDimension]:
    for value in call.operands:
        if isinstance(value.type, ir.IndexType | ir.IntegerType):
            for origin in origins(value):
                owner = None if isinstance(origin.owner, ir.Block) else origin.owner.operation
                if owner is not None and owner.name == _DIM and (dimension := _dimension(owner)) is not None:
                    yield OpenDimension(function, *dimension)


def _sized_call(call: ir.Operation, point: int) -> SizedCall:
    """Read a call that passes constants.

    Raises:
        NotComputed: It passes something else.
    """
    _, scalars, *_, lengths = _operands_by_group(call)
    return SizedCall(point, tuple(map(evaluate, scalars)), tuple(map(evaluate, lengths)))


def _operands_by_group(op: ir.Operation) -> list[list[ir.Value]]:
    return [[op.operands[position] for position in group] for group in mlir.operand_groups(op)]


def _with_shape(kind: ir.Type, shape: Sequence[int]) -> ir.Type:
    text = str(kind)
    if text.startswith(mlir.DISPATCH_TENSOR):
        start = text.index(":") + 1
        return ir.Type.parse(f"{text[:start]}{_with_shape(ir.Type.parse(text[start:-1]), shape)}>")
    if isinstance(kind, ir.MemRefType):
        return ir.MemRefType.get(shape, kind.element_type, kind.layout, kind.memory_space)
    return ir.RankedTensorType.get(shape, ir.ShapedType(kind).element_type, ir.RankedTensorType(kind).encoding)


def _shape_of(op: ir.Operation, number: int, constants: Sequence[int]) -> Sequence[int]:
    """Return the shape of a result whose operands have static shapes.

    Raises:
        NotComputed: The op is not followed.
    """
    shape = list(mlir.shaped_type(op.results[number].type).shape)
    if op.name == "hal.interface.binding.subspan":
        return _filled(shape, list(op.operands)[1:], constants)
    if op.name == "tensor.empty":
        return _filled(shape, list(op.operands), constants)
    if op.name in _SAME_SHAPE:
        return _operand_shape(op.operands[0])
    if op.name.startswith(("linalg.", "iree_linalg_ext.")):  # A result has the shape of the output that it replaces.
        return _operand_shape(op.operands[len(op.operands) - len(op.results) + number])
    if op.name == "tensor.expand_shape":
        sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_output_shape"]))
        return _filled(sizes, list(op.operands)[1:], constants)
    if op.name == "tensor.collapse_shape":
        taken = _operand_shape(op.operands[0])
        groups = ir.ArrayAttr(op.attributes["reassociation"])
        return [math.prod(taken[ir.IntegerAttr(dim).value] for dim in ir.ArrayAttr(group)) for group in groups]
    if op.name in ("tensor.extract_slice", "iree_tensor_ext.dispatch.tensor.load"):
        sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
        if len(sizes) == len(shape):
            return _filled(sizes, _operands_by_group(op)[-2], constants)
    raise NotComputed(op.name)


def _operand_shape(value: ir.Value) -> Sequence[int]:
    kind = mlir.shaped_type(value.type)
    if kind is None or not kind.has_static_shape:
        raise NotComputed("a tensor of open shape")
    return [int(size) for size in kind.shape]


def _filled(sizes: Sequence[int], values: Sequence[ir.Value], constants: Sequence[int]) -> list[int]:
    """Replace the dynamic ones among ``sizes`` by the values, in order."""
    remaining = iter(values)
    return [
        evaluate(next(remaining), constants) if size == ir.ShapedType.get_dynamic_size() else size for size in sizes
    ]
