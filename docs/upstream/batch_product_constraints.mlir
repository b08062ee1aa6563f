// iree-compile --compile-to=executable-configurations --iree-codegen-emit-pipeline-constraints \
//   --iree-codegen-add-tuner-attributes --iree-hal-target-device=hip --iree-rocm-target=gfx942 \
//   batch_product_constraints.mlir -o /dev/null
func.func @main(%a: tensor<8x128x64xf16>, %b: tensor<8x64x128xf16>) -> tensor<8x128x128xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<8x128x128xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x128x128xf32>) -> tensor<8x128x128xf32>
  %product = linalg.batch_matmul
    ins(%a, %b : tensor<8x128x64xf16>, tensor<8x64x128xf16>)
    outs(%zeros : tensor<8x128x128xf32>) -> tensor<8x128x128xf32>
  return %product : tensor<8x128x128xf32>
}
