"""Reading modules through IREE's bindings: what several stages ask of ops, types and attributes."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types
from collections import defaultdict

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
    "walk",
]


_WITHOUT_CLASSES = "iree.compiler.dialects.iree_cpu"
if importlib.util.find_spec(_WITHOUT_CLASSES) is None:
    # The bindings look for a dialect's Python module with every attribute that they return, until there is one. An
    # empty module ends the search: a lowering config is read in 1 us instead of 30.
    sys.modules[_WITHOUT_CLASSES] = types.ModuleType(_WITHOUT_CLASSES)


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
    """The ops of that name in ``op``, itself included; inner ops come before outer ones."""
    return [inner for inner in walk(op, ir.WalkOrder.POST_ORDER) if inner.name == name]


def ops_inside(op: ir.Operation) -> list[ir.Operation]:
    """All ops inside ``op``, itself left out, in order."""
    return walk(op)[1:]


def walk(op: ir.Operation, order: ir.WalkOrder = ir.WalkOrder.PRE_ORDER) -> list[ir.Operation]:
    """All ops in ``op``, itself included."""
    # The callback runs no Python code. An interrupt would be raised in it, and leave the walk as a RuntimeError.
    found: defaultdict[ir.Operation, ir.WalkResult] = defaultdict(itertools.repeat(ir.WalkResult.ADVANCE).__next__)
    op.walk(found.__getitem__, order)
    return list(found)


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
