#config = #iree_cpu.lowering_config<distribution = [8, 8, 8, 8, 8, 8, 8]>
#config1 = #iree_cpu.lowering_config<distribution = [8, 8, 8, 8, 8, 8]>
#config2 = #iree_cpu.lowering_config<distribution = [8, 8, 8, 8, 8]>
#config3 = #iree_cpu.lowering_config<distribution = [8, 8]>
#map = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d1 * 2 + d4, d2 * 2 + d5, d6)>
#map1 = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d4, d5, d6, d3)>
#map2 = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d1, d2, d3)>
#map3 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1 + d4, d2 + d5, d3)>
#map4 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d4, d5)>
#map5 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1, d2, d3)>
#map6 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d3)>
#map7 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d4, d3)>
#map8 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d4, d2)>
#map9 = affine_map<(d0, d1, d2, d3, d4) -> ()>
#map10 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d2)>
#map11 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1)>
#map12 = affine_map<(d0, d1) -> (d0, d1)>
#map13 = affine_map<(d0, d1) -> (d0)>
#translation = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>
#compilation = #iree_codegen.compilation_info<lowering_config = #config, translation_info = #translation>
#compilation1 = #iree_codegen.compilation_info<lowering_config = #config1, translation_info = #translation>
#compilation2 = #iree_codegen.compilation_info<lowering_config = #config2, translation_info = #translation>
#compilation3 = #iree_codegen.compilation_info<lowering_config = #config3, translation_info = #translation>
module @shark_tune_spec attributes {iree_codegen.tuning_spec_with_default_entrypoint, transform.with_named_sequence} {
  transform.named_sequence @apply_op_config(%arg0: !transform.any_op {transform.readonly}, %arg1: !transform.any_param {transform.readonly}) {
    transform.annotate %arg0 "compilation_info" = %arg1 : !transform.any_op, !transform.any_param
    transform.yield 
  }
  transform.named_sequence @match_convolution(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [8, 8] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [16] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [8] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [2, 2] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x17x17x8xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<3x3x8x16xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x8x8x16xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x17x17x8xf32>, %arg2: tensor<3x3x8x16xf32>, %arg3: tensor<1x8x8x16xf32>):
      %4 = linalg.generic {indexing_maps = [#map, #map1, #map2], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x17x17x8xf32>, tensor<3x3x8x16xf32>) outs(%arg3 : tensor<1x8x8x16xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x8x8x16xf32>
    }
    %3 = transform.param.constant #compilation -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_pooling(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1, 16] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [8, 8] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x10x10x16xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x8x8x16xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x10x10x16xf32>, %arg2: tensor<3x3xf32>, %arg3: tensor<1x8x8x16xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x10x10x16xf32>, tensor<3x3xf32>) outs(%arg3 : tensor<1x8x8x16xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.maximumf %out, %in : f32
        linalg.yield %5 : f32
      } -> tensor<1x8x8x16xf32>
    }
    %3 = transform.param.constant #compilation1 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_attention(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %batch_dims, %m_dims, %n_dims, %k1_dims, %k2_dims = transform.iree.match.online_attention %arg0, query_type = f32, key_type = f32, value_type = f32, scale_type = f32, output_type = f32, max_type = f32, sum_type = f32, indexing_maps = [#map6, #map7, #map8, #map9, #map10, #map11, #map11] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [4] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [32] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [32] : !transform.param<i64>
    transform.iree.match.dims_equal %k1_dims, [16] : !transform.param<i64>
    transform.iree.match.dims_equal %k2_dims, [64] : !transform.param<i64>
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<4x32x16xf32>, %arg2: tensor<4x64x16xf32>, %arg3: tensor<4x64x32xf32>, %arg4: f32, %arg5: tensor<4x32x32xf32>, %arg6: tensor<4x32xf32>, %arg7: tensor<4x32xf32>):
      %1:3 = iree_linalg_ext.online_attention <indexing_maps = [#map6, #map7, #map8, #map9, #map10, #map11, #map11]> ins(%arg1, %arg2, %arg3, %arg4 : tensor<4x32x16xf32>, tensor<4x64x16xf32>, tensor<4x64x32xf32>, f32) outs(%arg5, %arg6, %arg7 : tensor<4x32x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>) {
      ^bb0(%arg8: f32):
        iree_linalg_ext.yield %arg8 : f32
      } -> tensor<4x32x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>
    }
    %0 = transform.param.constant #compilation2 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_other(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %inputs, %outputs = transform.iree.match.cast_compatible_dag_from_root %arg0 {
    ^bb0(%arg1: tensor<64x64xf32>, %arg2: tensor<64xf32>):
      %1 = linalg.generic {indexing_maps = [#map12, #map13], iterator_types = ["parallel", "reduction"]} ins(%arg1 : tensor<64x64xf32>) outs(%arg2 : tensor<64xf32>) {
      ^bb0(%in: f32, %out: f32):
        %cst = arith.constant 3.330000e-01 : f32
        %2 = arith.mulf %in, %cst : f32
        %3 = arith.addf %2, %out : f32
        linalg.yield %3 : f32
      } -> tensor<64xf32>
    } : (!transform.any_op) -> (!transform.any_value, !transform.any_value)
    %0 = transform.param.constant #compilation3 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_other_2(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %inputs, %outputs = transform.iree.match.cast_compatible_dag_from_root %arg0 {
    ^bb0(%arg1: tensor<64x64xf32>, %arg2: tensor<8x8x8x8xf32>):
      %pack = linalg.pack %arg1 inner_dims_pos = [1, 0] inner_tiles = [8, 8] into %arg2 : tensor<64x64xf32> -> tensor<8x8x8x8xf32>
    } : (!transform.any_op) -> (!transform.any_value, !transform.any_value)
    %0 = transform.param.constant #compilation3 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @__kernel_config(%arg0: !transform.any_op {transform.consumed}) -> !transform.any_op attributes {iree_codegen.tuning_spec_entrypoint} {
    %updated_root = transform.foreach_match in %arg0 
        @match_convolution -> @apply_op_config, 
        @match_pooling -> @apply_op_config, 
        @match_attention -> @apply_op_config, 
        @match_other -> @apply_op_config, 
        @match_other_2 -> @apply_op_config : (!transform.any_op) -> !transform.any_op
    transform.yield %updated_root : !transform.any_op
  }
}
