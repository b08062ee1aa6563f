"""The sums and roundings of a dispatch are read from its ops, and the reference in f64 follows its maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.types import BenchmarkModule, Numerics, Product, Sum
from pytest_shark_tune.measurement.product import product_of
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source

pytestmark = pytest.mark.compiler

MATMUL = """
func.func @main(%a: tensor<32x128x{taken}>, %b: tensor<128x48x{taken}>) -> tensor<32x48x{stored}> {{
  %zero = arith.constant 0.0 : {kept}
  %e = tensor.empty() : tensor<32x48x{kept}>
  %f = linalg.fill ins(%zero : {kept}) outs(%e : tensor<32x48x{kept}>) -> tensor<32x48x{kept}>
  %0 = linalg.matmul ins(%a, %b : tensor<32x128x{taken}>, tensor<128x48x{taken}>)
      outs(%f : tensor<32x48x{kept}>) -> tensor<32x48x{kept}>
  %n = tensor.empty() : tensor<32x48x{stored}>
  %1 = linalg.generic {{
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  }} ins(%0 : tensor<32x48x{kept}>) outs(%n : tensor<32x48x{stored}>) {{
  ^bb0(%s: {kept}, %old: {stored}):
    {tail}
    linalg.yield %y : {stored}
  }} -> tensor<32x48x{stored}>
  return %1 : tensor<32x48x{stored}>
}}
"""
ROUNDED = "%y = arith.truncf %s : f32 to bf16"
ROUNDED_AND_MORE = """
    %t = arith.truncf %s : f32 to bf16
    %u = math.absf %t : bf16
    %y = math.sqrt %u : bf16
"""
SOFTMAX = """
func.func @main(%a: tensor<16x64xf16>) -> tensor<16x64xf16> {
  %e = tensor.empty() : tensor<16x64xf16>
  %0 = linalg.softmax dimension(1) ins(%a : tensor<16x64xf16>) outs(%e : tensor<16x64xf16>) -> tensor<16x64xf16>
  return %0 : tensor<16x64xf16>
}
"""
NORM = """
func.func @main(%x: tensor<16x64xf32>) -> tensor<16xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<16xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<16xf32>) -> tensor<16xf32>
  %0 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%x : tensor<16x64xf32>) outs(%f : tensor<16xf32>) {
  ^bb0(%v: f32, %partial: f32):
    %square = arith.mulf %v, %v : f32
    %next = arith.addf %partial, %square : f32
    linalg.yield %next : f32
  } -> tensor<16xf32>
  return %0 : tensor<16xf32>
}
"""


def module_of(compiler: Compiler, source: OpSource) -> BenchmarkModule:
    (dispatch,) = extract_dispatches([read_source(source, Path())], compiler, 2).dispatches
    return dispatch.members[0].module


def numerics_of(compiler: Compiler, text: str) -> Numerics:
    found = module_of(compiler, OpSource("main", text)).numerics
    assert found is not None
    return found


def matmul(taken: str, kept: str, stored: str, tail: str) -> str:
    return MATMUL.format(taken=taken, kept=kept, stored=stored, tail=tail)


def test_a_sum_is_kept_in_the_ops_type_whatever_is_stored(compiler: Compiler) -> None:
    found = numerics_of(compiler, matmul("bf16", "f32", "bf16", ROUNDED))
    assert found == Numerics(sums=(Sum("f32", 128),), widest="f32", exact=True, products=True)


def test_roundings_before_more_is_computed_count(compiler: Compiler) -> None:
    found = numerics_of(compiler, matmul("bf16", "f32", "bf16", ROUNDED_AND_MORE))
    assert (found.sums, found.widest, found.spread) == ((Sum("f32", 128),), "f32", ())
    # To bf16, and the absolute value of that; the root is rounded as it is stored.
    assert found.rounded == ("bf16", "bf16")


def test_sums_may_be_kept_in_a_coarse_type(compiler: Compiler) -> None:
    found = numerics_of(compiler, matmul("f16", "f16", "f16", "%y = arith.negf %s : f16"))
    assert (found.sums, found.rounded, found.exact) == ((Sum("f16", 128),), (), True)


def test_a_softmax_sums_exponentials(compiler: Compiler) -> None:
    found = numerics_of(compiler, SOFTMAX)
    assert (found.sums, found.exact, found.switched, found.products) == ((Sum("f16", 64),), False, True, False)
    assert set(found.rounded) == {"f16"}


def test_an_attention_rounds_its_weights_between_two_sums(compiler: Compiler) -> None:
    source = ops.attention(batch=2, queries=32, keys=64, head=32)
    found = module_of(compiler, source).numerics
    assert found is not None
    assert {kept.element for kept in found.sums} == {"f32"}
    assert max(kept.length for kept in found.sums) == 64
    assert (found.spread, found.exact, found.switched) == (("f16",), False, False)


def test_squares_have_one_sign(compiler: Compiler) -> None:
    found = numerics_of(compiler, NORM)
    assert (found.sums, found.exact, found.products) == ((Sum("f32", 64),), True, False)


def test_inputs_of_a_product_are_scaled_to_sums_of_one(compiler: Compiler) -> None:
    module = module_of(compiler, OpSource("main", matmul("bf16", "f32", "bf16", ROUNDED)))
    lhs, rhs, out = module.views
    assert lhs.scale == rhs.scale == pytest.approx((3 / 128**0.5) ** 0.5)
    assert out.scale == 1
    rng = np.random.default_rng(0)
    values = [rng.uniform(-view.scale, view.scale, view.shape) for view in (lhs, rhs)]
    assert (values[0] @ values[1]).std() == pytest.approx(1, rel=0.1)


def reference(product: Product, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    lhs, rhs = (rng.normal(size=shape) for shape in product.shapes[:2])
    return lhs, rhs, product_of(product, lhs, rhs)


def test_a_product_is_followed_by_its_maps(compiler: Compiler) -> None:
    product = module_of(compiler, OpSource("main", matmul("bf16", "f32", "bf16", ROUNDED))).product
    assert product is not None
    assert product.views == (0, 1, 2)
    lhs, rhs, found = reference(product, 0)
    np.testing.assert_allclose(found, lhs @ rhs)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_followed_by_its_maps(compiler: Compiler, stride: int) -> None:
    source = ops.conv_2d(
        batch=2, height=6, width=5, channels=3, filters=4, kernel_height=3, kernel_width=2, lhs="f32", stride=stride
    )
    product = module_of(compiler, source).product
    assert product is not None
    image, filters, found = reference(product, 1)
    _, height, width, _ = found.shape
    expected = np.zeros(found.shape)
    for y in range(height):
        for x in range(width):
            window = image[:, y * stride : y * stride + 3, x * stride : x * stride + 2, :]
            expected[:, y, x, :] = np.einsum("bpqc,pqcf->bf", window, filters)
    np.testing.assert_allclose(found, expected)


def test_what_follows_on_a_product_leaves_no_reference(compiler: Compiler) -> None:
    for tail in (ROUNDED_AND_MORE, "%t = math.absf %s : f32\n    %y = arith.truncf %t : f32 to bf16"):
        module = module_of(compiler, OpSource("main", matmul("bf16", "f32", "bf16", tail)))
        assert module.product is None


def test_a_product_of_too_many_terms_has_no_reference() -> None:
    indices = (((0, 1),), ((2, 1),)), (((2, 1),), ((1, 1),)), (((0, 1),), ((1, 1),))
    many = Product(views=(0, 1, 2), shapes=((1, 1), (1, 1), (1, 1)), loops=(1 << 16, 1 << 10, 1 << 10), indices=indices)
    assert product_of(many, np.zeros((1, 1)), np.zeros((1, 1))) is None


COMPLEX = """
func.func @main(%a: tensor<16x64xcomplex<f32>>, %b: tensor<64x16xcomplex<f32>>) -> tensor<16x16xcomplex<f32>> {
  %z = complex.constant [0.0 : f32, 0.0 : f32] : complex<f32>
  %e = tensor.empty() : tensor<16x16xcomplex<f32>>
  %f = linalg.fill ins(%z : complex<f32>) outs(%e : tensor<16x16xcomplex<f32>>) -> tensor<16x16xcomplex<f32>>
  %0 = linalg.matmul ins(%a, %b : tensor<16x64xcomplex<f32>>, tensor<64x16xcomplex<f32>>)
      outs(%f : tensor<16x16xcomplex<f32>>) -> tensor<16x16xcomplex<f32>>
  return %0 : tensor<16x16xcomplex<f32>>
}
"""
GATHERED_ATTENTION = """
func.func @main(%q: tensor<2x64x32xbf16>, %c: tensor<16x32x128xbf16>, %i: tensor<2xi32>, %v: tensor<2x16x128xbf16>)
    -> tensor<2x64x16xbf16> {
  %scale = arith.constant 0.5 : bf16
  %ke = tensor.empty() : tensor<2x32x128xbf16>
  %k = iree_linalg_ext.gather dimension_map = [0] ins(%c, %i : tensor<16x32x128xbf16>, tensor<2xi32>)
      outs(%ke : tensor<2x32x128xbf16>) -> tensor<2x32x128xbf16>
  %e = tensor.empty() : tensor<2x64x16xbf16>
  %0 = iree_linalg_ext.attention <{indexing_maps = [
      affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, k, s)>,
      affine_map<(b, m, n, k, s) -> (b, n, s)>, affine_map<(b, m, n, k, s) -> ()>,
      affine_map<(b, m, n, k, s) -> (b, m, n)>]}>
      ins(%q, %k, %v, %scale : tensor<2x64x32xbf16>, tensor<2x32x128xbf16>, tensor<2x16x128xbf16>, bf16)
      outs(%e : tensor<2x64x16xbf16>) {
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  } -> tensor<2x64x16xbf16>
  return %0 : tensor<2x64x16xbf16>
}
"""


def test_a_gather_sums_nothing_and_an_attention_is_read_by_its_maps(compiler: Compiler) -> None:
    found = numerics_of(compiler, GATHERED_ATTENTION)
    assert found.sums == (Sum("f32", 32), Sum("f32", 128), Sum("f32", 128))


def test_sums_of_complex_numbers_round(compiler: Compiler) -> None:
    found = numerics_of(compiler, COMPLEX)
    assert (found.sums, found.widest) == ((Sum("complex<f32>", 64),), "f32")
