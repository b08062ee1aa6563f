"""Models with scalars that are known only at run time: factors, offsets and zero points."""

from __future__ import annotations

PRODUCT = """
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x128xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<64x128xf32>) -> tensor<64x128xf32>
"""
SCALED = """
#id = affine_map<(i, j) -> (i, j)>
func.func @main(%a: tensor<64x96xf32>, %b: tensor<96x128xf32>, %c: tensor<64x128xf32>,
                %alpha: TYPE, %beta: TYPE) -> tensor<64x128xf32> {
  PRODUCT
  %r = linalg.matmul ins(%a, %b : tensor<64x96xf32>, tensor<96x128xf32>)
                     outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
  %s = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%r, %c : tensor<64x128xf32>, tensor<64x128xf32>) outs(%e : tensor<64x128xf32>) {
  ^bb0(%x: f32, %y: f32, %o: f32):
    WIDEN
    %m = arith.mulf %x, %p : f32
    %n = arith.mulf %y, %q : f32
    %t = arith.addf %m, %n : f32
    linalg.yield %t : f32
  } -> tensor<64x128xf32>
  return %s : tensor<64x128xf32>
}
"""
WIDENINGS = {
    "f32": "%zero = arith.constant 0.0 : f32\n%p = arith.addf %alpha, %zero : f32\n%q = arith.addf %beta, %zero : f32",
    "f16": "%p = arith.extf %alpha : f16 to f32\n%q = arith.extf %beta : f16 to f32",
    "bf16": "%p = arith.extf %alpha : bf16 to f32\n%q = arith.extf %beta : bf16 to f32",
    "f64": "%p = arith.truncf %alpha : f64 to f32\n%q = arith.truncf %beta : f64 to f32",
    "i64": "%p = arith.sitofp %alpha : i64 to f32\n%q = arith.sitofp %beta : i64 to f32",
    "i8": "%p = arith.sitofp %alpha : i8 to f32\n%q = arith.sitofp %beta : i8 to f32",
}

ROWS = """
func.func @main(%rows: tensor<512x96xf32>, %b: tensor<96x128xf32>, %o: tensor<512x128xf32>) -> tensor<512x128xf32> {
  %first = arith.constant 64 : index
  %step = arith.constant 64 : index
  %last = arith.constant 512 : index
  PRODUCT
  %r = scf.for %i = %first to %last step %step iter_args(%acc = %o) -> tensor<512x128xf32> {
    %a = tensor.extract_slice %rows[%i, 0] [64, 96] [1, 1] : tensor<512x96xf32> to tensor<64x96xf32>
    %p = linalg.matmul ins(%a, %b : tensor<64x96xf32>, tensor<96x128xf32>)
                       outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
    %w = tensor.insert_slice %p into %acc[%i, 0] [64, 128] [1, 1] : tensor<64x128xf32> into tensor<512x128xf32>
    scf.yield %w : tensor<512x128xf32>
  }
  return %r : tensor<512x128xf32>
}
""".replace("PRODUCT", PRODUCT)

STACK = """
func.func @main(%stack: tensor<SIZEx64x96xf32>, %b: tensor<96x128xf32>, %n: i32) -> tensor<64x128xf32> {
  PRODUCT
  %i = arith.index_cast %n : i32 to index
  %a = tensor.extract_slice %stack[%i, 0, 0] [1, 64, 96] [1, 1, 1] : tensor<SIZEx64x96xf32> to tensor<64x96xf32>
  %p = linalg.matmul ins(%a, %b : tensor<64x96xf32>, tensor<96x128xf32>)
                     outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
  return %p : tensor<64x128xf32>
}
""".replace("PRODUCT", PRODUCT)

ZERO_POINTS = """
func.func @main(%a: tensor<64x96xi8>, %b: tensor<96x128xi8>, %za: i8, %zb: i8) -> tensor<64x128xi32> {
  %zero = arith.constant 0 : i32
  %wa = arith.extsi %za : i8 to i32
  %wb = arith.extsi %zb : i8 to i32
  %e = tensor.empty() : tensor<64x128xi32>
  %f = linalg.fill ins(%zero : i32) outs(%e : tensor<64x128xi32>) -> tensor<64x128xi32>
  %r = linalg.quantized_matmul ins(%a, %b, %wa, %wb : tensor<64x96xi8>, tensor<96x128xi8>, i32, i32)
                               outs(%f : tensor<64x128xi32>) -> tensor<64x128xi32>
  return %r : tensor<64x128xi32>
}
"""


INDEXED = """
func.func @main(%stack: tensor<8x64x96xf32>, %b: tensor<96x128xf32>, %which: tensor<4xi32>)
    -> tensor<64x128xf32> {
  %c2 = arith.constant 2 : index
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x128xf32>
  %f = linalg.fill
      ins(%z : f32)
      outs(%e : tensor<64x128xf32>) -> tensor<64x128xf32>
  %n = tensor.extract %which[%c2] : tensor<4xi32>
  %i = arith.index_cast %n : i32 to index
  %a = tensor.extract_slice %stack[%i, 0, 0] [1, 64, 96] [1, 1, 1] : tensor<8x64x96xf32>
      to tensor<64x96xf32>
  %p = linalg.matmul
      ins(%a, %b : tensor<64x96xf32>, tensor<96x128xf32>)
      outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
  return %p : tensor<64x128xf32>
}
"""
"""An index that is read from a tensor."""

COUNTED = """
func.func @main(%w: tensor<128x128xf32>, %x: tensor<64x128xf32>, %n: i32)
    -> tensor<64x128xf32> {
  %c0 = arith.constant 0 : i32
  %c1 = arith.constant 1 : i32
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x128xf32>
  %f = linalg.fill
      ins(%z : f32)
      outs(%e : tensor<64x128xf32>) -> tensor<64x128xf32>
  %r:2 = scf.while (%i = %c0, %y = %x)
      : (i32, tensor<64x128xf32>) -> (i32, tensor<64x128xf32>) {
    %go = arith.cmpi slt, %i, %n : i32
    scf.condition(%go) %i, %y : i32, tensor<64x128xf32>
  } do {
  ^bb0(%i: i32, %y: tensor<64x128xf32>):
    %p = linalg.matmul
      ins(%y, %w : tensor<64x128xf32>, tensor<128x128xf32>)
      outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
    %s = arith.sitofp %i : i32 to f32
    %q = linalg.generic {indexing_maps = [affine_map<(d0,d1)->(d0,d1)>,affine_map<(d0,d1)->(d0,d1)>]
      , iterator_types=["parallel","parallel"]}
      ins(%p : tensor<64x128xf32>)
      outs(%e : tensor<64x128xf32>) {
    ^bb0(%u: f32, %o: f32):
      %v = arith.mulf %u, %s : f32
      linalg.yield %v : f32
    } -> tensor<64x128xf32>
    %j = arith.addi %i, %c1 : i32
    scf.yield %j, %q : i32, tensor<64x128xf32>
  }
  return %r#1 : tensor<64x128xf32>
}
"""
"""The counter of a loop that ends by a condition."""

SWITCHED = """
func.func @main(%a: tensor<64x96xf32>, %b: tensor<96x128xf32>, %relu: i1, %t: f64, %pos: index)
    -> tensor<64x128xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x128xf32>
  %f = linalg.fill
      ins(%z : f32)
      outs(%e : tensor<64x128xf32>) -> tensor<64x128xf32>
  %p = linalg.matmul
      ins(%a, %b : tensor<64x96xf32>, tensor<96x128xf32>)
      outs(%f : tensor<64x128xf32>) -> tensor<64x128xf32>
  %tf = arith.truncf %t : f64 to f32
  %q = linalg.generic {indexing_maps = [affine_map<(d0,d1)->(d0,d1)>,affine_map<(d0,d1)->(d0,d1)>]
      , iterator_types=["parallel","parallel"]}
      ins(%p : tensor<64x128xf32>)
      outs(%e : tensor<64x128xf32>) {
    ^bb0(%u: f32, %o: f32):
      %i = linalg.index 0 : index
      %k = arith.cmpi slt, %i, %pos : index
      %m = arith.maximumf %u, %tf : f32
      %v = arith.select %relu, %m, %u : f32
      %w = arith.select %k, %v, %z : f32
      linalg.yield %w : f32
    } -> tensor<64x128xf32>
  return %q : tensor<64x128xf32>
}
"""
"""A truth value, an f64 and an index."""

QUANTIZED = """
func.func @main(%a: tensor<1x10x10x8xi8>, %b: tensor<3x3x8x16xi8>,
                %za: i32, %zb: i32) -> tensor<1x8x8x16xi32> {
  %zero = arith.constant 0 : i32
  %e = tensor.empty() : tensor<1x8x8x16xi32>
  %f = linalg.fill
      ins(%zero : i32)
      outs(%e : tensor<1x8x8x16xi32>) -> tensor<1x8x8x16xi32>
  %r = linalg.conv_2d_nhwc_hwcf_q
      ins(%a, %b, %za, %zb : tensor<1x10x10x8xi8>, tensor<3x3x8x16xi8>, i32, i32)
      outs(%f : tensor<1x8x8x16xi32>) -> tensor<1x8x8x16xi32>
  return %r : tensor<1x8x8x16xi32>
}
"""
"""Zero points of a convolution."""


def scaled(element: str) -> str:
    """``alpha * (a @ b) + beta * c``, where both factors are arguments of this type."""
    text = SCALED.replace("PRODUCT", PRODUCT).replace("WIDEN", WIDENINGS[element])
    return text.replace("TYPE", element)
