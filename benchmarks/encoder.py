"""Writes a transformer's encoder block as MLIR: ``python benchmarks/encoder.py -o encoder.mlir``.

It is what `pytest encoder.mlir --tune --tune-target cuda:sm_89` is tried with on a GPU. Values are f16, and everything
is summed in f32::

    y = x + attention(norm(x) Wqkv + bqkv) Wo + bo
    z = y + gelu(norm(y) Wup + bup) Wdown + bdown

All weights are inputs of ``@main``, in the order of `INPUTS`, and a product is divided by the root of the length of its
sums. So with the tuner's random inputs every value is of the order of 1, as in a trained model: with weights that are
all equal, or far too large, softmax would pick one key, and wrong results could not be told from right ones.

With ``-o layer.onnx`` it writes the layer of `encoder_onnx` instead. BERT-large's size is
``--batch 8 --width 1024 --heads 16 --hidden 4096``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
from encoder_onnx import encoder_onnx
from iree.compiler import ir
from iree.compiler.dialects import arith, func, linalg, math, tensor

from pytest_shark_tune.ops.builders import zeros

INPUTS: Sequence[str] = (
    *("x", "norm_scale", "norm_shift", "wqkv", "bqkv", "wo", "bo"),
    *("norm2_scale", "norm2_shift", "wup", "bup", "wdown", "bdown"),
)
"""What ``@main`` takes: ``x`` is batch x tokens x width; a matrix is input x output, the rest are vectors."""
_EPSILON = 1e-5


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a block; ``hidden`` is the width inside the feed-forward part."""

    batch: int
    tokens: int
    width: int
    heads: int
    hidden: int

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of `INPUTS`."""
        width, hidden = self.width, self.hidden
        attention = ((width, 3 * width), (3 * width,), (width, width), (width,))
        forward = ((width, hidden), (hidden,), (hidden, width), (width,))
        norm = ((width,), (width,))
        return ((self.batch, self.tokens, width), *norm, *attention, *norm, *forward)


@click.command()
@click.option("--batch", default=1, show_default=True)
@click.option("--tokens", default=512, show_default=True)
@click.option("--width", default=768, show_default=True)
@click.option("--heads", default=12, show_default=True)
@click.option("--hidden", default=3072, show_default=True, help="Width inside the feed-forward part.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(batch: int, tokens: int, width: int, heads: int, hidden: int, output: Path) -> None:
    """Write an encoder block to a .mlir file, or an encoder layer to an .onnx file."""
    if width % heads:
        raise click.UsageError(f"--width {width} is no multiple of --heads {heads}")
    sizes = Sizes(batch=batch, tokens=tokens, width=width, heads=heads, hidden=hidden)
    if output.suffix == ".onnx":
        output.write_bytes(encoder_onnx(sizes).SerializeToString(deterministic=True))
    else:
        output.write_text(encoder(sizes), encoding="utf-8")


def encoder(sizes: Sizes) -> str:
    """The text of a module with the block as its function ``@main``."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            types = [ir.RankedTensorType.get(shape, ir.F16Type.get()) for shape in sizes.inputs]

            def block(*given: ir.Value) -> ir.Value:
                return _block(sizes, dict(zip(INPUTS, given, strict=True)))

            func.FuncOp.from_py_func(*types, name="main")(block)
        module.operation.verify()
        return str(module)


def _block(sizes: Sizes, given: dict[str, ir.Value]) -> ir.Value:
    rows = [sizes.batch * sizes.tokens, sizes.width]
    x = _collapse(given["x"], [[0, 1], [2]], rows)
    mixed = _attention(sizes, _linear(_norm(x, given["norm_scale"], given["norm_shift"]), given["wqkv"], given["bqkv"]))
    y = _linear(mixed, given["wo"], given["bo"], residual=x)
    up = _linear(_norm(y, given["norm2_scale"], given["norm2_shift"]), given["wup"], given["bup"], then=_gelu)
    z = _linear(up, given["wdown"], given["bdown"], residual=y)
    return _expand(z, [[0, 1], [2]], [sizes.batch, sizes.tokens, sizes.width])


def _linear(
    x: ir.Value,
    weights: ir.Value,
    bias: ir.Value,
    *,
    residual: ir.Value | None = None,
    then: Callable[[ir.Value], ir.Value] = lambda value: value,
) -> ir.Value:
    """``then(x @ weights / sqrt(length) + bias)``, and ``residual`` added to it."""
    length, columns = weights.type.shape
    product = linalg.matmul(x, weights, outs=[zeros(_tensor_type([x.type.shape[0], columns], ir.F32Type.get()))])

    def body(total: ir.Value, shift: ir.Value, *others: ir.Value) -> ir.Value:
        value = then(arith.addf(arith.mulf(total, _constant(length**-0.5)), _wide(shift)))
        for other in others:
            value = arith.addf(value, _wide(other))
        return _narrow(value)

    inputs = [(product, (0, 1)), (bias, (1,)), *([(residual, (0, 1))] if residual is not None else [])]
    return _elementwise(inputs, product.type.shape, ir.F16Type.get(), body)


def _norm(x: ir.Value, scale: ir.Value, shift: ir.Value) -> ir.Value:
    """Each row with mean 0 and variance 1, then scaled and shifted."""
    mean = _row_mean([(x, (0, 1))], x.type.shape, _wide)

    def squared(value: ir.Value, centre: ir.Value) -> ir.Value:
        distance = arith.subf(_wide(value), centre)
        return arith.mulf(distance, distance)

    variance = _row_mean([(x, (0, 1)), (mean, (0,))], x.type.shape, squared)

    def body(value: ir.Value, centre: ir.Value, spread: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
        unit = arith.mulf(arith.subf(_wide(value), centre), math.rsqrt(arith.addf(spread, _constant(_EPSILON))))
        return _narrow(arith.addf(arith.mulf(unit, _wide(factor)), _wide(offset)))

    inputs = [(x, (0, 1)), (mean, (0,)), (variance, (0,)), (scale, (1,)), (shift, (1,))]
    return _elementwise(inputs, x.type.shape, ir.F16Type.get(), body)


def _row_mean(
    inputs: Sequence[tuple[ir.Value, Sequence[int]]], shape: Sequence[int], body: Callable[..., ir.Value]
) -> ir.Value:
    """The mean of ``body`` over the columns, for each row.

    IREE 3.13 cannot compile a reduction for CUDA whose body has a constant in it, so the sum is divided afterwards.
    """
    start = zeros(_tensor_type(shape[:1], ir.F32Type.get()))
    total = _generic(
        inputs, (start, (0,)), ["parallel", "reduction"], lambda *values: arith.addf(values[-1], body(*values[:-1]))
    )
    share = 1 / shape[1]
    return _elementwise([(total, (0,))], shape[:1], ir.F32Type.get(), lambda value: arith.mulf(value, _constant(share)))


def _attention(sizes: Sizes, qkv: ir.Value) -> ir.Value:
    """Scaled dot-product attention over rows that hold queries, keys and values of all heads beside each other."""
    head = sizes.width // sizes.heads
    parts = _expand(qkv, [[0, 1], [2, 3, 4]], [sizes.batch, sizes.tokens, 3, sizes.heads, head])
    # Of batch, tokens, part, heads and head to part, batch, heads, tokens and head.
    shape = [3, sizes.batch, sizes.heads, sizes.tokens, head]
    apart = _elementwise([(parts, (1, 3, 0, 2, 4))], shape, ir.F16Type.get(), lambda value: value)
    joined = [sizes.batch * sizes.heads, sizes.tokens, head]
    query, key, value = (_collapse(_part(apart, number), [[0, 1, 2], [3], [4]], joined) for number in range(3))
    mixed = _attention_op(query, key, value, head**-0.5)
    by_head = _expand(mixed, [[0, 1], [2], [3]], [sizes.batch, sizes.heads, sizes.tokens, head])
    shape = [sizes.batch, sizes.tokens, sizes.heads, head]
    by_token = _elementwise([(by_head, (0, 2, 1, 3))], shape, ir.F16Type.get(), lambda value: value)
    return _collapse(by_token, [[0, 1], [2, 3]], [sizes.batch * sizes.tokens, sizes.width])


def _part(apart: ir.Value, number: int) -> ir.Value:
    """The ``number``-th slice along the first dimension, which stays as one of size 1."""
    sizes = [1, *apart.type.shape[1:]]
    kind = _tensor_type(sizes, apart.type.element_type)
    offsets = [number, *[0] * (len(sizes) - 1)]
    return tensor.extract_slice(kind, apart, [], [], [], offsets, sizes, [1] * len(sizes))


def _attention_op(query: ir.Value, key: ir.Value, value: ir.Value, scale: float) -> ir.Value:
    """``iree_linalg_ext.attention``, whose dialect has no Python bindings, so it is built as an op of that name."""
    batch, row, column, inner, outer = map(ir.AffineDimExpr.get, range(5))
    f16 = ir.F16Type.get()
    factor = arith.ConstantOp(f16, ir.FloatAttr.get(f16, scale)).result
    result = _tensor_type([*query.type.shape[:2], value.type.shape[2]], f16)
    operands = [query, key, value, factor, tensor.EmptyOp(result.shape, f16).result]
    loops = [[batch, row, inner], [batch, outer, inner], [batch, outer, column], [], [batch, row, column]]
    op = ir.Operation.create(
        "iree_linalg_ext.attention",
        results=[result],
        operands=operands,
        attributes={
            "indexing_maps": _maps(5, loops),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([1, 1, 1, 1, 0, 1]),
        },
        regions=1,
    )
    block = op.regions[0].blocks.append(ir.F32Type.get())
    with ir.InsertionPoint(block):
        ir.Operation.create("iree_linalg_ext.yield", operands=[block.arguments[0]])
    return op.results[0]


def _gelu(value: ir.Value) -> ir.Value:
    bell = arith.addf(math.erf(arith.mulf(value, _constant(0.5**0.5))), _constant(1.0))
    return arith.mulf(arith.mulf(value, _constant(0.5)), bell)


def _elementwise(
    inputs: Sequence[tuple[ir.Value, Sequence[int]]],
    shape: Sequence[int],
    element: ir.Type,
    body: Callable[..., ir.Value],
) -> ir.Value:
    """``body`` of the inputs' elements; the loops of each are by its dimension."""
    empty = tensor.EmptyOp(shape, element).result
    loops = range(len(shape))
    return _generic(inputs, (empty, loops), ["parallel"] * len(shape), lambda *values: body(*values[:-1]))


def _generic(
    inputs: Sequence[tuple[ir.Value, Sequence[int]]],
    output: tuple[ir.Value, Sequence[int]],
    iterators: Sequence[str],
    body: Callable[..., ir.Value],
) -> ir.Value:
    """A ``linalg.generic``; ``body`` takes the elements of the inputs and of the output."""
    operands = [*inputs, output]
    loops = [[ir.AffineDimExpr.get(loop) for loop in each] for _, each in operands]
    op = linalg.GenericOp(
        [output[0].type],
        [value for value, _ in inputs],
        [output[0]],
        _maps(len(iterators), loops),
        ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in iterators]),
    )
    block = op.regions[0].blocks.append(*(value.type.element_type for value, _ in operands))
    with ir.InsertionPoint(block):
        linalg.YieldOp([body(*block.arguments)])
    return op.results[0]


def _maps(count: int, loops: Sequence[Sequence[ir.AffineExpr]]) -> ir.ArrayAttr:
    return ir.ArrayAttr.get([ir.AffineMapAttr.get(ir.AffineMap.get(count, 0, list(each))) for each in loops])


def _tensor_type(shape: Sequence[int], element: ir.Type) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(list(shape), element)


def _expand(value: ir.Value, groups: Sequence[Sequence[int]], shape: Sequence[int]) -> ir.Value:
    kind = _tensor_type(shape, value.type.element_type)
    return tensor.expand_shape(kind, value, groups, [], list(shape))


def _collapse(value: ir.Value, groups: Sequence[Sequence[int]], shape: Sequence[int]) -> ir.Value:
    return tensor.collapse_shape(_tensor_type(shape, value.type.element_type), value, groups)


def _constant(number: float) -> ir.Value:
    f32 = ir.F32Type.get()
    return arith.ConstantOp(f32, ir.FloatAttr.get(f32, number)).result


def _wide(value: ir.Value) -> ir.Value:
    return arith.extf(ir.F32Type.get(), value)


def _narrow(value: ir.Value) -> ir.Value:
    return arith.truncf(ir.F16Type.get(), value)


if __name__ == "__main__":
    main()
