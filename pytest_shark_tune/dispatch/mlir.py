"""Reading modules through IREE's bindings: what several stages ask of ops, types and attributes."""

from __future__ import annotations

from iree.compiler import ir

from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import InputError

__all__ = [
    "CannotTune",
    "only_op",
    "ops_inside",
    "ops_named",
    "parent_named",
    "parse_module",
    "string_of",
    "tensor_of",
]


class CannotTune(Exception):
    """Why a benchmark module holds nothing to tune, in words."""


def parse_module(text: str | bytes) -> ir.Module:
    """Parse a module in the context that is current.

    Raises:
        InputError: it is no MLIR that this IREE parses.
    """
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        first = error.error_diagnostics[0] if error.error_diagnostics else None
        where = f"{first.location}: {first.message}" if first else str(error)
        raise InputError(f"it is not MLIR that this IREE parses: {where}") from error


def parent_named(op: ir.Operation, name: str) -> ir.Operation:
    """The nearest op of that name that ``op`` is in; there has to be one."""
    while op.name != name:
        op = op.parent
    return op


def ops_named(op: ir.Operation, name: str) -> list[ir.Operation]:
    """The ops of that name inside ``op``, in the order of a walk."""
    found: list[ir.Operation] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner.name == name:
            found.append(inner)
        return ir.WalkResult.ADVANCE

    op.walk(visit)
    return found


def ops_inside(op: ir.Operation) -> list[ir.Operation]:
    """All ops inside ``op``, itself left out, in order."""
    found: list[ir.Operation] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner != op:
            found.append(inner)
        return ir.WalkResult.ADVANCE

    op.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def only_op(op: ir.Operation, name: str) -> ir.Operation:
    """The one op of that name inside ``op``.

    Raises:
        CannotTune: there is none, or there are more.
    """
    found = ops_named(op, name)
    if len(found) != 1:
        raise CannotTune(f"its benchmark has {len(found)} {name} ops instead of one")
    return found[0]


def string_of(op: ir.Operation, name: str) -> str:
    """The value of an attribute that is a string."""
    return str(ir.StringAttr(op.attributes[name]).value)


def tensor_of(kind: ir.Type, *, scalars: bool = False) -> Tensor:
    """The shape and the element type of a tensor or a buffer; of a scalar too, if ``scalars`` may be.

    Raises:
        CannotTune: it is something else, or not of a fixed size, or empty.
    """
    if scalars and isinstance(kind, ir.FloatType | ir.IntegerType | ir.IndexType):
        return Tensor((), str(kind))
    try:
        shaped = ir.ShapedType(kind)
    except ValueError:
        raise CannotTune(f"it has an operand of type {kind}, and only tensors can be filled with data") from None
    if not shaped.has_static_shape:
        raise CannotTune(f"it has dynamic dimensions ({kind}): fix the input shapes")
    if 0 in shaped.shape:
        raise CannotTune(f"it has a dimension of size 0 ({kind})")
    return Tensor(tuple(shaped.shape), str(shaped.element_type))
