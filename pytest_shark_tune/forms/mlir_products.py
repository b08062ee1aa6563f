"""The rewrite ``fused-products``: several products of one value of an imported ONNX model as one batch of products.

Q, K and V of attention are such products. One batch fills a device that none of the products fills.
"""

from __future__ import annotations

import math

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import walk
from pytest_shark_tune.forms.onnx_in_mlir import TensorType, build_onnx, int64s, is_onnx, tensor_type

__all__ = ["fuse_products"]

_OF_WEIGHTS = ("Cast", "Constant", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Nodes that may come between a weight and its product. None of them computes with the product's left operand."""


def fuse_products(module: ir.Module) -> int:
    """Rewrite products with the same left operand as one batch, and return the number of products in such batches.

    The right operands are weights, matrices of one shape: arguments of the function, constants, or one of these in
    another layout or type. They are put behind each other, since parts along the first dimension need no copy. Side by
    side in one matrix, the compiler copies every part of the weights and of the result element by element.
    """
    groups: list[list[ir.OpView]] = []
    for op in walk(module.operation):
        if is_onnx(op, "MatMul") and _is_product(op):
            group = next((group for group in groups if _belongs(op, group[0])), None)
            if group is None:
                groups.append(group := [])
            group.append(op)
    fused = [group for group in groups if len(group) > 1]
    for group in fused:
        _fuse(group)
    return sum(map(len, fused))


def _is_product(op: ir.OpView) -> bool:
    left, right, result = (tensor_type(value) for value in (*op.operands, *op.results))
    return (
        left is not None
        and right is not None
        and result is not None
        and left.is_float
        and right.rank == 2 <= left.rank
        and left.element == right.element == result.element
        and _is_weight(op.operands[1])
    )


def _is_weight(value: ir.Value) -> bool:
    """Whether a value is an argument, a constant, or one of these in another layout or type."""
    op = value.owner
    return isinstance(op, ir.Block) or (is_onnx(op, *_OF_WEIGHTS) and all(map(_is_weight, op.operands)))


def _belongs(op: ir.OpView, first: ir.OpView) -> bool:
    return bool(
        op.operands[0] == first.operands[0]
        and op.operands[1].type == first.operands[1].type
        and op.operation.block == first.operation.block
    )


def _fuse(products: list[ir.OpView]) -> None:
    first = products[0]
    weights = [product.operands[1] for product in products]
    for weight in weights:
        _move_before(weight, first)
    left, right, result = (_known(value) for value in (*first.operands, *first.results))
    count, rows = len(products), math.prod(left.shape[:-1])
    with ir.InsertionPoint(first), first.location:
        stacked = build_onnx(
            "Concat",
            [_reshaped(weight, (1, *right.shape)) for weight in weights],
            [right.with_shape((count, *right.shape))],
            axis=0,
        )
        one = _reshaped(first.operands[0], (1, rows, left.shape[-1]))
        batch = build_onnx("MatMul", [one, *stacked], [result.with_shape((count, rows, result.shape[-1]))])
        part = result.with_shape((1, rows, result.shape[-1]))
        parts = build_onnx("Split", [*batch, int64s([1] * count)], [part] * count, axis=0)
        for product, found in zip(products, parts, strict=True):
            product.results[0].replace_all_uses_with(_reshaped(found, result.shape))


def _reshaped(value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    return build_onnx("Reshape", [value, int64s(shape)], [_known(value).with_shape(shape)])[0]


def _move_before(value: ir.Value, place: ir.OpView) -> None:
    """Move the node that computes a weight before a place if it comes later, and so its producers."""
    op = value.owner
    if isinstance(op, ir.Block) or op.operation.block != place.operation.block:
        return
    if not op.operation.is_before_in_block(place.operation):
        op.operation.move_before(place.operation)
        for operand in op.operands:
            _move_before(operand, op)


def _known(value: ir.Value) -> TensorType:
    kind = tensor_type(value)
    assert kind is not None  # `_is_product` has read it.
    return kind
