// iree-compile --compile-to=executable-configurations --iree-codegen-emit-pipeline-constraints \
//   --iree-codegen-add-tuner-attributes --iree-hal-target-device=hip --iree-rocm-target=gfx942 \
//   vector_product_constraints.mlir -o /dev/null
func.func @main(%x: tensor<8xbf16>, %a: tensor<8x224xbf16>) -> tensor<224xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<224xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<224xf32>) -> tensor<224xf32>
  %product = linalg.vecmat ins(%x, %a : tensor<8xbf16>, tensor<8x224xbf16>)
    outs(%zeros : tensor<224xf32>) -> tensor<224xf32>
  return %product : tensor<224xf32>
}
