"""Reading modules through IREE's bindings: helpers for ops, types, attributes and affine maps."""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
import re
import sys
import threading
import types
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iree.compiler import ir

from pytest_shark_tune.dispatch.foreign.nesting import why_too_deep
from pytest_shark_tune.dispatch.reasons import (
    EmptyTensor,
    OpenSizes,
    TooManyElements,
    UnreadableBenchmark,
    UnreadableOperand,
)
from pytest_shark_tune.dispatch.text_pipelines import text_name
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import InputError

__all__ = [
    "DISPATCH_TENSOR",
    "affine_map",
    "least_bytes",
    "loops_in",
    "only_op",
    "operand_groups",
    "ops_inside",
    "ops_named",
    "parent_named",
    "parse_attribute",
    "parse_module",
    "pattern_op",
    "pipeline_name",
    "shaped_type",
    "shared_context",
    "string_of",
    "tensor_of",
    "walk",
]


_register = ir.register_attribute_builder
_REGISTERED_TWICE = "IteratorType"


def _register_linalg_last(kind: str, replace: bool = False) -> Any:
    """Register a builder of attributes; of the two that 3.11 has by one name, linalg's wins over iree_gpu's.

    Without this, the two dialects cannot be imported in one process with 3.11.
    """

    def register(make: Any) -> Any:
        if kind != _REGISTERED_TWICE:
            return _register(kind, replace)(make)
        return make if make.__module__.endswith("._iree_gpu_enum_gen") else _register(kind, True)(make)

    return register


if "allow_existing" not in inspect.signature(_register).parameters:  # Since 3.12 the dialects say that themselves.
    ir.register_attribute_builder = _register_linalg_last

_WITHOUT_CLASSES = "iree.compiler.dialects.iree_cpu"
try:
    importlib.import_module(_WITHOUT_CLASSES)
except ModuleNotFoundError:
    # The bindings look for a dialect's Python module with every attribute that they return, until there is one. An
    # empty module ends the search: a lowering config is read in 1 us instead of 30.
    sys.modules[_WITHOUT_CLASSES] = types.ModuleType(_WITHOUT_CLASSES)


_BACKEND = re.compile(r"^(CPU|LLVMGPU|SPIRV)(?=[A-Z])")
DISPATCH_TENSOR = "!iree_tensor_ext.dispatch.tensor<"
"""How the text of a binding's type begins, of which IREE has no bindings."""
_MOST_ELEMENTS = 1 << 38
"""The most elements of an operand: a terabyte of f32. The spaces of larger ops take minutes, and nothing runs them."""
_LONGEST = 300
"""Error messages show at most this much of a text that does not parse."""
_USES = 32
"""How often a context is used. What it has parsed is never freed, so it must not live forever."""
_thread = threading.local()


@contextmanager
def shared_context() -> Iterator[ir.Context]:
    """Enter a context that earlier calls in this thread have used, with an unknown location.

    Making one takes 10 ms, since it loads the dialects: longer than parsing the module of a dispatch. No object of the
    context may be used after the block, and the block may not change the context.
    """
    context, uses = _thread.__dict__.pop("spare", (None, 0))  # A nested block finds none, and makes its own.
    if context is None:
        context = ir.Context()
        context.enable_multithreading(False)
    with context, ir.Location.unknown():
        yield context
    if uses + 1 < _USES:
        _thread.spare = context, uses + 1


def parse_module(text: str) -> ir.Module:
    """Parse a module in the current context.

    Raises:
        InputError: The text is no MLIR that this IREE parses, or is nested too deeply to be parsed safely.
    """
    if why := why_too_deep(text):
        raise InputError(f"it is not MLIR that is parsed: {why}")
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        first = error.error_diagnostics[0] if error.error_diagnostics else None
        where = f"{first.location}: {first.message}" if first else str(error)
        raise InputError(f"it is not MLIR that this IREE parses: {where}") from error


def pattern_op(text: str) -> tuple[ir.Module, ir.Operation]:
    """Return the one op in a recorded pattern, with the module that keeps it alive.

    Raises:
        InputError: The text is no module with one function that holds one op besides its return.
    """
    module = parse_module(text)
    for function in module.body.operations:
        blocks = [block for region in function.regions for block in region.blocks]
        found = [op.operation for block in blocks for op in block.operations if op.operation.name != "func.return"]
        if len(found) == 1:
            return module, found[0]
        break
    raise InputError("the recorded pattern is no function with one op")


def parse_attribute(text: str) -> ir.Attribute:
    """Parse an attribute, which may come from elsewhere, in the current context.

    Raises:
        InputError: The text is no attribute that this IREE parses, or is nested too deeply to be parsed safely.
    """
    # IREE crashes on an empty text.
    if why := why_too_deep(text) or ("" if text.strip() else "the text is empty"):
        raise InputError(f"not an attribute that this IREE parses: {why}")
    try:
        return ir.Attribute.parse(text)
    except (ir.MLIRError, ValueError) as error:
        raise InputError(f"not an attribute that this IREE parses: {text[:_LONGEST]}: {error}") from error


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
        raise UnreadableBenchmark(f"its benchmark has {len(found)} {name} ops instead of one")
    return found[0]


def string_of(op: ir.Operation, name: str) -> str:
    """Return the value of a string attribute."""
    return str(ir.StringAttr(op.attributes[name]).value)


def tensor_of(kind: ir.Type, *, scalars: bool = False, empty: bool = False) -> Tensor:
    """Return the shape and the element type of a tensor or a buffer.

    Args:
        kind: The type to read.
        scalars: Whether a scalar type is accepted too.
        empty: Whether a dimension of size 0 is accepted too.

    Raises:
        CannotTune: The type is another one, has no static size, or is empty.
    """
    if scalars and isinstance(kind, ir.FloatType | ir.IntegerType | ir.IndexType):
        return Tensor((), str(kind))
    try:
        shaped = ir.ShapedType(kind)
    except ValueError:
        raise UnreadableOperand(f"it has an operand of type {kind}, and only tensors can be filled with data") from None
    if not shaped.has_static_shape:
        raise OpenSizes(f"it has dynamic dimensions ({kind})")
    if 0 in shaped.shape and not empty:
        raise EmptyTensor(f"it has a dimension of size 0 ({kind})")
    if math.prod(shaped.shape) > _MOST_ELEMENTS:
        raise TooManyElements(f"it has more elements than any device holds ({kind})")
    return Tensor(tuple(shaped.shape), str(shaped.element_type))


def shaped_type(kind: ir.Type) -> Any:
    """Return the shaped type of a tensor, a buffer or a binding of a dispatch; ``None`` for other types."""
    text = str(kind)
    if text.startswith(DISPATCH_TENSOR):
        kind = ir.Type.parse(text[text.index(":") + 1 : -1])
    return kind if isinstance(kind, ir.ShapedType) and kind.has_rank else None


def operand_groups(op: ir.Operation) -> list[range]:
    """Return the positions of the operands in each group of an op's operands."""
    found, start = [], 0
    for size in ir.DenseI32ArrayAttr(op.attributes["operandSegmentSizes"]):
        found.append(range(start, start + size))
        start += size
    return found


def least_bytes(kind: ir.Type) -> int:
    """Return the least number of bytes that hold a tensor of fixed shape; 0 for other types."""
    if not isinstance(kind, ir.ShapedType) or not kind.has_static_shape:
        return 0
    element, parts = kind.element_type, 1
    if isinstance(element, ir.ComplexType):
        element, parts = element.element_type, 2
    bits = element.width if isinstance(element, ir.FloatType | ir.IntegerType) else 0
    total: int = math.prod(kind.shape) * parts * bits
    return -(-total // 8)


def affine_map(text: str) -> ir.AffineMap:
    """Parse an affine map in the current context.

    Raises:
        InputError: The text is no affine map.
    """
    try:
        return ir.AffineMapAttr(parse_attribute(text)).value
    except ValueError as error:
        raise InputError(f"not an affine map: {text[:_LONGEST]}") from error


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
    name that `text_name` gives it. Releases before 3.12 have one list of pipelines, whose names begin with the backend.
    """
    text = str(attribute)
    name = text[text.find("<") + 1 : text.rfind(">")].strip() if "<" in text else text
    return text_name(text) or _BACKEND.sub("", name)
