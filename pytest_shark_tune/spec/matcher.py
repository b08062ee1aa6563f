"""Matchers: the transform ops that hold for ops like a root op, and fail for all else.

One function a kind of op. Where IREE has a matcher for the kind it is used, since it sees named ops and generics alike;
it is told all sizes, element types and maps, and what it does not look at (a body, an input that is larger than the
loops need) is asked of other ops. Everything else is compared whole, attributes and body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from iree.compiler import ir
from iree.compiler.dialects import preprocessing_transform, transform

from pytest_shark_tune.dispatch.mlir import affine_map
from pytest_shark_tune.dispatch.trust import check_pattern
from pytest_shark_tune.dispatch.types import ONLINE_ATTENTION, RootOp, Tensor
from pytest_shark_tune.errors import InputError

__all__ = ["add_matcher", "has_matcher"]


def has_matcher(root: RootOp) -> bool:
    """Whether specs can match this op."""
    return root.kind in _MATCHERS_BY_KIND and (bool(root.pattern) or root.kind == "contraction")


def add_matcher(root: RootOp, op: ir.Value) -> None:
    """Add, where ops are inserted, what holds for ``op`` if it is like ``root`` and fails if not.

    Raises:
        InputError: there is no matcher for the root, or what is recorded of it is no op.
    """
    if not has_matcher(root):
        raise InputError(f"no spec can match a root op of kind {root.kind!r} ({root.op}): there is no matcher for it")
    if not all((*root.maps, *(tensor.element for tensor in (*root.inputs, *root.outputs)))):
        raise InputError(f"the recorded op {root.op} lacks a map or a type")  # IREE would crash on the empty text
    try:
        _MATCHERS_BY_KIND[root.kind](root, op)
    except (ir.MLIRError, LookupError, TypeError, ValueError) as error:  # A record may say anything.
        raise InputError(f"the recorded op {root.op} is none: {error}") from error


def _match_contraction(root: RootOp, op: ir.Value) -> None:
    lhs, rhs, output = (ir.Type.parse(tensor.element) for tensor in (*root.inputs[:2], root.outputs[0]))
    dims = preprocessing_transform.MatchContractionOp(op, lhs, rhs, output, indexing_maps=_maps_of(root))
    _match_sizes(root, dims, (root.batch, root.m, root.n, root.k))
    if len({*root.batch, *root.m, *root.n, *root.k}) < len(root.loops):
        # A loop over one input alone, which is then summed up, is none of the four: its size shows in that input.
        for position, tensor in enumerate(root.inputs):
            _match_operand(op, position, tensor)


def _match_convolution(root: RootOp, op: ir.Value) -> None:
    """Match a convolution or pooling: a class that the root has no dimension of must be empty, as ``depth`` mostly is.

    The matcher does not look at the body, which alone tells a maximum from a sum of products. A strided or dilated
    convolution may leave part of its input unread, so the operands are compared too.
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
            _match_operand(op, position, tensor)
    _match_body(root, op)


def _match_attention(root: RootOp, op: ir.Value) -> None:
    """Match attention; one with a mask, which IREE's matchers refuse or do not look at, is compared whole."""
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
    """Compare name, attributes, types and body with the root's."""
    values = transform.AnyValueType.get()
    matcher = preprocessing_transform.MatchCastCompatibleDagFromRootOp(values, values, op)
    _add_pattern(root, matcher)


_MATCHERS_BY_KIND: Mapping[str, Callable[[RootOp, ir.Value], None]] = {
    "contraction": _match_contraction,
    "convolution": _match_convolution,
    "pooling": _match_convolution,
    "attention": _match_attention,
    "other": _match_whole,
}


def _match_sizes(root: RootOp, dims: Iterable[ir.Value], classes: tuple[tuple[int, ...], ...]) -> None:
    for sizes, positions in zip(dims, classes, strict=True):
        preprocessing_transform.MatchDimsEqualOp(sizes, [root.loops[position] for position in positions])


def _match_operand(op: ir.Value, position: int, tensor: Tensor) -> None:
    """Hold for ops whose operand at ``position`` is statically known to be like ``tensor``."""
    operand = transform.GetOperandOp(transform.AnyValueType.get(), op, [position])
    kind = ir.RankedTensorType.get(tensor.shape, ir.Type.parse(tensor.element))
    preprocessing_transform.MatchCastCompatibleTypesOp(operand, kind)


def _match_body(root: RootOp, op: ir.Value) -> None:
    """Hold for ops whose body is the root's, however the op is spelled."""
    _add_pattern(root, preprocessing_transform.MatchRegionsOp(op))


def _add_pattern(root: RootOp, matcher: ir.OpView) -> None:
    """Put a copy of the root's pattern into the matcher's region, whose arguments are its operands."""
    try:
        module = ir.Module.parse(root.pattern)
    except ir.MLIRError as error:  # It is a record's, which another release of IREE wrote.
        raise InputError(f"this IREE does not parse the recorded op {root.op}: {error}") from error
    check_pattern(module, f"the recorded op {root.op}")
    function = module.body.operations[0]
    (source,) = (each for each in function.regions[0].blocks[0].operations if each.operation.name != "func.return")
    block = matcher.regions[0].blocks.append(*(operand.type for operand in source.operation.operands))
    with ir.InsertionPoint(block):
        copy = source.operation.clone().operation
        for position, argument in enumerate(block.arguments):
            copy.operands[position] = argument
        transform.yield_([])


def _maps_of(root: RootOp) -> list[ir.AffineMap]:
    return [affine_map(text) for text in root.maps]
