"""The buffer of a benchmark module: its layout, and a function that returns it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import arith, hal, linalg, util

from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.dispatch.integers import NotComputed, evaluate
from pytest_shark_tune.dispatch.mlir import only_op, ops_inside, ops_named, string_of, tensor_of
from pytest_shark_tune.dispatch.numerics import (
    LOADS,
    STORES,
    may_index,
    read_numerics,
    read_product,
    summed_length,
    view_behind,
)
from pytest_shark_tune.dispatch.reasons import UnreadableBenchmark
from pytest_shark_tune.dispatch.types import ATTENTION, ONLINE_ATTENTION, BenchmarkModule, BufferView, Tensor

__all__ = ["Run", "add_buffer_functions", "benchmark_module", "runs_in"]

_BUFFER_CASTS = {"amdgpu.fat_raw_buffer_cast", "memref.assume_alignment", "memref.cast"}
_BUFFER_FUNCTION = "shark_tune_buffer"
_BEFORE_MASK = 4
"""The operands of attention before its mask: query, key, value and scale."""


class Run(NamedTuple):
    """A function of a benchmark module that runs its dispatch, and what it passes to the dispatch."""

    name: str
    buffer: str
    """The name of the global that holds its buffer."""
    constants: tuple[int, ...]
    """The scalars."""
    offsets: tuple[int, ...]
    """The starts of the operands in the buffer, in bytes."""
    lengths: tuple[int, ...]
    """The numbers of bytes of the operands."""

    @property
    def size(self) -> int:
        """The size of the buffer in bytes."""
        return max(offset + length for offset, length in zip(self.offsets, self.lengths, strict=True))


def runs_in(module: ir.Module) -> Iterator[Run]:
    """Read the functions of a dumped benchmark module that run its dispatch: one for each way in which it is called.

    Raises:
        CannotTune: What one passes is no constant.
    """
    for function in module.body.operations:
        if function.name == "util.func" and "iree.reflection" in function.attributes:
            call = only_op(function, "hal.command_buffer.dispatch").opview
            buffer = ir.FlatSymbolRefAttr(only_op(function, "util.global.load").attributes["global"]).value
            passed = (call.constants, call.binding_offsets, call.binding_lengths)
            yield Run(string_of(function, "sym_name"), buffer, *(tuple(map(_evaluate, values)) for values in passed))


def add_buffer_functions(module: ir.Module, runs: Iterable[Run]) -> dict[str, str]:
    """Add a function to a benchmark module for each run that returns its buffer.

    Returns:
        The names of the functions, by those of the runs.
    """
    names = {}
    for number, run in enumerate(runs):
        names[run.name] = f"{_BUFFER_FUNCTION}_{number}" if number else _BUFFER_FUNCTION
        _add_buffer_function(module, names[run.name], run.buffer, run.size)
    return names


def benchmark_module(text: str, function: ir.Operation, root: ir.Operation, run: Run, buffer: str) -> BenchmarkModule:
    """Describe a benchmark module with a function that returns its buffer.

    Args:
        text: The text of the module.
        function: The function of the dispatch.
        root: The root op in ``function``.
        run: The function that runs it.
        buffer: The name of the function that returns the buffer.

    Raises:
        CannotTune: The layout of the buffer cannot be determined.
    """
    views = []
    subspans = ops_named(function, "hal.interface.binding.subspan")
    scales, masks = _scales(root, subspans), _boolean_masks(function, subspans)
    numerics = read_numerics(function)
    wide = not may_index(function) and not any(unit_roundoff(total.element) for total in numerics.sums)
    for position, subspan in enumerate(subspans):
        binding = ir.IntegerAttr(subspan.attributes["binding"]).value
        view = _view(subspan, run.offsets[binding] + _evaluate(subspan.operands[0], run.constants))
        element = "i1" if position in masks else view.element
        views.append(msgspec.structs.replace(view, element=element, scale=scales.get(position, 1.0), wide=wide))
    return BenchmarkModule(
        text=text,
        run_function=run.name,
        buffer_function=buffer,
        buffer_bytes=run.size,
        views=tuple(views),
        numerics=numerics,
        product=read_product(root, subspans),
    )


def _scales(root: ir.Operation, subspans: Sequence[ir.Operation]) -> dict[int, float]:
    """Return the limit of random inputs of a product that makes its sums about 1, by the position of their view.

    A number that is uniform in [-a, a) has the variance a**2 / 3, so a sum of K products of two has K * a**4 / 9.
    """
    operands = list(root.operands)[:2]
    if not linalg.isa_contraction_op(root) and not linalg.isa_convolution_op(root):
        return {}
    length = summed_length(root)
    scale = math.sqrt(3 / math.sqrt(length))
    found = (view_behind(operand, subspans) for operand in operands)
    return {position: scale for position in found if position is not None}


def _boolean_masks(function: ir.Operation, subspans: Sequence[ir.Operation]) -> set[int]:
    """Return the positions of views that hold masks of booleans for attention, which are stored in bytes."""
    found: set[int] = set()
    for op in ops_inside(function):
        if op.name in (ATTENTION, ONLINE_ATTENTION):
            for operand in list(op.operands)[_BEFORE_MASK : len(op.operands) - len(op.results)]:
                position = view_behind(operand, subspans)
                if position is not None and str(ir.ShapedType(operand.type).element_type) in ("i1", "i8"):
                    found.add(position)
    return found


def _view(subspan: ir.Operation, offset_bytes: int) -> BufferView:
    users = _users(subspan.results[0])
    memref = tensor_of(_buffer_type(subspan.results[0].type))
    known = users <= {*LOADS, *STORES}
    return BufferView(
        offset_bytes=offset_bytes,
        shape=memref.shape,
        element=memref.element,
        # A view that is written in part keeps the rest, which must be the same before each run.
        reads=not known or not users.isdisjoint(LOADS) or _is_written_in_part(subspan.results[0], memref),
        writes=not known or not users.isdisjoint(STORES),
    )


def _buffer_type(kind: ir.Type) -> ir.Type:
    """Return the type that a binding holds, on some backends in ``!iree_tensor_ext.dispatch.tensor<readonly:TYPE>``.

    IREE has no bindings for that type, so its text is sliced and parsed.
    """
    text = str(kind)
    if not text.startswith("!iree_tensor_ext.dispatch.tensor<"):
        return kind
    return ir.Type.parse(text[text.index(":") + 1 : -1])


def _users(value: ir.Value) -> set[str]:
    """Return the names of the ops that read or write a buffer, directly, cast, or through a view of a part of it."""
    names: set[str] = set()
    for op in (use.owner for use in value.uses):
        names |= _users(op.results[0]) if op.name in {*_BUFFER_CASTS, "memref.subview"} else {op.name}
    return names


def _is_written_in_part(value: ir.Value, whole: Tensor) -> bool:
    for use in value.uses:
        if use.owner.name in _BUFFER_CASTS:
            if _is_written_in_part(use.owner.results[0], whole):
                return True
        elif use.owner.name == "memref.subview":
            return True
        elif use.owner.name == "iree_tensor_ext.dispatch.tensor.store":
            stored = ir.ShapedType(use.owner.operands[0].type)
            if not stored.has_static_shape or tuple(stored.shape) != whole.shape:
                return True
    return False


def _add_buffer_function(module: ir.Module, name: str, buffer_name: str, total: int) -> None:
    view_type = ir.Type.parse("!hal.buffer_view")
    signature = ir.TypeAttr.get(ir.FunctionType.get([], [view_type]))
    with ir.InsertionPoint(module.body):
        function = util.FuncOp(name, signature, sym_visibility="public")
    function.attributes["iree.abi.stub"] = ir.UnitAttr.get()
    with ir.InsertionPoint(function.regions[0].blocks.append()):
        buffer = util.GlobalLoadOp(ir.Type.parse("!hal.buffer"), ir.FlatSymbolRefAttr.get(buffer_name)).result
        start, length = (arith.constant(ir.IndexType.get(), value) for value in (0, total))
        element = hal.ElementTypeOp(ir.TypeAttr.get(ir.IntegerType.get_signless(8))).result
        encoding = hal.EncodingTypeOp().result
        view = hal.BufferViewCreateOp(buffer, start, length, element, encoding, [length]).result
        util.ReturnOp([view])


def _evaluate(value: ir.Value, constants: Sequence[int] = ()) -> int:
    """Return the value of an index that a dispatch computes from the constants of its call.

    Raises:
        CannotTune: It is computed in a way that is not followed.
    """
    try:
        return evaluate(value, constants)
    except NotComputed as reason:
        raise UnreadableBenchmark(f"an offset into its buffer comes from {reason}, which is not followed") from reason
