func.func @main(%a: tensor<127x509xf32>, %b: tensor<509x251xf32>) -> tensor<127x251xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<127x251xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<127x251xf32>) -> tensor<127x251xf32>
  %r = linalg.matmul ins(%a, %b : tensor<127x509xf32>, tensor<509x251xf32>) outs(%f : tensor<127x251xf32>) -> tensor<127x251xf32>
  return %r : tensor<127x251xf32>
}
