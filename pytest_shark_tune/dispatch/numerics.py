"""Reading the numerics of a dispatch from its ops: the sums that it computes and the types that it rounds to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import linalg

from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.dispatch.mlir import ops_inside
from pytest_shark_tune.dispatch.types import ATTENTION, ONLINE_ATTENTION, Index, Numerics, Product, Sum

__all__ = [
    "LOADS",
    "STORES",
    "deviation_of",
    "may_index",
    "read_numerics",
    "read_product",
    "summed_length",
    "sums_floats",
    "view_behind",
]

LOADS = ("iree_codegen.load_from_buffer", "iree_tensor_ext.dispatch.tensor.load")
STORES = ("iree_codegen.store_to_buffer", "iree_tensor_ext.dispatch.tensor.store")
_RESHAPES = ("tensor.collapse_shape", "tensor.expand_shape")
_CASTS = ("arith.extf", "arith.truncf", "arith.extsi", "arith.extui", "arith.trunci", "arith.sitofp", "arith.uitofp")
_CHOICES = ("arith.select", "arith.maximumf", "arith.minimumf", "arith.maxnumf", "arith.minnumf", "linalg.index")
_UNSIGNED = ("arith.extui", "arith.uitofp")
"""Ops that take negative small integers for large ones."""
_EXACT_BEFORE_A_SUM = frozenset((*_CASTS, *_CHOICES, "linalg.yield")) - frozenset(_UNSIGNED)
_EXACT_IN_A_SUM = frozenset((*_EXACT_BEFORE_A_SUM, "arith.addf", "arith.mulf", "arith.addi", "arith.muli"))
_EXPONENTIALS = ("arith.subf", "math.exp", "math.exp2")
_ROUNDS = ("arith.addf", "arith.mulf", "math.fma", "complex.add", "complex.mul")
_TRANSFORMS = ("iree_linalg_ext.fft", "iree_linalg_ext.winograd.")
"""Ops that sum, though they have no body that adds."""
_ACCUMULATOR = "f32"
"""IREE accumulates an attention in f32, regardless of the types of its inputs and results."""


def read_numerics(function: ir.Operation) -> Numerics:
    """Read the numerics of the function of a dispatch."""
    ops = [op for op in ops_inside(function) if _computes(op)]
    sums = {op: found for op in ops if (found := _sums(op))}
    after = _after(ops, sums)
    before = _before(sums)
    types = [kind for op in ops for kind in _float_types(op)]
    # A sum rounds to the type in which it is accumulated. That rounding is part of the sum.
    rounded = [(op, kind) for op in ops if op in after and op not in sums for kind in _roundings(op)]
    inside = [kind for op in sums if op.name in (ATTENTION, ONLINE_ATTENTION) for kind in _narrow_inputs(op)]
    reductions = list(sums)
    return Numerics(
        sums=tuple(kept for found in sums.values() for kept in found),
        widest=min(types, key=unit_roundoff, default=""),
        rounded=tuple(kind for op, kind in rounded if op not in before),
        spread=(*inside, *(kind for op, kind in rounded if op in before)),
        exact=bool(sums) and all(_is_exact(op, is_sum=op in sums) for op in (*before, *reductions)),
        switched=any(map(_picks_largest, before))
        and all(_is_exact(op, is_sum=op in sums, also=_EXPONENTIALS) for op in (*before, *reductions)),
        to_integers=any(
            inner.name in ("arith.fptosi", "arith.fptoui")
            for op in ops
            if op in after or op in sums
            for inner in _body_ops(op)
        ),
        products=bool(sums) and all(_is_sum_of_products(op) for op in reductions),
    )


def deviation_of(op: ir.Operation) -> float:
    """Return the standard deviation of the rounding error of an op's sums, relative to the sums."""
    return math.sqrt(sum(kept.length * unit_roundoff(kept.element) ** 2 for kept in _sums(op)))


def sums_floats(op: ir.Operation) -> bool:
    """Return whether an op computes sums of floats."""
    return _computes(op) and any(unit_roundoff(kept.element) for kept in _sums(op))


def may_index(function: ir.Operation) -> bool:
    """Return whether a loaded number may be an index, a divisor or a shift distance."""
    ops = [op for op in ops_inside(function) if _computes(op)]
    if any(op.name.startswith("iree_linalg_ext.") for op in ops):
        return True
    for inner in (inner for op in ops for inner in _body_ops(op)):
        if inner.name in _NEEDS_SMALL:
            return True
        if inner.name.startswith("arith.index_cast") and not isinstance(inner.operands[0].type, ir.IndexType):
            return True
    return False


_NEEDS_SMALL = (
    *("tensor.extract", "math.ipowi", "arith.shli", "arith.shrsi", "arith.shrui"),
    *(f"arith.{name}{sign}i" for name in ("div", "rem", "ceildiv", "floordiv") for sign in "su"),
)


def summed_length(op: ir.Operation) -> int:
    """Return the number of terms of the longest sum of an op, 1 if it sums nothing."""
    return max((kept.length for kept in _sums(op)), default=1)


def read_product(root: ir.Operation, subspans: Sequence[ir.Operation]) -> Product | None:
    """Read the root op as a product of stored tensors.

    Args:
        root: The root op.
        subspans: The buffer views, in order.

    Returns:
        The product, or ``None`` if the root is another op or other ops come before or after it. The result may be
        rounded to the type in which it is stored.
    """
    if not (linalg.isa_contraction_op(root) or linalg.isa_convolution_op(root)) or not _is_sum_of_products(root):
        return None
    values = [*list(root.operands)[:2], root.results[0]]
    shapes = [tuple(ir.ShapedType(value.type).shape) for value in values]
    views = (
        *(view_behind(value, subspans, casts=False) for value in values[:2]),
        _view_ahead(root.results[0], subspans),
    )
    maps = _linalg_maps(root)
    indices = [_indices(affine) for affine in maps]
    if len(maps) != 3 or None in (*views, *indices) or not _starts_at_zero(root):
        return None
    loops: dict[int, int] = {}
    for index, shape in zip(indices, shapes, strict=True):
        loops |= {one[0][0]: size for one, size in zip(index or (), shape, strict=True) if len(one) == 1}
    kept = {loop for one in indices[2] or () for loop, _ in one}
    if len(loops) != maps[0].n_dims or any(
        sum(loop in kept for loop, _ in one) > 1 for index in indices for one in index or ()
    ):
        return None
    return msgspec.convert(
        {"views": views, "shapes": shapes, "loops": [loops[n] for n in range(len(loops))], "indices": indices}, Product
    )


def _indices(affine: ir.AffineMap) -> tuple[Index, ...] | None:
    """Return how loops index each dimension, or ``None`` if an index is no sum of loops with factors."""
    found = [_index(expression) for expression in affine.results]
    return None if any(index is None for index in found) else tuple(index for index in found if index is not None)


def _index(expression: ir.AffineExpr) -> Index | None:
    if isinstance(expression, ir.AffineDimExpr):
        return ((expression.position, 1),)
    if isinstance(expression, ir.AffineAddExpr):
        left, right = _index(expression.lhs), _index(expression.rhs)
        return None if left is None or right is None else (*left, *right)
    if isinstance(expression, ir.AffineMulExpr):
        factor = next(
            (part for part in (expression.lhs, expression.rhs) if isinstance(part, ir.AffineConstantExpr)), None
        )
        loop = next((part for part in (expression.lhs, expression.rhs) if isinstance(part, ir.AffineDimExpr)), None)
        return None if factor is None or loop is None else ((loop.position, factor.value),)
    return None


def _starts_at_zero(root: ir.Operation) -> bool:
    producer = root.operands[2].owner
    return not isinstance(producer, ir.Block) and producer.operation.name == "linalg.fill"


def _view_ahead(value: ir.Value, subspans: Sequence[ir.Operation]) -> int | None:
    """Return the position of the view that a result is stored to, unchanged or rounded, or ``None``."""
    while len(uses := list(value.uses)) == 1:
        op = uses[0].owner.operation
        if op.name in STORES:
            return view_behind(op.operands[1], subspans)
        rounds = _computes(op) and [inner.name for inner in _body_ops(op)] == ["arith.truncf", "linalg.yield"]
        if not (op.name in _RESHAPES or (rounds and _maps_alike(op))):
            return None
        value = op.results[0]
    return None


def _linalg_maps(op: ir.Operation) -> list[ir.AffineMap]:
    return [ir.AffineMapAttr(attribute).value for attribute in linalg.get_indexing_maps(op) or ()]


def _maps_alike(op: ir.Operation) -> bool:
    maps = _linalg_maps(op)
    return all(affine == maps[0] for affine in maps)


def view_behind(value: ir.Value, subspans: Sequence[ir.Operation], *, casts: bool = True) -> int | None:
    """Return the position of the buffer view that a tensor is loaded from, or ``None``.

    Args:
        value: The tensor, which may be a reshaped load.
        subspans: The buffer views, in order.
        casts: Whether the load may also be cast, padded and transposed.
    """
    while not isinstance(value.owner, ir.Block):
        op = value.owner.operation
        if op.name == "hal.interface.binding.subspan":
            return subspans.index(op) if op in subspans else None
        is_cast = (
            casts
            and _computes(op)
            and not _sums(op)
            and all(inner.name in (*_CASTS, "linalg.yield") for inner in _body_ops(op))
        )
        moves = op.name.startswith(("memref.", "amdgpu.fat_raw_buffer_cast")) or op.name in (*LOADS, *_RESHAPES)
        moves = moves or (casts and op.name.startswith("tensor."))
        if not op.operands or not (is_cast or moves):
            return None
        value = op.operands[0]
    return None


def _computes(op: ir.Operation) -> bool:
    return op.name.startswith(("linalg.", "iree_linalg_ext.")) and bool(op.results) and op.name != "linalg.fill"


def _sums(op: ir.Operation) -> list[Sum]:
    """Return the sums that an op computes."""
    if op.name in (ATTENTION, ONLINE_ATTENTION):
        width, keys = _attention_lengths(op)
        # One sum over what query and key share, and two over the keys: the weights, and the weighted values.
        return [Sum(_ACCUMULATOR, width), Sum(_ACCUMULATOR, keys), Sum(_ACCUMULATOR, keys)]
    if not op.name.startswith("linalg."):
        if not op.name.startswith(_TRANSFORMS) and not any(inner.name in _ROUNDS for inner in _body_ops(op)):
            return []  # The op moves, picks or sorts.
        return [Sum(str(result.element_type), _transformed_length(op, result)) for result in _float_results(op)]
    if op.name == "linalg.softmax":
        shape = ir.ShapedType(op.results[0].type)
        length = shape.shape[ir.IntegerAttr(op.attributes["dimension"]).value]
        return [Sum(str(shape.element_type), length)]
    maps = _linalg_maps(op)
    if not maps or not _adds(op):
        return []
    reduced = _reduced(op, maps)
    return [Sum(str(ir.ShapedType(result.type).element_type), reduced) for result in op.results] if reduced > 1 else []


def _attention_lengths(op: ir.Operation) -> tuple[int, int]:
    """Return the length of the sums over the width of a key, and the number of keys."""
    maps = [ir.AffineMapAttr(attribute).value for attribute in op.attributes["indexing_maps"]]
    sizes: dict[int, int] = {}
    query, key, value = set[int](), set[int](), set[int]()
    for loops, affine, operand in zip((query, key, value), maps, op.operands, strict=False):
        for expression, size in zip(affine.results, ir.ShapedType(operand.type).shape, strict=True):
            if isinstance(expression, ir.AffineDimExpr):
                loops.add(expression.position)
                sizes[expression.position] = size
    width, keys = (query & key) - value, (key & value) - query
    return math.prod(sizes[loop] for loop in width), math.prod(sizes[loop] for loop in keys)


def _transformed_length(op: ir.Operation, result: ir.ShapedType) -> int:
    """Return an upper bound of the number of terms in an element of an op that is not in ``linalg``."""
    if op.name == "iree_linalg_ext.scan":
        return int(result.shape[ir.IntegerAttr(op.attributes["dimension"]).value])
    return math.prod(result.shape)


def _adds(op: ir.Operation) -> bool:
    """Return whether an op rounds while it reduces. An op that picks the largest element does not."""
    return any(inner.name in (*_ROUNDS, "arith.addi", "arith.muli") for inner in _body_ops(op))


def _reduced(op: ir.Operation, maps: Sequence[ir.AffineMap]) -> int:
    """Return the product of the trip counts of the loops that index no output."""
    sizes: dict[int, int] = {}
    for affine, operand in zip(maps, op.operands, strict=True):
        shape = ir.ShapedType(operand.type).shape if isinstance(operand.type, ir.ShapedType) else ()
        for expression, size in zip(affine.results, shape, strict=False):
            if isinstance(expression, ir.AffineDimExpr):
                sizes.setdefault(expression.position, size)
    kept = {
        expression.position
        for affine in maps[len(maps) - len(op.results) :]
        for expression in affine.results
        if isinstance(expression, ir.AffineDimExpr)
    }
    return math.prod(size for position, size in sizes.items() if position not in kept)


def _float_results(op: ir.Operation) -> list[ir.ShapedType]:
    shaped = (ir.ShapedType(result.type) for result in op.results if isinstance(result.type, ir.ShapedType))
    return [kind for kind in shaped if isinstance(kind.element_type, ir.FloatType)]


def _producers(op: ir.Operation) -> list[ir.Operation]:
    return [value.owner.operation for value in op.operands if not isinstance(value.owner, ir.Block)]


def _after(ops: Sequence[ir.Operation], sums: Iterable[ir.Operation]) -> set[ir.Operation]:
    """Return the ops that compute from a sum; ``ops`` are in order."""
    seen = set(sums)
    found: set[ir.Operation] = set()
    for op in ops:
        if any(producer in seen or producer in found for producer in _through_moves(op)):
            found.add(op)
    return found


def _before(sums: Iterable[ir.Operation]) -> set[ir.Operation]:
    """Return the ops that a sum is computed from."""
    found: set[ir.Operation] = set()
    pending = [producer for op in sums for producer in _through_moves(op)]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += _through_moves(op)
    return found


def _through_moves(op: ir.Operation) -> list[ir.Operation]:
    """Return the computing ops with results that ``op`` takes, directly or moved."""
    found: list[ir.Operation] = []
    pending = _producers(op)
    while pending:
        producer = pending.pop()
        if _computes(producer):
            found.append(producer)
        else:
            pending += _producers(producer)
    return found


def _body_ops(op: ir.Operation) -> list[ir.Operation]:
    return [inner.operation for region in op.regions for block in region.blocks for inner in block.operations]


def _is_coarse(kind: ir.Type) -> bool:
    return isinstance(kind, ir.FloatType) and kind.width < ir.F32Type.get().width


def _float_types(op: ir.Operation) -> list[str]:
    kinds = [result.type for inner in _body_ops(op) for result in inner.results]
    kinds += [
        ir.ShapedType(result.type).element_type for result in op.results if isinstance(result.type, ir.ShapedType)
    ]
    kinds = [kind.element_type if isinstance(kind, ir.ComplexType) else kind for kind in kinds]
    return [str(kind) for kind in kinds if isinstance(kind, ir.FloatType)]


def _roundings(op: ir.Operation) -> list[str]:
    """Return the types of less than 32 bits that an op rounds a value to before it, or another op, uses the value."""
    is_used = any(_computes(use.owner.operation) for result in op.results for use in result.uses)
    found = []
    for inner in _body_ops(op):
        if inner.name in ("arith.extf", "arith.constant"):
            continue
        for result in inner.results:
            users = [use.owner.operation.name for use in result.uses]
            if _is_coarse(result.type) and (is_used or any(name != "linalg.yield" for name in users)):
                found.append(str(result.type))
    return found


def _narrow_inputs(attention: ir.Operation) -> list[str]:
    """Return the type of an attention's values if it is coarse: weights are rounded to it before values are summed."""
    values = ir.ShapedType(attention.operands[2].type).element_type
    return [str(values)] if _is_coarse(values) else []


def _picks_largest(op: ir.Operation) -> bool:
    picks = any(inner.name in ("arith.maximumf", "arith.maxnumf") for inner in _body_ops(op))
    kinds = op.attributes.get("iterator_types", ())  # A named op has no such attribute.
    return picks and any("reduction" in str(kind) for kind in kinds)


def _is_exact(op: ir.Operation, *, is_sum: bool, also: Sequence[str] = ()) -> bool:
    names = [inner.name for inner in _body_ops(op)]
    if op.name.startswith("iree_linalg_ext.") or op.name == "linalg.softmax":
        return False
    allowed = _EXACT_IN_A_SUM if is_sum else _EXACT_BEFORE_A_SUM
    takes_constants = any(_is_float_constant(value) for inner in _body_ops(op) for value in inner.operands)
    return set(names) <= {*allowed, *also} and names.count("arith.mulf") <= 1 and not takes_constants


def _is_float_constant(value: ir.Value) -> bool:
    is_float = isinstance(value.type, ir.FloatType)
    return is_float and not isinstance(value.owner, ir.Block) and value.owner.operation.name == "arith.constant"


def _is_sum_of_products(op: ir.Operation) -> bool:
    products = [inner for inner in _body_ops(op) if inner.name == "arith.mulf"]
    return bool(products) and all(_source(inner.operands[0]) != _source(inner.operands[1]) for inner in products)


def _source(value: ir.Value) -> ir.Value:
    """Return the value before all casts."""
    while not isinstance(value.owner, ir.Block) and value.owner.operation.name in _CASTS:
        value = value.owner.operation.operands[0]
    return value
