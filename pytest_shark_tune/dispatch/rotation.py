"""Rotation: a benchmark's data in several copies, so that a dispatch does not find its own still in the cache."""

from __future__ import annotations

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import arith, util

from pytest_shark_tune.dispatch.mlir import ops_named
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch

__all__ = ["rotated", "rotated_dispatch"]

_ALIGNMENT_BYTES = 256
"""The alignment that every device accepts for the start of a binding."""
_TURN = "shark_tune_turn"


def rotated_dispatch(dispatch: Dispatch, size_bytes: int) -> Dispatch:
    """Return the dispatch with the benchmark of each member rotated, unless several of open size share a module."""
    members = tuple(
        member if member.size else msgspec.structs.replace(member, module=rotated(member.module, size_bytes))
        for member in dispatch.members
    )
    return msgspec.structs.replace(dispatch, members=members)


def rotated(module: BenchmarkModule, size_bytes: int) -> BenchmarkModule:
    """Return the module with enough copies of its data to fill ``size_bytes``; each dispatch uses the next copy.

    The turn outlives a batch, so batches shorter than the number of copies use all copies too. A module with data that
    fills ``size_bytes`` by itself is returned unchanged.
    """
    stride = -(-module.buffer_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    copies = -(-size_bytes // stride)
    if copies <= 1:
        return module
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        parsed = ir.Module.parse(module.text)
        _grow_buffer(parsed.operation, copies * stride)
        with ir.InsertionPoint.at_block_begin(parsed.body):
            index = ir.IndexType.get()
            start = ir.IntegerAttr.get(index, 0)
            util.GlobalOp(_TURN, index, sym_visibility="private", is_mutable=True, initial_value=start)
        (loop,) = ops_named(parsed.operation, "scf.for")
        _take_turns(loop, copies, stride)
        return msgspec.structs.replace(module, text=str(parsed), buffer_bytes=copies * stride, copies=copies)


def _grow_buffer(module: ir.Operation, size: int) -> None:
    """Change the size in bytes of the buffer that the module allocates, and of the view that it returns."""
    (allocation,) = ops_named(module, "hal.allocator.allocate")
    *_, size_operand = range(len(allocation.operands))
    _set_constant(allocation, [size_operand], size)
    (view,) = ops_named(module, "hal.buffer_view.create")
    _, _, length, _, _, *shape = range(len(view.operands))
    _set_constant(view, [length, *shape], size)


def _take_turns(loop: ir.Operation, copies: int, stride: int) -> None:
    """Advance the bindings of the loop's one dispatch by a copy in each iteration, and store the last position."""
    index = ir.IndexType.get()
    turn = ir.FlatSymbolRefAttr.get(_TURN)
    with ir.InsertionPoint(loop):
        first = util.GlobalLoadOp(index, turn).result
        count = arith.constant(index, copies)
        size = arith.constant(index, stride)
        following = arith.remui(arith.addi(first, loop.operands[1]), count)
        util.GlobalStoreOp(following, turn)
    (call,) = ops_named(loop, "hal.command_buffer.dispatch")
    with ir.InsertionPoint(call):
        iteration = loop.regions[0].blocks[0].arguments[0]
        base = arith.muli(arith.remui(arith.addi(first, iteration), count), size)
        for position in _offset_positions(call):
            call.operands[position] = arith.addi(base, call.operands[position])


def _offset_positions(call: ir.Operation) -> range:
    """Return the positions of a dispatch's operands that are offsets: the group before the lengths, the last one."""
    *before, offsets, _ = ir.DenseI32ArrayAttr(call.attributes["operandSegmentSizes"])
    return range(sum(before), sum(before) + offsets)


def _set_constant(op: ir.Operation, positions: list[int], value: int) -> None:
    with ir.InsertionPoint(op):
        constant = arith.constant(ir.IndexType.get(), value)
    for position in positions:
        op.operands[position] = constant
