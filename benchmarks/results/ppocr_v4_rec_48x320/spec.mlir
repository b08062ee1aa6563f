#config = #iree_cpu.lowering_config<distribution = [32, 24, 32, 0], vector_common_parallel = [1, 3, 32, 0], vector_reduction = [0, 0, 0, 8]>
#config1 = #iree_cpu.lowering_config<distribution = [28, 12, 64, 0], vector_common_parallel = [1, 3, 32, 0], vector_reduction = [0, 0, 0, 8]>
#config2 = #iree_cpu.lowering_config<distribution = [1, 1, 80, 128, 0, 0], vector_common_parallel = [1, 1, 1, 32, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 3]>
#config3 = #iree_cpu.lowering_config<distribution = [20, 12, 80, 0], vector_common_parallel = [1, 12, 32, 0], vector_reduction = [0, 0, 0, 4]>
#config4 = #iree_cpu.lowering_config<distribution = [15, 12, 80, 0], vector_common_parallel = [1, 3, 32, 0], vector_reduction = [0, 0, 0, 8]>
#config5 = #iree_cpu.lowering_config<distribution = [4, 3, 80, 0], vector_common_parallel = [1, 3, 64, 0], vector_reduction = [0, 0, 0, 4]>
#config6 = #iree_cpu.lowering_config<distribution = [15, 6, 16, 0], vector_common_parallel = [1, 6, 16, 0], vector_reduction = [0, 0, 0, 2]>
#config7 = #iree_cpu.lowering_config<distribution = [5, 3, 80, 0], vector_common_parallel = [1, 3, 32, 0], vector_reduction = [0, 0, 0, 2]>
#config8 = #iree_cpu.lowering_config<distribution = [480, 128, 0], vector_common_parallel = [16, 16, 0], vector_reduction = [0, 0, 16]>
#config9 = #iree_cpu.lowering_config<distribution = [1, 40, 64, 0], vector_common_parallel = [1, 8, 16, 0], vector_reduction = [0, 0, 0, 16]>
#map = affine_map<(d0, d1, d2, d3) -> (d3, d1, d2)>
#map1 = affine_map<(d0, d1, d2, d3) -> (d0, d3)>
#map2 = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2)>
#map3 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d3, d1 + d4, d2 * 2 + d5)>
#map4 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d3, d4, d5)>
#map5 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d3, d1, d2)>
#map6 = affine_map<(d0, d1, d2) -> (d2, d1)>
#map7 = affine_map<(d0, d1, d2) -> (d0, d2)>
#map8 = affine_map<(d0, d1, d2) -> (d0, d1)>
#map9 = affine_map<(d0, d1, d2, d3) -> (d0, d1, d3)>
#map10 = affine_map<(d0, d1, d2, d3) -> (d0, d3, d2)>
#translation = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>
#translation1 = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>, {enable_loop_peeling}>
#compilation = #iree_codegen.compilation_info<lowering_config = #config, translation_info = #translation>
#compilation1 = #iree_codegen.compilation_info<lowering_config = #config1, translation_info = #translation1>
#compilation2 = #iree_codegen.compilation_info<lowering_config = #config2, translation_info = #translation>
#compilation3 = #iree_codegen.compilation_info<lowering_config = #config3, translation_info = #translation1>
#compilation4 = #iree_codegen.compilation_info<lowering_config = #config4, translation_info = #translation1>
#compilation5 = #iree_codegen.compilation_info<lowering_config = #config5, translation_info = #translation1>
#compilation6 = #iree_codegen.compilation_info<lowering_config = #config6, translation_info = #translation>
#compilation7 = #iree_codegen.compilation_info<lowering_config = #config7, translation_info = #translation1>
#compilation8 = #iree_codegen.compilation_info<lowering_config = #config8, translation_info = #translation1>
#compilation9 = #iree_codegen.compilation_info<lowering_config = #config9, translation_info = #translation1>
module @shark_tune_spec attributes {iree_codegen.tuning_spec_with_default_entrypoint, transform.with_named_sequence} {
  transform.named_sequence @apply_op_config(%arg0: !transform.any_op {transform.readonly}, %arg1: !transform.any_param {transform.readonly}) {
    transform.annotate %arg0 "compilation_info" = %arg1 : !transform.any_op, !transform.any_param
    transform.yield 
  }
  transform.named_sequence @match_matmul_like_64x24x160x64_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "b978cd", device = "AMD EPYC", dispatch = "matmul_like_64x24x160x64_f32", iree = "3.13.0", speedup = "2.567"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [24, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [64] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [64] : !transform.param<i64>
    %0 = transform.param.constant #compilation -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_128x12x160x128_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "169bce", device = "AMD EPYC", dispatch = "matmul_like_128x12x160x128_f32", iree = "3.13.0", speedup = "2.829"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [12, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [128] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [128] : !transform.param<i64>
    %0 = transform.param.constant #compilation1 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x128x12x80_3x3_s1x2_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "a42122", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x128x12x80_3x3_s1x2_f32", iree = "3.13.0", speedup = "2.097"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [12, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [128] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 2] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x128x14x162xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<128x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x128x12x80xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x128x14x162xf32>, %arg2: tensor<128x3x3xf32>, %arg3: tensor<1x128x12x80xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x128x14x162xf32>, tensor<128x3x3xf32>) outs(%arg3 : tensor<1x128x12x80xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x128x12x80xf32>
    }
    %3 = transform.param.constant #compilation2 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_240x12x80x128_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "1e1996", device = "AMD EPYC", dispatch = "matmul_like_240x12x80x128_f32", iree = "3.13.0", speedup = "2.570"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [12, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [240] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [128] : !transform.param<i64>
    %0 = transform.param.constant #compilation3 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_240x12x80x240_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "bbe8f0", device = "AMD EPYC", dispatch = "matmul_like_240x12x80x240_f32", iree = "3.13.0", speedup = "2.439"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [12, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [240] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [240] : !transform.param<i64>
    %0 = transform.param.constant #compilation4 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_480x6x80x240_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "332bda", device = "AMD EPYC", dispatch = "matmul_like_480x6x80x240_f32", iree = "3.13.0", speedup = "2.707"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [6, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [480] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [240] : !transform.param<i64>
    %0 = transform.param.constant #compilation5 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_480x6x80x480_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "0fc017", device = "AMD EPYC", dispatch = "matmul_like_480x6x80x480_f32", iree = "3.13.0", speedup = "2.479"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [6, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [480] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [480] : !transform.param<i64>
    %0 = transform.param.constant #compilation6 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_480x3x80x480_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "05f5bb", device = "AMD EPYC", dispatch = "matmul_like_480x3x80x480_f32", iree = "3.13.0", speedup = "2.982"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [3, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [480] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [480] : !transform.param<i64>
    %0 = transform.param.constant #compilation7 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_480x240x480_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "f7831b", device = "AMD EPYC", dispatch = "matmul_like_480x240x480_f32", iree = "3.13.0", speedup = "1.409"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map6, #map7, #map8] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [240] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [480] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [480] : !transform.param<i64>
    %0 = transform.param.constant #compilation8 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_batch_matmul_1x40x6625x120_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "2d4482", device = "AMD EPYC", dispatch = "batch_matmul_1x40x6625x120_f32", iree = "3.13.0", speedup = "1.395"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map9, #map10, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [40] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [6625] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [120] : !transform.param<i64>
    %0 = transform.param.constant #compilation9 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @__kernel_config(%arg0: !transform.any_op {transform.consumed}) -> !transform.any_op attributes {iree_codegen.tuning_spec_entrypoint} {
    %updated_root = transform.foreach_match in %arg0 
        @match_matmul_like_64x24x160x64_f32 -> @apply_op_config, 
        @match_matmul_like_128x12x160x128_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x128x12x80_3x3_s1x2_f32 -> @apply_op_config, 
        @match_matmul_like_240x12x80x128_f32 -> @apply_op_config, 
        @match_matmul_like_240x12x80x240_f32 -> @apply_op_config, 
        @match_matmul_like_480x6x80x240_f32 -> @apply_op_config, 
        @match_matmul_like_480x6x80x480_f32 -> @apply_op_config, 
        @match_matmul_like_480x3x80x480_f32 -> @apply_op_config, 
        @match_matmul_like_480x240x480_f32 -> @apply_op_config, 
        @match_batch_matmul_1x40x6625x120_f32 -> @apply_op_config : (!transform.any_op) -> !transform.any_op
    transform.yield %updated_root : !transform.any_op
  }
}
