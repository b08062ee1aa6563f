// Two layers of a perceptron, with weights as inputs.
func.func @two_layers(%x: tensor<64x96xf32>, %w1: tensor<96x128xf32>, %w2: tensor<128x48xf32>) -> tensor<64x48xf32> {
  %zero = arith.constant 0.0 : f32
  %hidden_empty = tensor.empty() : tensor<64x128xf32>
  %hidden_init = linalg.fill ins(%zero : f32) outs(%hidden_empty : tensor<64x128xf32>) -> tensor<64x128xf32>
  %hidden = linalg.matmul ins(%x, %w1 : tensor<64x96xf32>, tensor<96x128xf32>)
                          outs(%hidden_init : tensor<64x128xf32>) -> tensor<64x128xf32>
  %out_empty = tensor.empty() : tensor<64x48xf32>
  %out_init = linalg.fill ins(%zero : f32) outs(%out_empty : tensor<64x48xf32>) -> tensor<64x48xf32>
  %out = linalg.matmul ins(%hidden, %w2 : tensor<64x128xf32>, tensor<128x48xf32>)
                       outs(%out_init : tensor<64x48xf32>) -> tensor<64x48xf32>
  return %out : tensor<64x48xf32>
}
