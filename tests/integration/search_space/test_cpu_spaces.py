"""Sampled configs of every CPU space but the contractions': applied, compiled, run, and their results compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.measurement.acceptance import acceptance_for
from pytest_shark_tune.search_space import spaces_for
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.spec.build import single_entry_spec
from tests.models import depthwise

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

CONVOLUTION = ops.conv_2d(
    batch=1, height=9, width=14, channels=12, filters=27, kernel_height=3, kernel_width=3, lhs="f16"
)
SOURCES = {
    "convolution": (CONVOLUTION.text, "ConvTileAndDecomposeExpert"),
    "depthwise": (DEPTHWISE, "ConvTileAndDecomposeExpert"),
    "grouped": (GROUPED, "DoubleTilingExpert"),
    "channels_first": (depthwise(12, 8, 30, 5, row_stride=2), "RegisterTiling"),
    "attention": (ops.attention(batch=2, queries=37, keys=50, head=32).text, "LinalgExtTileAndVectorize"),
    "softmax": (SOFTMAX, "DoubleTilingExpert"),
    "transposed_sum": (TRANSPOSED_SUM, "DoubleTilingExpert"),
}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"))


@pytest.mark.parametrize(("source", "pipeline"), SOURCES.values(), ids=SOURCES)
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
