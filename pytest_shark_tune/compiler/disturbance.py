"""Disturbance: a model with all its sums off by as much as another order of their terms would put them off.

It shows how the model amplifies rounding errors, also behind a rounding to a coarser type. Disturbed inputs would show
that only for floats, and only for the first sums.
"""

from __future__ import annotations

from collections.abc import Collection

from iree.compiler import ir
from iree.compiler.dialects import arith, linalg, tensor

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.mlir import ops_inside, parse_module, string_of
from pytest_shark_tune.dispatch.numerics import deviation_of, sums_floats

__all__ = ["with_disturbed_sums"]

_PRIMES = (73856093, 19349663, 83492791, 49979687, 86028121, 67867967, 15485863, 32452843)
"""The large primes of the usual spatial hash (Teschner et al., 'Optimized Spatial Hashing', VMV 2003), and more."""


def with_disturbed_sums(sources: str, symbols: Collection[str] | None) -> str:
    """Disturb the sums of floats in some executables of a module at phase ``executable-sources``.

    An element of K terms is off by ``u * sqrt(K)`` of itself, up or down by its place. That is the standard deviation
    of the difference between two orders of the terms.

    Args:
        sources: The text of the module.
        symbols: The names of the executables; ``None`` for all.

    Returns:
        The text of the disturbed module.

    Raises:
        InputError: the text is not MLIR that this IREE parses.
    """
    with compiler_context():
        module = parse_module(sources)
        executables = [
            op.operation
            for op in module.body.operations
            if op.operation.name == "hal.executable"
            and (symbols is None or string_of(op.operation, "sym_name") in symbols)
        ]
        for op in [op for executable in executables for op in ops_inside(executable) if sums_floats(op)]:
            for result in op.results:
                if isinstance(ir.ShapedType(result.type).element_type, ir.FloatType):
                    _disturb(op, result, deviation_of(op))
        return str(module)


def _disturb(op: ir.Operation, result: ir.Value, relative: float) -> None:
    """Multiply the elements of a result by numbers slightly above or below 1 wherever the result is used."""
    uses = [(use.owner.operation, use.operand_number) for use in result.uses]
    kind = ir.ShapedType(result.type)
    with ir.InsertionPoint.after(op), op.location:
        identity = ir.AffineMapAttr.get(ir.AffineMap.get_identity(kind.rank))
        parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
        generic = linalg.GenericOp(
            [result.type],
            [result],
            [tensor.empty(kind.shape, kind.element_type)],
            ir.ArrayAttr.get([identity, identity]),
            ir.ArrayAttr.get([parallel] * kind.rank),
        )
        block = generic.regions[0].blocks.append(kind.element_type, kind.element_type)
        with ir.InsertionPoint(block):
            linalg.YieldOp([_off(block.arguments[0], kind, relative)])
    for user, number in uses:
        user.operands[number] = generic.results[0]


def _off(value: ir.Value, kind: ir.ShapedType, relative: float) -> ir.Value:
    """The element times 1 + relative or 1 - relative, in f32, depending on a hash of its place."""
    integer, wide = ir.IntegerType.get_signless(32), ir.F32Type.get()

    def constant(number: int) -> ir.Value:
        return arith.constant(integer, number - (number >> 31 << 32))

    place = constant(0)
    for dimension in range(kind.rank):
        index = arith.index_cast(integer, linalg.IndexOp(dimension).result)
        place = arith.xori(
            arith.muli(place, constant(_PRIMES[-1])), arith.muli(index, constant(_PRIMES[dimension % 7]))
        )
    mixed = arith.muli(arith.xori(place, arith.shrui(place, constant(15))), constant(0x85EBCA6B))
    bit = arith.andi(arith.shrui(mixed, constant(17)), constant(1))
    is_up = arith.cmpi(arith.CmpIPredicate.eq, bit, constant(0))
    factor = arith.select(is_up, arith.constant(wide, 1 + relative), arith.constant(wide, 1 - relative))
    if kind.element_type == wide:
        return arith.mulf(value, factor)
    if kind.element_type.width > wide.width:
        return arith.mulf(value, arith.extf(kind.element_type, factor))
    return arith.truncf(kind.element_type, arith.mulf(arith.extf(wide, value), factor))
