"""Small models, and suites that tune ops, as text."""

from __future__ import annotations

from itertools import pairwise


def matmuls(function: str, rows: int, *widths: int) -> str:
    """A function of f32 matmuls, of which each but the first takes the result of the one before.

    ``matmuls("main", 64, 128, 96, 32)`` takes matrices of 64x128, 128x96 and 96x32 elements.
    """
    shapes = [(rows, widths[0]), *pairwise(widths)]
    types = [f"tensor<{height}x{width}xf32>" for height, width in shapes]
    results = [f"tensor<{rows}x{width}xf32>" for width in widths]
    arguments = ", ".join(f"%a{number}: {kind}" for number, kind in enumerate(types))
    body, last = "", "%a0"
    for number in range(1, len(types)):
        taken, given = results[number - 1], results[number]
        body += f"""
  %e{number} = tensor.empty() : {given}
  %f{number} = linalg.fill ins(%zero : f32) outs(%e{number} : {given}) -> {given}
  %{number} = linalg.matmul ins({last}, %a{number} : {taken}, {types[number]}) outs(%f{number} : {given}) -> {given}"""
        last = f"%{number}"
    return f"""
func.func @{function}({arguments}) -> {results[-1]} {{
  %zero = arith.constant 0.0 : f32{body}
  return {last} : {results[-1]}
}}
"""


def suite_text(sources: str) -> str:
    """A test file with one test of these sources, as the marker takes them."""
    return f"""
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune({sources})
def test_dispatch(candidate, artifact, measurement):
    pass
"""


KERNEL_FIXTURES = """
import pytest


@pytest.fixture
def artifact(tune_kernel):
    return tune_kernel.build(compile_kernel)


@pytest.fixture
def measurement(tune_kernel, artifact):
    return tune_kernel.compare(artifact, load_kernel)
"""
"""The beginning of a suite's conftest.py that goes on with ``compile_kernel`` and ``load_kernel``."""


def kernel_suite_text(tiles: tuple[int, ...]) -> str:
    """A test file with one test of a custom task, whose knob ``tile`` has these values; that of 1 is the default."""
    return f"""
import pytest
from pytest_shark_tune import CustomTask, SearchSpace

SPACE = SearchSpace.of("Fake", {{"tile": {tiles}}})

@pytest.mark.tune(CustomTask(name="kernel", space=SPACE, default={{"tile": 1}}))
def test_kernel(candidate, artifact, measurement):
    pass
"""


TOTAL = """
func.func @f(%a: tensor<64xf32>) -> tensor<f32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<f32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<f32>) -> tensor<f32>
  %0 = linalg.reduce { arith.addf } ins(%a : tensor<64xf32>) outs(%init : tensor<f32>) dimensions = [0]
  return %0 : tensor<f32>
}
"""
"""A sum of all elements, which leaves no loop to tile."""


def depthwise(channels: int, height: int, width: int, window: int, *, row_stride: int = 1) -> str:
    """A depthwise convolution with channels first; ``height`` and ``width`` are those of its result."""
    image = f"tensor<1x{channels}x{(height - 1) * row_stride + window}x{width + window - 1}xf32>"
    filters, result = f"tensor<{channels}x{window}x{window}xf32>", f"tensor<1x{channels}x{height}x{width}xf32>"
    return f"""
func.func @main(%a: {image}, %b: {filters}) -> {result} {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {result}
  %init = linalg.fill ins(%zero : f32) outs(%empty : {result}) -> {result}
  %result = linalg.depthwise_conv_2d_nchw_chw
    {{strides = dense<[{row_stride}, 1]> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}}
    ins(%a, %b : {image}, {filters}) outs(%init : {result}) -> {result}
  return %result : {result}
}}
"""


BATCH = """
func.func @batch(%a: tensor<3x32x64xf32>, %b: tensor<3x64x48xf32>) -> tensor<3x32x48xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<3x32x48xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<3x32x48xf32>) -> tensor<3x32x48xf32>
  %0 = linalg.batch_matmul ins(%a, %b : tensor<3x32x64xf32>, tensor<3x64x48xf32>)
      outs(%f : tensor<3x32x48xf32>) -> tensor<3x32x48xf32>
  return %0 : tensor<3x32x48xf32>
}
"""
# Each function becomes one dispatch, named after it: FUNCTION_dispatch_0.
MODEL = (
    """
#rows = affine_map<(m, n, k) -> (m, k)>
#columns = affine_map<(m, n, k) -> (k, n)>
#transposed = affine_map<(m, n, k) -> (n, k)>
#result = affine_map<(m, n, k) -> (m, n)>
#image = affine_map<(c, h, w, i) -> (i, h, w)>
#weight = affine_map<(c, h, w, i) -> (c, i)>
#sum = affine_map<(c, h, w, i) -> (c, h, w)>
#whole = affine_map<(c, h, w) -> (c, h, w)>
#channel = affine_map<(c, h, w) -> (c)>

"""
    + matmuls("plain", 64, 128, 96)
    + """
func.func @transposed(%a: tensor<64x128xf32>, %b: tensor<96x128xf32>) -> tensor<64x96xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x96xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<64x96xf32>) -> tensor<64x96xf32>
  %0 = linalg.matmul indexing_maps = [#rows, #transposed, #result]
      ins(%a, %b : tensor<64x128xf32>, tensor<96x128xf32>) outs(%f : tensor<64x96xf32>) -> tensor<64x96xf32>
  return %0 : tensor<64x96xf32>
}
"""
    + BATCH
    + """
func.func @narrow(%a: tensor<64x128xi8>, %b: tensor<128x96xi8>) -> tensor<64x96xi32> {
  %zero = arith.constant 0 : i32
  %e = tensor.empty() : tensor<64x96xi32>
  %f = linalg.fill ins(%zero : i32) outs(%e : tensor<64x96xi32>) -> tensor<64x96xi32>
  %0 = linalg.matmul ins(%a, %b : tensor<64x128xi8>, tensor<128x96xi8>)
      outs(%f : tensor<64x96xi32>) -> tensor<64x96xi32>
  return %0 : tensor<64x96xi32>
}
func.func @fused(%x: tensor<16x4x20xf32>, %w: tensor<24x16xf32>, %bias: tensor<24xf32>) -> tensor<24x8x24xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<24x4x20xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<24x4x20xf32>) -> tensor<24x4x20xf32>
  %0 = linalg.generic {
    indexing_maps = [#image, #weight, #sum],
    iterator_types = ["parallel", "parallel", "parallel", "reduction"]
  } ins(%x, %w : tensor<16x4x20xf32>, tensor<24x16xf32>) outs(%f : tensor<24x4x20xf32>) {
  ^bb0(%l: f32, %r: f32, %partial: f32):
    %product = arith.mulf %l, %r : f32
    %next = arith.addf %partial, %product : f32
    linalg.yield %next : f32
  } -> tensor<24x4x20xf32>
  %1 = linalg.generic {
    indexing_maps = [#whole, #channel, #whole], iterator_types = ["parallel", "parallel", "parallel"]
  } ins(%0, %bias : tensor<24x4x20xf32>, tensor<24xf32>) outs(%e : tensor<24x4x20xf32>) {
  ^bb0(%l: f32, %r: f32, %unused: f32):
    %s = arith.addf %l, %r : f32
    %positive = arith.maximumf %s, %zero : f32
    linalg.yield %positive : f32
  } -> tensor<24x4x20xf32>
  %2 = tensor.pad %1 low[0, 2, 2] high[0, 2, 2] {
  ^bb0(%c: index, %h: index, %v: index):
    tensor.yield %zero : f32
  } : tensor<24x4x20xf32> to tensor<24x8x24xf32>
  return %2 : tensor<24x8x24xf32>
}
func.func @reduction(%x: tensor<40x56xf32>) -> tensor<40xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<40xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<40xf32>) -> tensor<40xf32>
  %0 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%x : tensor<40x56xf32>) outs(%f : tensor<40xf32>) {
  ^bb0(%v: f32, %partial: f32):
    %square = arith.mulf %v, %v : f32
    %next = arith.addf %partial, %square : f32
    linalg.yield %next : f32
  } -> tensor<40xf32>
  return %0 : tensor<40xf32>
}
func.func @dynamic(%a: tensor<?x128xf32>, %b: tensor<128x96xf32>) -> tensor<?x96xf32> {
  %zero = arith.constant 0.0 : f32
  %first = arith.constant 0 : index
  %rows = tensor.dim %a, %first : tensor<?x128xf32>
  %e = tensor.empty(%rows) : tensor<?x96xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x96xf32>) -> tensor<?x96xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<?x128xf32>, tensor<128x96xf32>)
      outs(%f : tensor<?x96xf32>) -> tensor<?x96xf32>
  return %0 : tensor<?x96xf32>
}
func.func @chain(%a: tensor<32x32xf32>, %w: tensor<32x32xf32>) -> tensor<32x32xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<32x32xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<32x32xf32>) -> tensor<32x32xf32>
  %0 = linalg.matmul ins(%a, %w : tensor<32x32xf32>, tensor<32x32xf32>)
      outs(%f : tensor<32x32xf32>) -> tensor<32x32xf32>
  %1 = linalg.matmul ins(%0, %w : tensor<32x32xf32>, tensor<32x32xf32>)
      outs(%f : tensor<32x32xf32>) -> tensor<32x32xf32>
  %2 = linalg.matmul ins(%1, %w : tensor<32x32xf32>, tensor<32x32xf32>)
      outs(%f : tensor<32x32xf32>) -> tensor<32x32xf32>
  return %2 : tensor<32x32xf32>
}
"""
)


CONVOLUTIONS = """
func.func @main(%image: tensor<1x8x18x34xf32>, %filter: tensor<16x8x3x3xf32>, %depthwise: tensor<16x3x3xf32>)
    -> tensor<1x16x14x30xf32> {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<1x16x16x32xf32>
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<1x16x16x32xf32>) -> tensor<1x16x16x32xf32>
  %dense = linalg.conv_2d_nchw_fchw {strides = dense<1> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}
    ins(%image, %filter : tensor<1x8x18x34xf32>, tensor<16x8x3x3xf32>)
    outs(%f0 : tensor<1x16x16x32xf32>) -> tensor<1x16x16x32xf32>
  %e1 = tensor.empty() : tensor<1x16x14x30xf32>
  %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<1x16x14x30xf32>) -> tensor<1x16x14x30xf32>
  %out = linalg.depthwise_conv_2d_nchw_chw {strides = dense<1> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}
    ins(%dense, %depthwise : tensor<1x16x16x32xf32>, tensor<16x3x3xf32>)
    outs(%f1 : tensor<1x16x14x30xf32>) -> tensor<1x16x14x30xf32>
  return %out : tensor<1x16x14x30xf32>
}
"""
"""A dense and a depthwise convolution with channels first: a model whose forms differ."""
