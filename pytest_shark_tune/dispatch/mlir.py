"""Reading modules through IREE's bindings: helpers for ops, types, attributes and affine maps."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
import types
from collections import defaultdict
from typing import Any

from iree.compiler import ir

from pytest_shark_tune.dispatch.text_pipelines import text_name
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import InputError

__all__ = [
    "CannotTune",
    "affine_map",
    "least_bytes",
    "loops_in",
    "only_op",
    "ops_inside",
    "ops_named",
    "parent_named",
    "parse_module",
    "pipeline_name",
    "string_of",
    "tensor_of",
    "walk",
]


_WITHOUT_CLASSES = "iree.compiler.dialects.iree_cpu"
try:
    importlib.import_module(_WITHOUT_CLASSES)
except ModuleNotFoundError:
    # The bindings look for a dialect's Python module with every attribute that they return, until there is one. An
    # empty module ends the search: a lowering config is read in 1 us instead of 30.
    sys.modules[_WITHOUT_CLASSES] = types.ModuleType(_WITHOUT_CLASSES)


class CannotTune(Exception):
    """A benchmark module holds nothing to tune; the message tells the reason."""


def parse_module(text: str | bytes) -> ir.Module:
    """Parse a module in the current context.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        first = error.error_diagnostics[0] if error.error_diagnostics else None
        where = f"{first.location}: {first.message}" if first else str(error)
        raise InputError(f"it is not MLIR that this IREE parses: {where}") from error


def parent_named(op: ir.Operation, name: str) -> ir.Operation:
    """Return the nearest op of that name around ``op``. There must be one."""
    while op.name != name:
        op = op.parent
    return op


def ops_named(op: ir.Operation, name: str) -> list[ir.Operation]:
    """Return the ops of that name in ``op``, itself included. Inner ops come before outer ones."""
    return [inner for inner in walk(op, ir.WalkOrder.POST_ORDER) if inner.name == name]


def ops_inside(op: ir.Operation) -> list[ir.Operation]:
    """Return all ops inside ``op`` in order, without itself."""
    return walk(op)[1:]


def walk(op: ir.Operation, order: ir.WalkOrder = ir.WalkOrder.PRE_ORDER) -> list[ir.Operation]:
    """Return all ops in ``op``, itself included."""
    # The callback runs no Python code. An interrupt would be raised in it, and leave the walk as a RuntimeError.
    found: defaultdict[ir.Operation, ir.WalkResult] = defaultdict(itertools.repeat(ir.WalkResult.ADVANCE).__next__)
    op.walk(found.__getitem__, order)
    return list(found)


def only_op(op: ir.Operation, name: str) -> ir.Operation:
    """Return the one op of that name inside ``op``.

    Raises:
        CannotTune: There is none, or there are several.
    """
    found = ops_named(op, name)
    if len(found) != 1:
        raise CannotTune(f"its benchmark has {len(found)} {name} ops instead of one")
    return found[0]


def string_of(op: ir.Operation, name: str) -> str:
    """Return the value of a string attribute."""
    return str(ir.StringAttr(op.attributes[name]).value)


def tensor_of(kind: ir.Type, *, scalars: bool = False) -> Tensor:
    """Return the shape and the element type of a tensor or a buffer.

    Args:
        kind: The type to read.
        scalars: Whether a scalar type is accepted too.

    Raises:
        CannotTune: The type is another one, has no static size, or is empty.
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


def least_bytes(kind: ir.Type) -> int:
    """Return the least number of bytes that hold a tensor of fixed shape; 0 for other types."""
    if not isinstance(kind, ir.ShapedType) or not kind.has_static_shape:
        return 0
    element, parts = kind.element_type, 1
    if isinstance(element, ir.ComplexType):
        element, parts = element.element_type, 2
    bits = element.width if isinstance(element, ir.FloatType | ir.IntegerType) else 0
    return -(-int(math.prod(kind.shape) * parts * bits) // 8)


def affine_map(text: str) -> ir.AffineMap:
    """Parse an affine map in the current context."""
    return ir.AffineMapAttr(ir.Attribute.parse(text)).value


def loops_in(expression: ir.AffineExpr) -> tuple[int, ...]:
    """Return the loops in an index expression in order, such as both loops of ``d1 + d4``."""
    if isinstance(expression, ir.AffineDimExpr):
        return (expression.position,)
    if isinstance(expression, ir.AffineBinaryExpr):
        return (*loops_in(expression.lhs), *loops_in(expression.rhs))
    return ()


def pipeline_name(attribute: Any) -> str:
    """Return the name of a pipeline without its dialect: ``TileAndFuse`` for ``#iree_gpu.pipeline<TileAndFuse>``.

    The bindings have no accessor for it, so the attribute's text is sliced. A pipeline that is written as text has the
    name that `text_name` gives it.
    """
    text = str(attribute)
    return text_name(text) or (text[text.find("<") + 1 : text.rfind(">")] if "<" in text else text)
