"""Matchers: transform ops that succeed for ops like a root op, and fail for all others.

There is one function for each kind of op. If IREE has a matcher for the kind, it is used, since it treats named ops and
generics alike. It gets all sizes, element types and maps. Other ops check the properties that it ignores (a body, an
input that is larger than the loops need). Ops of other kinds are compared as a whole, with attributes and body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from iree.compiler import ir
from iree.compiler.dialects import preprocessing_transform, transform

from pytest_shark_tune.dispatch.foreign.trust import check_pattern
from pytest_shark_tune.dispatch.fused import OPERAND, RESULT
from pytest_shark_tune.dispatch.mlir import affine_map, loops_in, pattern_op
from pytest_shark_tune.dispatch.types import ONLINE_ATTENTION, OPEN, RootOp, Tensor
from pytest_shark_tune.errors import InputError, SpecRefused

__all__ = ["add_matcher", "has_matcher", "match_fused"]

_GENERIC = "linalg.generic"
_NAVIGATION = {OPERAND: transform.GetProducerOfOperand, RESULT: transform.GetConsumersOfResult}


def has_matcher(root: RootOp) -> bool:
    """Return whether specs can match this op."""
    return root.kind in _MATCHERS_BY_KIND and (bool(root.pattern) or root.kind == "contraction")


def add_matcher(root: RootOp, op: ir.Value) -> None:
    """Add transform ops at the insertion point that succeed if ``op`` is like ``root``, and fail otherwise.

    Raises:
        InputError: There is no matcher for the root, or its record describes no op.
    """
    if not has_matcher(root):
        raise InputError(f"no spec can match a root op of kind {root.kind!r} ({root.op}): there is no matcher for it")
    if root.loop_ranges and root.kind != "contraction":
        raise InputError(f"only entries for contractions match several sizes, and {root.op} is none")
    if not all((*root.maps, *(tensor.element for tensor in (*root.inputs, *root.outputs)))):
        raise InputError(f"the recorded op {root.op} lacks a map or a type")  # IREE would crash on the empty text.
    try:
        _MATCHERS_BY_KIND[root.kind](root, op)
    except SpecRefused:
        raise
    except (InputError, ir.MLIRError, LookupError, TypeError, ValueError) as error:  # A record may hold anything.
        raise InputError(f"the recorded op {root.op} is none: {error}") from error


def match_fused(path: str, op: ir.Value) -> ir.Value:
    """Add transform ops that succeed if a generic op stands at the end of a path from ``op``, and return that op."""
    any_op = transform.AnyOpType.get()
    steps = path.split("_")
    for kind, number in zip(steps[::2], steps[1::2], strict=True):
        navigate = _NAVIGATION.get(kind)
        if navigate is None or not number.isdecimal():
            raise InputError(f"a path to another op of a dispatch is no {path!r}")
        op = navigate(any_op, op, int(number)).result
        transform.MatchOperationNameOp(op, [_GENERIC])
    return op


def _match_contraction(root: RootOp, op: ir.Value) -> None:
    lhs, rhs, output = (ir.Type.parse(tensor.element) for tensor in (*root.inputs[:2], root.outputs[0]))
    dims = preprocessing_transform.MatchContractionOp(op, lhs, rhs, output, indexing_maps=_maps_of(root))
    _match_sizes(root, dims, (root.batch, root.m, root.n, root.k))
    _match_ranges(root, op)
    if len({*root.batch, *root.m, *root.n, *root.k}) < len(root.loops):
        # A loop over a single input, which is summed, is in none of the four classes. The input shows its size.
        for position, tensor in enumerate(root.inputs):
            _match_operand(root, op, position, tensor)


def _match_convolution(root: RootOp, op: ir.Value) -> None:
    """Match a convolution or pooling. A class without dimensions, as ``depth`` usually is, must be empty.

    The matcher ignores the body, which distinguishes a maximum from a sum of products. A strided or dilated convolution
    may leave part of its input unread, so the operands are compared too.
    """
    lhs, rhs, output = (ir.Type.parse(tensor.element) for tensor in (*root.inputs[:2], root.outputs[0]))
    *classes, strides, dilations = preprocessing_transform.MatchConvolutionOp(
        op, lhs, rhs, output, indexing_maps=_maps_of(root)
    ).results
    expected = (
        root.batch,
        root.output_image,
        root.output_channel,
        root.filter_loop,
        root.input_channel,
        root.depth,
    )
    _match_sizes(root, classes, expected)
    for given, steps in ((strides, root.strides), (dilations, root.dilations)):
        preprocessing_transform.MatchDimsEqualOp(given, list(steps))
    for position, tensor in enumerate((*root.inputs, *root.outputs)):
        if tensor.shape:
            _match_operand(root, op, position, tensor)
    _match_body(root, op)


def _match_attention(root: RootOp, op: ir.Value) -> None:
    """Match attention. IREE's matchers refuse or ignore a mask, so attention with a mask is compared as a whole."""
    if len(root.inputs) > len(("query", "key", "value", "scale")):
        _match_whole(root, op)
        return
    query, key, value, scale = (ir.Type.parse(tensor.element) for tensor in root.inputs)
    outputs = [ir.Type.parse(tensor.element) for tensor in root.outputs]
    if root.op == ONLINE_ATTENTION:
        sizes = [transform.ParamType.get(ir.IntegerType.get_signless(64))] * 5
        maps = ir.ArrayAttr.get([ir.AffineMapAttr.get(affine) for affine in _maps_of(root)])
        types = [ir.TypeAttr.get(kind) for kind in (query, key, value, scale, *outputs)]
        dims = preprocessing_transform.MatchOnlineAttentionOp(*sizes, op, *types, maps).results
    else:
        dims = preprocessing_transform.MatchAttentionOp(
            op, query, key, value, *outputs, indexing_maps=_maps_of(root)
        ).results
    _match_sizes(root, dims, (root.batch, root.m, root.n, root.k1, root.k2))
    _match_body(root, op)


def _match_whole(root: RootOp, op: ir.Value) -> None:
    """Match the name, the attributes, the types and the body."""
    values = transform.AnyValueType.get()
    matcher = preprocessing_transform.MatchCastCompatibleDagFromRootOp(values, values, op)
    _add_pattern(root, matcher)


_MATCHERS_BY_KIND: Mapping[str, Callable[[RootOp, ir.Value], None]] = {
    "contraction": _match_contraction,
    "convolution": _match_convolution,
    "pooling": _match_convolution,
    "attention": _match_attention,
    "scaled_contraction": _match_whole,
    "other": _match_whole,
}


def _match_sizes(root: RootOp, dims: Iterable[ir.Value], classes: tuple[tuple[int, ...], ...]) -> None:
    for sizes, positions in zip(dims, classes, strict=True):
        preprocessing_transform.MatchDimsEqualOp(sizes, [root.matched_loops[position] for position in positions])


def _match_ranges(root: RootOp, op: ir.Value) -> None:
    """Match the sizes of loops of which the root takes several, in the first operand that shows each of them."""
    for span in root.loop_ranges:
        position, dimension = next(
            (position, dimension)
            for position, text in enumerate(root.maps)
            for dimension, index in enumerate(affine_map(text).results)
            if isinstance(index, ir.AffineDimExpr) and index.position == span.loop
        )
        operand = transform.GetOperandOp(transform.AnyValueType.get(), op, [position])
        preprocessing_transform.MatchDimBoundsOp(operand, dimension, lower_bound=span.low, upper_bound=span.high)
        if span.multiple > 1:
            preprocessing_transform.MatchDimIsMultipleOfOp(operand, dimension, span.multiple)


def _match_operand(root: RootOp, op: ir.Value, position: int, tensor: Tensor) -> None:
    """Match ops that have an operand at ``position`` of the type ``tensor``, of any size along loops of many sizes."""
    operand = transform.GetOperandOp(transform.AnyValueType.get(), op, [position])
    shape = list(tensor.shape)
    several = set(root.loops_of_many_sizes)
    for dimension, index in enumerate(affine_map(root.maps[position]).results if several else ()):
        if several & set(loops_in(index)):
            shape[dimension] = OPEN
    kind = ir.RankedTensorType.get(shape, ir.Type.parse(tensor.element))
    preprocessing_transform.MatchCastCompatibleTypesOp(operand, kind)


def _match_body(root: RootOp, op: ir.Value) -> None:
    """Match ops with the body of the root, regardless of the op's name."""
    _add_pattern(root, preprocessing_transform.MatchRegionsOp(op))


def _add_pattern(root: RootOp, matcher: ir.OpView) -> None:
    """Copy the root's pattern into the matcher's region, with the region's arguments as operands."""
    module, source = pattern_op(root.pattern)
    check_pattern(module, f"the recorded op {root.op}")
    block = matcher.regions[0].blocks.append(*(operand.type for operand in source.operands))
    with ir.InsertionPoint(block):
        copy = source.clone().operation
        for position, argument in enumerate(block.arguments):
            copy.operands[position] = argument
        transform.yield_([])


def _maps_of(root: RootOp) -> list[ir.AffineMap]:
    return [affine_map(text) for text in root.maps]
