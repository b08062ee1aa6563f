"""The rewrite ``fused-attention``: MatMul, Softmax and MatMul of an imported ONNX model as one attention op.

IREE compiles ``torch.aten.scaled_dot_product_attention`` to one dispatch, which never stores the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import walk
from pytest_shark_tune.forms.onnx_in_mlir import (
    TensorType,
    attribute_ints,
    build_onnx,
    build_torch,
    int64s,
    is_onnx,
    only_user,
    scalar_of,
    tensor_type,
)

__all__ = ["fuse_attention"]

_ROUNDING = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-22, "f64": 2.0**-51}
"""How far the product of two rounded factors may be from the exact one, by element type."""


def fuse_attention(module: ir.Module) -> int:
    """Rewrite every attention in a module, and return their number.

    An attention is ``Softmax(scale * Q @ K' + mask) @ V``. The scale has one element and may be on Q, on K or on the
    product, as Mul or Div. The mask may be missing. Q, K and V have the same float type and the same batch dimensions,
    at least one. No other op uses the scores.
    """
    return sum(_fuse(op) for op in walk(module.operation) if is_onnx(op, "Softmax"))


class _Scaled(msgspec.Struct, frozen=True):
    """A value without its scales."""

    value: ir.Value
    scale: float
    """The product of the scales that are constants."""
    factors: tuple[tuple[str, ir.Value], ...] = ()
    """The other scales: ``Mul`` or ``Div`` and its operand."""


class _Attention(msgspec.Struct, frozen=True):
    """The operands of an attention op."""

    query: ir.Value
    keys: ir.Value
    """K with its last two dimensions swapped."""
    mask: ir.Value | None
    scale: float
    factors: tuple[tuple[str, ir.Value], ...]
    """Scales that are no constants."""
    scores: TensorType
    product: ir.OpView
    """The op to replace: the product with V."""


def _fuse(softmax: ir.OpView) -> bool:
    weights = softmax.results[0]
    kind = tensor_type(weights)
    axis = attribute_ints(softmax, "axis") or [-1]  # The import raises models to an opset in which -1 is the default.
    if kind is None or axis[0] not in (-1, kind.rank - 1):
        return False
    product = only_user(weights)
    if product is not None and is_onnx(product, "Cast"):
        weights = product.results[0]
        product = only_user(weights)
    if product is None or not is_onnx(product, "MatMul") or product.operands[0] != weights:
        return False
    for scores, mask in _scores_of(softmax.operands[0]):
        found = _attention_of(scores, mask, product)
        if found is not None:
            _write(found)
            return True
    return False


def _scores_of(value: ir.Value) -> Iterator[tuple[_Scaled, ir.Value | None]]:
    """The ways to read a value as scaled scores and a mask. Nothing else may use the value."""
    op = value.owner
    if only_user(value) is not None and is_onnx(op, "Add"):
        yield _scaled_scores(op.operands[0]), op.operands[1]
        yield _scaled_scores(op.operands[1]), op.operands[0]
    else:
        yield _scaled_scores(value), None


def _scaled_scores(value: ir.Value) -> _Scaled:
    """Take the scales off scores, and Cast between float types, since attention computes scores in f32."""
    scale = 1.0
    factors: list[tuple[str, ir.Value]] = []
    while only_user(value) is not None:
        op = value.owner
        if is_onnx(op, "Cast"):
            before, after = tensor_type(op.operands[0]), tensor_type(value)
            if before is None or after is None or not before.is_float or not after.is_float:
                break
            value = op.operands[0]
            continue
        if (found := _scaling(value)) is None:
            break
        name, value, factor = found
        number = _constant_factor(name, factor)
        if number is None:
            factors.append((name, factor))
        else:
            scale *= number
    return _Scaled(value, scale, tuple(factors))


def _without_constant_scales(value: ir.Value) -> _Scaled:
    """Take scales off Q or K. Scales that are no constants stay on it."""
    scale = 1.0
    while (found := _scaling(value)) is not None and (number := _constant_factor(found[0], found[2])) is not None:
        scale *= number
        value = found[1]
    return _Scaled(value, scale)


def _scaling(value: ir.Value) -> tuple[str, ir.Value, ir.Value] | None:
    """Split the result of Mul or Div into the op's name, the scaled value and a factor of one element."""
    op = value.owner
    name = next((name for name in ("Mul", "Div") if is_onnx(op, name)), None)
    if name is None:
        return None
    for side in (1, 0) if name == "Mul" else (1,):
        scaled, factor = op.operands[1 - side], op.operands[side]
        kind = tensor_type(factor)
        if kind is not None and math.prod(kind.shape) == 1 and scaled.type == value.type:
            return name, scaled, factor
    return None


def _constant_factor(name: str, factor: ir.Value) -> float | None:
    number = scalar_of(factor)
    if number is None or name == "Mul":
        return number
    return 1.0 / number if number else math.inf


def _attention_of(scores: _Scaled, mask: ir.Value | None, product: ir.OpView) -> _Attention | None:
    inner = scores.value.owner
    if only_user(scores.value) is None or not is_onnx(inner, "MatMul"):
        return None
    read = (*inner.operands, product.operands[1], scores.value, product.results[0])
    kinds = [kind for kind in map(tensor_type, read) if kind is not None]
    if len(kinds) < len(read) or kinds[0].rank < 3 or not kinds[0].is_float:
        return None
    query, keys, values, table, _ = kinds
    query_side, key_side = (_without_constant_scales(operand) for operand in inner.operands)
    scale = scores.scale * query_side.scale * key_side.scale
    is_attention = (
        len({kind.element for kind in kinds}) == 1
        and query.shape[:-2] == keys.shape[:-2] == values.shape[:-2]
        and all(_is_one_of(query, factor) for _, factor in scores.factors)
        and (mask is None or _is_mask(tensor_type(mask), table))
        and math.isfinite(scale)
    )
    if not is_attention:
        return None
    return _Attention(query_side.value, key_side.value, mask, scale, scores.factors, table, product)


def _is_one_of(query: TensorType, factor: ir.Value) -> bool:
    kind = tensor_type(factor)
    return kind is not None and kind.element == query.element


def _is_mask(mask: TensorType | None, table: TensorType) -> bool:
    """Whether a mask can be added to a table of scores without making it larger."""
    return (
        mask is not None
        and mask.is_float
        and mask.rank <= table.rank
        and all(size in (1, full) for size, full in zip(mask.shape[::-1], table.shape[::-1], strict=False))
    )


def _write(found: _Attention) -> None:
    product = found.product
    with ir.InsertionPoint(product), product.location:
        query = found.query
        kind = _known(query)
        for name, factor in found.factors:
            (query,) = build_onnx(name, [query, factor], [kind])
        none = build_torch("constant.none", [], ir.Type.parse("!torch.none"))
        false = build_torch("constant.bool", [], ir.Type.parse("!torch.bool"), {"value": ir.BoolAttr.get(False)})
        usual = kind.shape[-1] ** -0.5
        is_usual = abs(found.scale / usual - 1) <= _ROUNDING[kind.element]
        operands = [
            *(query, _swapped(found.keys), product.operands[1]),
            none if found.mask is None else _full_rank(found.mask, found.scores.rank),
            *(_float(0.0), false),
            none if is_usual else _float(found.scale),
            false,
        ]
        fused = build_torch("aten.scaled_dot_product_attention", operands, product.results[0].type)
    product.results[0].replace_all_uses_with(fused)


def _swapped(keys: ir.Value) -> ir.Value:
    """K: the value with its last two dimensions swapped back, by the Transpose that swapped them if there is one."""
    kind = _known(keys)
    perm = [*range(kind.rank - 2), kind.rank - 1, kind.rank - 2]
    if is_onnx(keys.owner, "Transpose"):
        before = keys.owner.operands[0]
        order = attribute_ints(keys.owner, "perm") or list(range(kind.rank))[::-1]
        perm = [order[axis] for axis in perm]
        if perm == sorted(perm):
            return before
        keys = before
    swapped = kind.with_shape((*kind.shape[:-2], kind.shape[-1], kind.shape[-2]))
    return build_onnx("Transpose", [keys], [swapped], perm=perm)[0]


def _full_rank(mask: ir.Value, rank: int) -> ir.Value:
    """The mask with leading dimensions of one element, without which the compiler takes no mask of few dimensions."""
    kind = _known(mask)
    if kind.rank == rank:
        return mask
    shape = (*[1] * (rank - kind.rank), *kind.shape)
    return build_onnx("Reshape", [mask, int64s(shape)], [kind.with_shape(shape)])[0]


def _float(number: float) -> ir.Value:
    data = ir.FloatAttr.get(ir.F64Type.get(), number)
    return build_torch("constant.float", [], ir.Type.parse("!torch.float"), {"value": data})


def _known(value: ir.Value) -> TensorType:
    kind = tensor_type(value)
    assert kind is not None  # `_attention_of` has read it.
    return kind
