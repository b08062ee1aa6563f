// iree-compile --compile-to=executable-configurations --iree-hal-target-device=local \
//   --iree-hal-local-target-device-backends=llvm-cpu --iree-llvmcpu-target-cpu=znver4 \
//   odd_product_config.mlir -o -
func.func @main(%a: tensor<127x509xf32>, %b: tensor<509x251xf32>) -> tensor<127x251xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<127x251xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<127x251xf32>) -> tensor<127x251xf32>
  %product = linalg.matmul ins(%a, %b : tensor<127x509xf32>, tensor<509x251xf32>)
    outs(%zeros : tensor<127x251xf32>) -> tensor<127x251xf32>
  return %product : tensor<127x251xf32>
}
