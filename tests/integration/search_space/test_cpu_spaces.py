"""Sampled configs of every CPU space but the contractions': applied, compiled, run, and their results compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.reasons import SeveralReductions
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.measurement.acceptance import acceptance_for
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import spaces_for
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.spec.build import single_entry_spec
from tests.models import depthwise
from tests.thinned import thinned

DEPTHWISE = """
func.func @main(%a: tensor<1x18x18x32xf32>, %b: tensor<3x3x32xf32>) -> tensor<1x16x16x32xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<1x16x16x32xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x16x16x32xf32>) -> tensor<1x16x16x32xf32>
  %result = linalg.depthwise_conv_2d_nhwc_hwc {strides = dense<1> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}
    ins(%a, %b : tensor<1x18x18x32xf32>, tensor<3x3x32xf32>) outs(%init : tensor<1x16x16x32xf32>)
    -> tensor<1x16x16x32xf32>
  return %result : tensor<1x16x16x32xf32>
}
"""

GROUPED = """
func.func @main(%a: tensor<1x10x10x2x8xf32>, %b: tensor<2x16x3x3x8xf32>) -> tensor<1x8x8x2x16xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<1x8x8x2x16xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x8x8x2x16xf32>) -> tensor<1x8x8x2x16xf32>
  %result = linalg.conv_2d_nhwgc_gfhwc {strides = dense<1> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}
    ins(%a, %b : tensor<1x10x10x2x8xf32>, tensor<2x16x3x3x8xf32>) outs(%init : tensor<1x8x8x2x16xf32>)
    -> tensor<1x8x8x2x16xf32>
  return %result : tensor<1x8x8x2x16xf32>
}
"""

SOFTMAX = """
func.func @main(%a: tensor<61x197xf32>) -> tensor<61x197xf32> {
  %empty = tensor.empty() : tensor<61x197xf32>
  %result = linalg.softmax dimension(1) ins(%a : tensor<61x197xf32>) outs(%empty : tensor<61x197xf32>)
    -> tensor<61x197xf32>
  return %result : tensor<61x197xf32>
}
"""

TRANSPOSED_SUM = """
func.func @main(%a: tensor<96x61xf32>, %b: tensor<61x96xf32>) -> tensor<61x96xf32> {
  %empty = tensor.empty() : tensor<61x96xf32>
  %result = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (j, i)>, affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%a, %b : tensor<96x61xf32>, tensor<61x96xf32>) outs(%empty : tensor<61x96xf32>) {
  ^bb0(%x: f32, %y: f32, %out: f32):
    %sum = arith.addf %x, %y : f32
    linalg.yield %sum : f32
  } -> tensor<61x96xf32>
  return %result : tensor<61x96xf32>
}
"""

MASKED = """
#q = affine_map<(b, m, n, k1, k2) -> (b, m, k1)>
#k = affine_map<(b, m, n, k1, k2) -> (b, k2, k1)>
#v = affine_map<(b, m, n, k1, k2) -> (b, k2, n)>
#s = affine_map<(b, m, n, k1, k2) -> ()>
#ma = affine_map<(b, m, n, k1, k2) -> (b, m, k2)>
#o = affine_map<(b, m, n, k1, k2) -> (b, m, n)>
func.func @main(%q: tensor<2x37x32xf32>, %k: tensor<2x50x32xf32>, %v: tensor<2x50x32xf32>,
                %mask: tensor<2x37x50xi1>) -> tensor<2x37x32xf32> {
  %scale = arith.constant 0.125 : f32
  %e = tensor.empty() : tensor<2x37x32xf32>
  %r = iree_linalg_ext.attention <{indexing_maps = [#q, #k, #v, #s, #ma, #o]}>
      ins(%q, %k, %v, %scale, %mask
          : tensor<2x37x32xf32>, tensor<2x50x32xf32>, tensor<2x50x32xf32>, f32, tensor<2x37x50xi1>)
      outs(%e : tensor<2x37x32xf32>) {
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  } -> tensor<2x37x32xf32>
  return %r : tensor<2x37x32xf32>
}
"""

PACKED = """
func.func @main(%a: tensor<6x7x8x2xi8>, %b: tensor<10x7x16x2xi8>) -> tensor<6x10x8x16xi32> {
  %zero = arith.constant 0 : i32
  %empty = tensor.empty() : tensor<6x10x8x16xi32>
  %init = linalg.fill ins(%zero : i32) outs(%empty : tensor<6x10x8x16xi32>) -> tensor<6x10x8x16xi32>
  %result = linalg.mmt4d ins(%a, %b : tensor<6x7x8x2xi8>, tensor<10x7x16x2xi8>)
    outs(%init : tensor<6x10x8x16xi32>) -> tensor<6x10x8x16xi32>
  return %result : tensor<6x10x8x16xi32>
}
"""

LONG = """
func.func @main(%a: tensor<4194305xf32>) -> tensor<4194305xf32> {
  %empty = tensor.empty() : tensor<4194305xf32>
  %result = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]
  } ins(%a : tensor<4194305xf32>) outs(%empty : tensor<4194305xf32>) {
  ^bb0(%x: f32, %out: f32):
    %y = arith.mulf %x, %x : f32
    linalg.yield %y : f32
  } -> tensor<4194305xf32>
  return %result : tensor<4194305xf32>
}
"""

CONVOLUTION = ops.conv_2d(
    batch=1, height=9, width=14, channels=12, filters=27, kernel_height=3, kernel_width=3, lhs="f16"
)
# No vector length divides a row of 38, so its loop is peeled, and that of the op after it as well.
UNEVEN = depthwise(12, 8, 38, 5).replace(
    "  return %result",
    """  %clamped = linalg.generic {
    indexing_maps = [affine_map<(n, c, h, w) -> (n, c, h, w)>, affine_map<(n, c, h, w) -> (n, c, h, w)>],
    iterator_types = ["parallel", "parallel", "parallel", "parallel"]
  } ins(%result : tensor<1x12x8x38xf32>) outs(%empty : tensor<1x12x8x38xf32>) {
  ^bb0(%x: f32, %out: f32):
    %y = arith.maximumf %x, %zero : f32
    linalg.yield %y : f32
  } -> tensor<1x12x8x38xf32>
  return %clamped""",
)
SOURCES = {
    "uneven_rows": (UNEVEN, "PeeledRegisterTiling"),
    "convolution": (CONVOLUTION.text, "ConvTileAndDecomposeExpert"),
    "depthwise": (DEPTHWISE, "ConvTileAndDecomposeExpert"),
    "grouped": (GROUPED, "DoubleTilingExpert"),
    "channels_first": (depthwise(12, 8, 30, 5, row_stride=2), "RegisterTiling"),
    "attention": (ops.attention(batch=2, queries=37, keys=50, head=32).text, "LinalgExtTileAndVectorize"),
    "masked": (MASKED, "LinalgExtTileAndVectorize"),
    "packed": (PACKED, "Mmt4dTilingExpert"),
    "long": (LONG, "DoubleTilingExpert"),
    "softmax": (SOFTMAX, "DoubleTilingExpert"),
    "transposed_sum": (TRANSPOSED_SUM, "DoubleTilingExpert"),
}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"))


@pytest.mark.parametrize(("source", "pipeline"), thinned(SOURCES.values(), every=5, ids=SOURCES))
def test_sampled_configs_compile_and_compute_what_the_default_does(
    source: str, pipeline: str, compiler: Compiler, tmp_path: Path
) -> None:
    dispatch = read_benchmark(compiler.dump_benchmarks(source, "source")[-1], "source", processors=2)
    assert isinstance(dispatch, FoundDispatch)
    (space,) = spaces_for(dispatch.root, dispatch.target)
    assert space.pipeline == pipeline
    assert dispatch.default_pipeline in (pipeline, "DoubleTilingExpert")
    default = tmp_path / "default.vmfb"
    compiler.compile_sources(dispatch.module.text, default)
    assert dispatch.module.numerics is not None
    acceptance = acceptance_for(dispatch.module.numerics, elements=1)
    with DeviceChild("local-sync") as child:
        child.load_benchmark("default", default, dispatch.module)
        child.store_reference("default", "reference", 0)
        for candidate in make_candidates("dispatch", dispatch.root, space, space.sample(2, 0)):
            spec = single_entry_spec(dispatch.root, candidate.compilation_info)
            configured = configure_with(dispatch.module.text, spec)
            assert why_not_applied(configured, candidate.compilation_info) is None
            out = tmp_path / f"{candidate.id}.vmfb"
            compiler.compile_sources(configured.text, out)
            child.load_benchmark("candidate", out, dispatch.module)
            assert child.check("candidate", "reference", acceptance).ok, candidate.config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("product", "count"),
    thinned([(ops.matmul(m=90, n=70, k=65), 3), (ops.matmul(m=256, n=256, k=512, lhs="bf16"), 12)], every=2),
)
def test_packed_products_with_their_unpacking_compile(product: ops.OpSource, count: int, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse("llvm-cpu"), ["--iree-opt-data-tiling"])
    read = [read_benchmark(text, "s", processors=2) for text in compiler.dump_benchmarks(product.text, "source")]
    (dispatch,) = [each for each in read if isinstance(each, FoundDispatch) and each.root.op == "linalg.mmt4d"]
    assert "linalg.unpack" in dispatch.module.text
    (space,) = spaces_for(dispatch.root, dispatch.target)
    for candidate in make_candidates("dispatch", dispatch.root, space, space.sample(count, 0)):
        spec = single_entry_spec(dispatch.root, candidate.compilation_info)
        configured = configure_with(dispatch.module.text, spec)
        assert why_not_applied(configured, candidate.compilation_info) is None
        compiler.compile_sources(configured.text, tmp_path / "out.vmfb")


@pytest.mark.parametrize(("op", "is_tuned"), [(ops.softmax, False), (ops.reduce, True)])
def test_rows_that_overflow_the_stack_are_tuned_only_where_no_other_op_reads_them(
    op: Callable[..., ops.OpSource], is_tuned: bool, compiler: Compiler
) -> None:
    source = read_source(op(rows=4, columns=6625), Path())
    found = extract_dispatches([source], compiler, 1)
    (dispatch,) = found.dispatches
    if is_tuned:
        assert search_spaces(dispatch, compiler)
    else:
        with pytest.raises(SeveralReductions, match="goes over rows of 6625 elements, too long for one vector"):
            search_spaces(dispatch, compiler)
