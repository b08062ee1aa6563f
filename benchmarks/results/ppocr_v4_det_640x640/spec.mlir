#config = #iree_cpu.lowering_config<distribution = [1, 8, 80, 320, 0, 0, 0], vector_common_parallel = [1, 8, 1, 8, 0, 0, 0], vector_reduction = [0, 0, 0, 0, 3, 1, 3]>
#config1 = #iree_cpu.lowering_config<distribution = [1, 160, 80, 8, 0, 0], vector_common_parallel = [1, 1, 40, 1, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 1]>
#config2 = #iree_cpu.lowering_config<distribution = [6, 2, 320, 0], vector_common_parallel = [1, 2, 64, 0], vector_reduction = [0, 0, 0, 2]>
#config3 = #iree_cpu.lowering_config<distribution = [1, 80, 80, 32, 0, 0], vector_common_parallel = [1, 8, 40, 1, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 3]>
#config4 = #iree_cpu.lowering_config<distribution = [7, 12, 160, 0], vector_common_parallel = [1, 12, 16, 0], vector_reduction = [0, 0, 0, 1]>
#config5 = #iree_cpu.lowering_config<distribution = [1, 160, 80, 1, 0, 0], vector_common_parallel = [1, 16, 16, 1, 0, 0], vector_reduction = [0, 0, 0, 0, 3, 1]>
#config6 = #iree_cpu.lowering_config<distribution = [28, 16, 16, 0], vector_common_parallel = [1, 16, 16, 0], vector_reduction = [0, 0, 0, 1]>
#config7 = #iree_cpu.lowering_config<distribution = [1, 80, 80, 48, 0, 0], vector_common_parallel = [1, 1, 16, 16, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 1]>
#config8 = #iree_cpu.lowering_config<distribution = [1, 40, 40, 1, 0, 0], vector_common_parallel = [1, 20, 10, 1, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 1]>
#config9 = #iree_cpu.lowering_config<distribution = [12, 4, 40, 0], vector_common_parallel = [1, 4, 32, 0], vector_reduction = [0, 0, 0, 1]>
#config10 = #iree_cpu.lowering_config<distribution = [80, 256, 0], vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 16]>
#config11 = #iree_cpu.lowering_config<distribution = [120, 16, 0], vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 8]>
#config12 = #iree_cpu.lowering_config<distribution = [1, 12, 2, 80, 0, 0, 0], vector_common_parallel = [1, 4, 1, 16, 0, 0, 0], vector_reduction = [0, 0, 0, 0, 3, 1, 1]>
#config13 = #iree_cpu.lowering_config<distribution = [1, 24, 10, 160, 0, 0, 0], vector_common_parallel = [1, 3, 1, 32, 0, 0, 0], vector_reduction = [0, 0, 0, 0, 6, 1, 1]>
#config14 = #iree_cpu.lowering_config<distribution = [40, 320, 0, 0, 0], vector_common_parallel = [20, 8, 0, 0, 0], vector_reduction = [0, 0, 1, 1, 1]>
#map = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d4, d2 * 2 + d5, d3 * 2 + d6)>
#map1 = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d1, d4, d5, d6)>
#map2 = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d1, d2, d3)>
#map3 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d3, d1 + d4, d2 + d5)>
#map4 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d3, d4, d5)>
#map5 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d3, d1, d2)>
#map6 = affine_map<(d0, d1, d2, d3) -> (d3, d1, d2)>
#map7 = affine_map<(d0, d1, d2, d3) -> (d0, d3)>
#map8 = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2)>
#map9 = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d3, d1 * 2 + d4, d2 * 2 + d5)>
#map10 = affine_map<(d0, d1, d2) -> (d2, d1)>
#map11 = affine_map<(d0, d1, d2) -> (d0, d2)>
#map12 = affine_map<(d0, d1, d2) -> (d0, d1)>
#map13 = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d4, d2 + d5, d3 + d6)>
#map14 = affine_map<(d0, d1, d2, d3, d4) -> (d2, d0 + d3, d1 + d4)>
#map15 = affine_map<(d0, d1, d2, d3, d4) -> (d2, d3, d4)>
#map16 = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1)>
#translation = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<ConvTileAndDecomposeExpert>>
#translation1 = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>
#translation2 = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>, {enable_loop_peeling}>
#compilation = #iree_codegen.compilation_info<lowering_config = #config, translation_info = #translation>
#compilation1 = #iree_codegen.compilation_info<lowering_config = #config1, translation_info = #translation1>
#compilation2 = #iree_codegen.compilation_info<lowering_config = #config2, translation_info = #translation2>
#compilation3 = #iree_codegen.compilation_info<lowering_config = #config3, translation_info = #translation1>
#compilation4 = #iree_codegen.compilation_info<lowering_config = #config4, translation_info = #translation2>
#compilation5 = #iree_codegen.compilation_info<lowering_config = #config5, translation_info = #translation1>
#compilation6 = #iree_codegen.compilation_info<lowering_config = #config6, translation_info = #translation2>
#compilation7 = #iree_codegen.compilation_info<lowering_config = #config7, translation_info = #translation1>
#compilation8 = #iree_codegen.compilation_info<lowering_config = #config8, translation_info = #translation1>
#compilation9 = #iree_codegen.compilation_info<lowering_config = #config9, translation_info = #translation2>
#compilation10 = #iree_codegen.compilation_info<lowering_config = #config10, translation_info = #translation2>
#compilation11 = #iree_codegen.compilation_info<lowering_config = #config11, translation_info = #translation1>
#compilation12 = #iree_codegen.compilation_info<lowering_config = #config12, translation_info = #translation>
#compilation13 = #iree_codegen.compilation_info<lowering_config = #config13, translation_info = #translation>
#compilation14 = #iree_codegen.compilation_info<lowering_config = #config14, translation_info = #translation1>
module @shark_tune_spec attributes {iree_codegen.tuning_spec_with_default_entrypoint, transform.with_named_sequence} {
  transform.named_sequence @apply_op_config(%arg0: !transform.any_op {transform.readonly}, %arg1: !transform.any_param {transform.readonly}) {
    transform.annotate %arg0 "compilation_info" = %arg1 : !transform.any_op, !transform.any_param
    transform.yield 
  }
  transform.named_sequence @match_conv_2d_nchw_fchw_1x16x320x320_3x3x3_s2x2_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "9cdba0", device = "AMD EPYC", dispatch = "conv_2d_nchw_fchw_1x16x320x320_3x3x3_s2x2_f32", iree = "3.13.0", speedup = "4.414"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [320, 320] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [16] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [3] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [2, 2] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x3x642x642xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<16x3x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x16x320x320xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x3x642x642xf32>, %arg2: tensor<16x3x3x3xf32>, %arg3: tensor<1x16x320x320xf32>):
      %4 = linalg.generic {indexing_maps = [#map, #map1, #map2], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x3x642x642xf32>, tensor<16x3x3x3xf32>) outs(%arg3 : tensor<1x16x320x320xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x16x320x320xf32>
    }
    %3 = transform.param.constant #compilation -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x16x320x320_3x3_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "0795ec", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x16x320x320_3x3_f32", iree = "3.13.0", speedup = "1.399"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [320, 320] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [16] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x16x322x322xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<16x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x16x320x320xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x16x322x322xf32>, %arg2: tensor<16x3x3xf32>, %arg3: tensor<1x16x320x320xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x16x322x322xf32>, tensor<16x3x3xf32>) outs(%arg3 : tensor<1x16x320x320xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x16x320x320xf32>
    }
    %3 = transform.param.constant #compilation1 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_32x320x320x16_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "383d2d", device = "AMD EPYC", dispatch = "matmul_like_32x320x320x16_f32", iree = "3.13.0", speedup = "2.026"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map6, #map7, #map8] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [320, 320] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [32] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [16] : !transform.param<i64>
    %0 = transform.param.constant #compilation2 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x32x160x160_3x3_s2x2_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "9c76b7", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x32x160x160_3x3_s2x2_f32", iree = "3.13.0", speedup = "2.625"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map9, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [160, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [32] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [2, 2] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x32x322x322xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<32x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x32x160x160xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x32x322x322xf32>, %arg2: tensor<32x3x3xf32>, %arg3: tensor<1x32x160x160xf32>):
      %4 = linalg.generic {indexing_maps = [#map9, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x32x322x322xf32>, tensor<32x3x3xf32>) outs(%arg3 : tensor<1x32x160x160xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x32x160x160xf32>
    }
    %3 = transform.param.constant #compilation3 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_48x160x160x32_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "5aa13c", device = "AMD EPYC", dispatch = "matmul_like_48x160x160x32_f32", iree = "3.13.0", speedup = "4.961"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map6, #map7, #map8] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [160, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [48] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [32] : !transform.param<i64>
    %0 = transform.param.constant #compilation4 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x48x160x160_3x3_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "7616ab", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x48x160x160_3x3_f32", iree = "3.13.0", speedup = "1.236"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [160, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [48] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x48x162x162xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<48x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x48x160x160xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x48x162x162xf32>, %arg2: tensor<48x3x3xf32>, %arg3: tensor<1x48x160x160xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x48x162x162xf32>, tensor<48x3x3xf32>) outs(%arg3 : tensor<1x48x160x160xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x48x160x160xf32>
    }
    %3 = transform.param.constant #compilation5 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_96x80x80x48_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "211313", device = "AMD EPYC", dispatch = "matmul_like_96x80x80x48_f32", iree = "3.13.0", speedup = "2.439"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map6, #map7, #map8] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [80, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [96] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [48] : !transform.param<i64>
    %0 = transform.param.constant #compilation6 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "d527b2", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32", iree = "3.13.0", speedup = "2.072"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [80, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [96] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x96x82x82xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<96x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x96x80x80xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x96x82x82xf32>, %arg2: tensor<96x3x3xf32>, %arg3: tensor<1x96x80x80xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x96x82x82xf32>, tensor<96x3x3xf32>) outs(%arg3 : tensor<1x96x80x80xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x96x80x80xf32>
    }
    %3 = transform.param.constant #compilation7 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_depthwise_conv_2d_nchw_chw_1x192x40x40_5x5_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "5cea7f", device = "AMD EPYC", dispatch = "depthwise_conv_2d_nchw_chw_1x192x40x40_5x5_f32", iree = "3.13.0", speedup = "2.197"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map3, #map4, #map5] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [40, 40] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [5, 5] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [192] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x192x44x44xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<192x5x5xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x192x40x40xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x192x44x44xf32>, %arg2: tensor<192x5x5xf32>, %arg3: tensor<1x192x40x40xf32>):
      %4 = linalg.generic {indexing_maps = [#map3, #map4, #map5], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x192x44x44xf32>, tensor<192x5x5xf32>) outs(%arg3 : tensor<1x192x40x40xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x192x40x40xf32>
    }
    %3 = transform.param.constant #compilation8 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_192x40x40x192_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "3f614e", device = "AMD EPYC", dispatch = "matmul_like_192x40x40x192_f32", iree = "3.13.0", speedup = "1.661"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map6, #map7, #map8] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [40, 40] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [192] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [192] : !transform.param<i64>
    %0 = transform.param.constant #compilation9 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_384x400x384_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "6911e5", device = "AMD EPYC", dispatch = "matmul_like_384x400x384_f32", iree = "3.13.0", speedup = "2.131"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map10, #map11, #map12] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [400] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [384] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [384] : !transform.param<i64>
    %0 = transform.param.constant #compilation10 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_matmul_like_360x400x384_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "a7d7c0", device = "AMD EPYC", dispatch = "matmul_like_360x400x384_f32", iree = "3.13.0", speedup = "1.927"}} {
    %batch_dims, %m_dims, %n_dims, %k_dims = transform.iree.match.contraction %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map10, #map11, #map12] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %m_dims, [400] : !transform.param<i64>
    transform.iree.match.dims_equal %n_dims, [360] : !transform.param<i64>
    transform.iree.match.dims_equal %k_dims, [384] : !transform.param<i64>
    %0 = transform.param.constant #compilation11 -> !transform.any_param
    transform.yield %arg0, %0 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_conv_2d_nchw_fchw_1x24x80x80_3x3x96_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "b5b5e5", device = "AMD EPYC", dispatch = "conv_2d_nchw_fchw_1x24x80x80_3x3x96_f32", iree = "3.13.0", speedup = "1.306"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map13, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [80, 80] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [24] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [96] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x96x82x82xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<24x96x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x24x80x80xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x96x82x82xf32>, %arg2: tensor<24x96x3x3xf32>, %arg3: tensor<1x24x80x80xf32>):
      %4 = linalg.generic {indexing_maps = [#map13, #map1, #map2], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x96x82x82xf32>, tensor<24x96x3x3xf32>) outs(%arg3 : tensor<1x24x80x80xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x24x80x80xf32>
    }
    %3 = transform.param.constant #compilation12 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_conv_2d_nchw_fchw_1x24x160x160_3x3x96_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "11dc27", device = "AMD EPYC", dispatch = "conv_2d_nchw_fchw_1x24x160x160_3x3x96_f32", iree = "3.13.0", speedup = "1.367"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map13, #map1, #map2] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [1] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [160, 160] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [24] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [3, 3] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [96] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<1x96x162x162xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<24x96x3x3xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<1x24x160x160xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<1x96x162x162xf32>, %arg2: tensor<24x96x3x3xf32>, %arg3: tensor<1x24x160x160xf32>):
      %4 = linalg.generic {indexing_maps = [#map13, #map1, #map2], iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<1x96x162x162xf32>, tensor<24x96x3x3xf32>) outs(%arg3 : tensor<1x24x160x160xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<1x24x160x160xf32>
    }
    %3 = transform.param.constant #compilation13 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @match_conv_2d_chw_chw_640x640_2x2x24_f32(%arg0: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) attributes {shark_tune.provenance = {candidate = "0d3c23", device = "AMD EPYC", dispatch = "conv_2d_chw_chw_640x640_2x2x24_f32", iree = "3.13.0", speedup = "2.329"}} {
    %batch_dims, %output_image_dims, %output_channel_dims, %filter_dims, %input_channel_dims, %depth_dims, %strides, %dilations = transform.iree.match.convolution %arg0, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [#map14, #map15, #map16] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %batch_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %output_image_dims, [640, 640] : !transform.param<i64>
    transform.iree.match.dims_equal %output_channel_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %filter_dims, [2, 2] : !transform.param<i64>
    transform.iree.match.dims_equal %input_channel_dims, [24] : !transform.param<i64>
    transform.iree.match.dims_equal %depth_dims, [] : !transform.param<i64>
    transform.iree.match.dims_equal %strides, [1, 1] : !transform.param<i64>
    transform.iree.match.dims_equal %dilations, [1, 1] : !transform.param<i64>
    %0 = transform.get_operand %arg0[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %0 = tensor<24x641x641xf32> : !transform.any_value
    %1 = transform.get_operand %arg0[1] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %1 = tensor<24x2x2xf32> : !transform.any_value
    %2 = transform.get_operand %arg0[2] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %2 = tensor<640x640xf32> : !transform.any_value
    transform.iree.match.regions %arg0 : !transform.any_op {
    ^bb0(%arg1: tensor<24x641x641xf32>, %arg2: tensor<24x2x2xf32>, %arg3: tensor<640x640xf32>):
      %4 = linalg.generic {indexing_maps = [#map14, #map15, #map16], iterator_types = ["parallel", "parallel", "reduction", "reduction", "reduction"]} ins(%arg1, %arg2 : tensor<24x641x641xf32>, tensor<24x2x2xf32>) outs(%arg3 : tensor<640x640xf32>) {
      ^bb0(%in: f32, %in_0: f32, %out: f32):
        %5 = arith.mulf %in, %in_0 : f32
        %6 = arith.addf %out, %5 : f32
        linalg.yield %6 : f32
      } -> tensor<640x640xf32>
    }
    %3 = transform.param.constant #compilation14 -> !transform.any_param
    transform.yield %arg0, %3 : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @__kernel_config(%arg0: !transform.any_op {transform.consumed}) -> !transform.any_op attributes {iree_codegen.tuning_spec_entrypoint} {
    %updated_root = transform.foreach_match in %arg0 
        @match_conv_2d_nchw_fchw_1x16x320x320_3x3x3_s2x2_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x16x320x320_3x3_f32 -> @apply_op_config, 
        @match_matmul_like_32x320x320x16_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x32x160x160_3x3_s2x2_f32 -> @apply_op_config, 
        @match_matmul_like_48x160x160x32_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x48x160x160_3x3_f32 -> @apply_op_config, 
        @match_matmul_like_96x80x80x48_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32 -> @apply_op_config, 
        @match_depthwise_conv_2d_nchw_chw_1x192x40x40_5x5_f32 -> @apply_op_config, 
        @match_matmul_like_192x40x40x192_f32 -> @apply_op_config, 
        @match_matmul_like_384x400x384_f32 -> @apply_op_config, 
        @match_matmul_like_360x400x384_f32 -> @apply_op_config, 
        @match_conv_2d_nchw_fchw_1x24x80x80_3x3x96_f32 -> @apply_op_config, 
        @match_conv_2d_nchw_fchw_1x24x160x160_3x3x96_f32 -> @apply_op_config, 
        @match_conv_2d_chw_chw_640x640_2x2x24_f32 -> @apply_op_config : (!transform.any_op) -> !transform.any_op
    transform.yield %updated_root : !transform.any_op
  }
}
