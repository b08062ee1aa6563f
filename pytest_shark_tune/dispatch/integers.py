"""Integers that a program computes from known ones: offsets, scalars and the operands of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from iree.compiler import ir

__all__ = ["NotComputed", "evaluate", "origins"]


class NotComputed(Exception):
    """An integer is not computed from known ones by ops that are followed; the message names the first other op."""


_BINARY: Final[Mapping[str, Callable[[int, int], int]]] = {
    "arith.addi": lambda left, right: left + right,
    "arith.andi": lambda left, right: left & right,
    "arith.maxsi": max,
    "arith.minsi": min,
    "arith.muli": lambda left, right: left * right,
    "arith.ori": lambda left, right: left | right,
    "arith.shli": lambda left, right: left << right,
    "arith.shrsi": lambda left, right: left >> right,
    "arith.subi": lambda left, right: left - right,
    "arith.xori": lambda left, right: left ^ right,
}
_UNSIGNED_BINARY: Final[Mapping[str, Callable[[int, int], int]]] = {
    "arith.shrui": lambda left, right: left >> right,
    "arith.maxui": max,
    "arith.minui": min,
}
_UNSIGNED_CASTS = ("arith.extui", "arith.index_castui")
_CASTS = ("arith.extsi", "arith.trunci", "arith.index_cast", "iree_tensor_ext.dispatch.workload.ordinal")
_ASSUME = "util.assume.int"
_FOLLOWED = {*_BINARY, *_UNSIGNED_BINARY, *_UNSIGNED_CASTS, *_CASTS, _ASSUME}


def evaluate(value: ir.Value, constants: Sequence[int] = (), known: Mapping[ir.Value, int] | None = None) -> int:
    """Return the value of an integer or an index, as a signed number of its type.

    Args:
        value: The integer.
        constants: The constants of the call of a dispatch, by ordinal.
        known: Other values that are known.

    Raises:
        NotComputed: The value is computed from other ones, or by other ops.
    """
    if known is not None and value in known:
        return known[value]
    op = _owner(value)
    if op is None:
        raise NotComputed("a value that is no constant")
    if op.name == "arith.constant" and isinstance(op.attributes["value"], ir.IntegerAttr):
        return int(op.attributes["value"].value)
    if op.name == "hal.interface.constant.load":
        return _signed(constants[int(ir.IntegerAttr(op.attributes["ordinal"]).value)], value.type)
    if op.name == _ASSUME:
        return evaluate(op.operands[ir.OpResult(value).result_number], constants, known)
    if op.name not in _FOLLOWED:
        raise NotComputed(op.name)
    numbers = [evaluate(operand, constants, known) for operand in op.operands]
    if op.name in _UNSIGNED_BINARY or op.name in _UNSIGNED_CASTS:
        widths = map(_width, op.operands)
        numbers = [number & ((1 << width) - 1) for number, width in zip(numbers, widths, strict=True)]
    compute = _BINARY.get(op.name) or _UNSIGNED_BINARY.get(op.name)
    return _signed(compute(*numbers) if compute else numbers[0], value.type)


def origins(value: ir.Value) -> list[ir.Value]:
    """Return the values that an integer is computed from, except constants: those that no followed op computes."""
    op = _owner(value)
    if op is not None and op.name == "arith.constant":
        return []
    if op is None or op.name not in _FOLLOWED:
        return [value]
    return [origin for operand in op.operands for origin in origins(operand)]


def _owner(value: ir.Value) -> ir.Operation | None:
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def _width(value: ir.Value) -> int:
    return _type_width(value.type)


def _type_width(kind: ir.Type) -> int:
    return int(kind.width) if isinstance(kind, ir.IntegerType) else 64


def _signed(number: int, kind: ir.Type) -> int:
    """Return the number that a type of this width holds, read as a signed one; of ``i1`` it is 0 or 1."""
    width = _type_width(kind)
    number &= (1 << width) - 1
    return number - (1 << width) if width > 1 and number >> (width - 1) else number
