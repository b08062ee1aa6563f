// The 1x1 convolution of PP-OCRv4 recognition that is its dispatch 33: 480 channels of 6 x 80 pixels become 480 others,
// a bias is added, hard-swish follows (x * relu6(x + 3) / 6), and the result goes into the middle of the zeros that the
// next layer, a 5x5 depthwise convolution, needs around it. Because of that border the two image dimensions stay two:
// without it the compiler makes one of 480 out of them, and this would be one more square matmul.

#weight = affine_map<(c, h, w, i) -> (c, i)>
#image = affine_map<(c, h, w, i) -> (i, h, w)>
#sum = affine_map<(c, h, w, i) -> (c, h, w)>
#result = affine_map<(c, h, w) -> (c, h, w)>
#channel = affine_map<(c, h, w) -> (c)>

func.func @main(%image: tensor<480x6x80xf32>, %weight: tensor<480x480xf32>, %bias: tensor<480xf32>) -> tensor<480x10x84xf32> {
  %zero = arith.constant 0.0 : f32
  %three = arith.constant 3.0 : f32
  %six = arith.constant 6.0 : f32
  %empty = tensor.empty() : tensor<480x6x80xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<480x6x80xf32>) -> tensor<480x6x80xf32>

  %sum = linalg.generic {
    indexing_maps = [#image, #weight, #sum],
    iterator_types = ["parallel", "parallel", "parallel", "reduction"]
  } ins(%image, %weight : tensor<480x6x80xf32>, tensor<480x480xf32>) outs(%zeros : tensor<480x6x80xf32>) {
  ^bb0(%x: f32, %w: f32, %partial: f32):
    %product = arith.mulf %x, %w : f32
    %next = arith.addf %partial, %product : f32
    linalg.yield %next : f32
  } -> tensor<480x6x80xf32>

  %activated = linalg.generic {
    indexing_maps = [#result, #channel, #result],
    iterator_types = ["parallel", "parallel", "parallel"]
  } ins(%sum, %bias : tensor<480x6x80xf32>, tensor<480xf32>) outs(%empty : tensor<480x6x80xf32>) {
  ^bb0(%s: f32, %b: f32, %unused: f32):
    %x = arith.addf %s, %b : f32
    %shifted = arith.addf %x, %three : f32
    %lower = arith.maximumf %shifted, %zero : f32
    %relu6 = arith.minimumf %lower, %six : f32
    %gated = arith.mulf %x, %relu6 : f32
    %y = arith.divf %gated, %six : f32
    linalg.yield %y : f32
  } -> tensor<480x6x80xf32>

  %padded = tensor.pad %activated low[0, 2, 2] high[0, 2, 2] {
  ^bb0(%c: index, %h: index, %w: index):
    tensor.yield %zero : f32
  } : tensor<480x6x80xf32> to tensor<480x10x84xf32>
  return %padded : tensor<480x10x84xf32>
}
