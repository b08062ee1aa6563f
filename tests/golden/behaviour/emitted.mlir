module {
  util.global private @__device_0 = #hal.device.target<"cuda", [#hal.executable.target<"cuda", "cuda-nvptx-fb", {iree_codegen.target_info = #iree_gpu.target<arch = "sm_89", features = "+ptx84", wgp = <compute = fp64|fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8, subgroup = shuffle|arithmetic, dot = dp4xi8toi32, mma = [<NV_MMA_SYNC_F32_16x8x16_F16>, <NV_MMA_SYNC_F16_16x8x16_F16>, <NV_MMA_SYNC_F32_16x8x16_BF16>, <NV_MMA_SYNC_F32_16x8x32_F8E4M3FN>, <NV_MMA_SYNC_F32_16x8x32_F8E5M2>, <NV_WMMA_F32_16x16x16_F16>, <NV_WMMA_F16_16x16x16_F16>], subgroup_size_choices = [32], max_workgroup_sizes = [1024, 1024, 1024], max_thread_count_per_workgroup = 1024, max_workgroup_memory_bytes = 101376, max_workgroup_counts = [2147483647, 65535, 65535]>>}>]> : !hal.device
  hal.executable private @main_dispatch_0 {
    hal.executable.variant public @cuda_nvptx_fb target(<"cuda", "cuda-nvptx-fb", {iree_codegen.target_info = #iree_gpu.target<arch = "sm_89", features = "+ptx84", wgp = <compute = fp64|fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8, subgroup = shuffle|arithmetic, dot = dp4xi8toi32, mma = [<NV_MMA_SYNC_F32_16x8x16_F16>, <NV_MMA_SYNC_F16_16x8x16_F16>, <NV_MMA_SYNC_F32_16x8x16_BF16>, <NV_MMA_SYNC_F32_16x8x32_F8E4M3FN>, <NV_MMA_SYNC_F32_16x8x32_F8E5M2>, <NV_WMMA_F32_16x16x16_F16>, <NV_WMMA_F16_16x16x16_F16>], subgroup_size_choices = [32], max_workgroup_sizes = [1024, 1024, 1024], max_thread_count_per_workgroup = 1024, max_workgroup_memory_bytes = 101376, max_workgroup_counts = [2147483647, 65535, 65535]>>}>) {
      hal.executable.export public @main_dispatch_0_matmul_32x32x32_f16xf16xf32 ordinal(0) layout(#hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>) count(%arg0: !hal.device) -> (index, index, index) {
        %x, %y, %z = iree_tensor_ext.dispatch.workgroup_count_from_slice()
        hal.return %x, %y, %z : index, index, index
      }
      builtin.module {
        func.func @main_dispatch_0_matmul_32x32x32_f16xf16xf32() attributes {translation_info = #iree_codegen.translation_info<pipeline = #iree_gpu.pipeline<TileAndFuse> workgroup_size = [128, 1, 1] subgroup_size = 32, {gpu_pipeline_options = #iree_gpu.pipeline_options<prefetch_num_stages = 2, no_reduce_shared_memory_bank_conflicts = false, use_igemm_convolution = false>}>} {
          %cst = arith.constant 0.000000e+00 : f32
          %c0 = arith.constant 0 : index
          %0 = hal.interface.binding.subspan layout(<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>) binding(0) alignment(64) offset(%c0) flags("ReadOnly|Indirect") : memref<32x32xf16, #hal.descriptor_type<storage_buffer>>
          %1 = hal.interface.binding.subspan layout(<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>) binding(1) alignment(64) offset(%c0) flags("ReadOnly|Indirect") : memref<32x32xf16, #hal.descriptor_type<storage_buffer>>
          %2 = hal.interface.binding.subspan layout(<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>) binding(2) alignment(64) offset(%c0) flags(Indirect) : memref<32x32xf32, #hal.descriptor_type<storage_buffer>>
          %3 = iree_codegen.load_from_buffer %0 : memref<32x32xf16, #hal.descriptor_type<storage_buffer>> -> tensor<32x32xf16>
          %4 = iree_codegen.load_from_buffer %1 : memref<32x32xf16, #hal.descriptor_type<storage_buffer>> -> tensor<32x32xf16>
          %5 = tensor.empty() : tensor<32x32xf32>
          %6 = linalg.fill ins(%cst : f32) outs(%5 : tensor<32x32xf32>) -> tensor<32x32xf32>
          %7 = linalg.generic {indexing_maps = [affine_map<(d0, d1, d2) -> (d0, d2)>, affine_map<(d0, d1, d2) -> (d2, d1)>, affine_map<(d0, d1, d2) -> (d0, d1)>], iterator_types = ["parallel", "parallel", "reduction"]} ins(%3, %4 : tensor<32x32xf16>, tensor<32x32xf16>) outs(%6 : tensor<32x32xf32>) attrs =  {lowering_config = #iree_gpu.lowering_config<{convert_acc_gemm, mma_kind = #iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>, promote_operands = [0, 1], reduction = [0, 0, 2], subgroup = [2, 1, 0], workgroup = [32, 32, 0]}>, root_op = #iree_codegen.root_op<set = 0>} {
          ^bb0(%in: f16, %in_10: f16, %out: f32):
            %8 = arith.extf %in : f16 to f32
            %9 = arith.extf %in_10 : f16 to f32
            %10 = arith.mulf %8, %9 : f32
            %11 = arith.addf %out, %10 : f32
            linalg.yield %11 : f32
          } -> tensor<32x32xf32>
          %c0_0 = arith.constant 0 : index
          %c32 = arith.constant 32 : index
          %c1 = arith.constant 1 : index
          %c32_1 = arith.constant 32 : index
          %c1_2 = arith.constant 1 : index
          %c32_3 = arith.constant 32 : index
          iree_codegen.smt.constraints target = <set = 0>, pipeline = #iree_gpu.pipeline<TileAndFuse>, 
           knobs = {gpu_pipeline_options = {no_reduce_shared_memory_bank_conflicts = false, prefetch_num_stages = #iree_codegen.smt.int_knob<"prefetch_num_stages">, use_igemm_convolution = false}, mma_kind = #iree_codegen.smt.one_of_knob<"mma_idx", [#iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>]>, promote_operands = [0, 1], reduction = [0, 0, #iree_codegen.smt.int_knob<"red_2">], subgroup = [#iree_codegen.smt.int_knob<"sg_0">, #iree_codegen.smt.int_knob<"sg_1">, 0], subgroup_size = #iree_codegen.smt.int_knob<"sg_size">, workgroup = [#iree_codegen.smt.int_knob<"wg_0">, #iree_codegen.smt.int_knob<"wg_1">, 0], workgroup_size = [#iree_codegen.smt.int_knob<"wg_size_x">, #iree_codegen.smt.int_knob<"wg_size_y">, #iree_codegen.smt.int_knob<"wg_size_z">]}
           dims(%c32, %c32_1, %c32_3) {
          ^bb0(%arg0: !smt.int, %arg1: !smt.int, %arg2: !smt.int):
            %c32_10 = smt.int.constant 32
            %8 = smt.eq %arg0, %c32_10 : !smt.int
            iree_codegen.smt.assert %8, "dim_0 ({}) == 32", %arg0 : !smt.bool, !smt.int
            %c32_11 = smt.int.constant 32
            %9 = smt.eq %arg1, %c32_11 : !smt.int
            iree_codegen.smt.assert %9, "dim_1 ({}) == 32", %arg1 : !smt.bool, !smt.int
            %c32_12 = smt.int.constant 32
            %10 = smt.eq %arg2, %c32_12 : !smt.int
            iree_codegen.smt.assert %10, "dim_2 ({}) == 32", %arg2 : !smt.bool, !smt.int
            %c32_13 = smt.int.constant 32
            %c1024 = smt.int.constant 1024
            %c101376 = smt.int.constant 101376
            %c512 = smt.int.constant 512
            %11 = iree_codegen.smt.knob "wg_0" : !smt.int
            %12 = iree_codegen.smt.knob "wg_1" : !smt.int
            %13 = iree_codegen.smt.knob "sg_0" : !smt.int
            %14 = iree_codegen.smt.knob "sg_1" : !smt.int
            %15 = iree_codegen.smt.knob "red_2" : !smt.int
            %16 = iree_codegen.smt.knob "sg_size" : !smt.int
            %17 = iree_codegen.smt.knob "wg_size_x" : !smt.int
            %18 = iree_codegen.smt.knob "wg_size_y" : !smt.int
            %19 = iree_codegen.smt.knob "wg_size_z" : !smt.int
            %20 = iree_codegen.smt.knob "prefetch_num_stages" : !smt.int
            %21 = iree_codegen.smt.knob "mma_idx" : !smt.int
            %c0_14 = smt.int.constant 0
            %c0_15 = smt.int.constant 0
            %22 = smt.int.cmp ge %21, %c0_14
            iree_codegen.smt.assert %22, "mma_idx >= 0" : !smt.bool
            %23 = smt.int.cmp le %21, %c0_15
            iree_codegen.smt.assert %23, "mma_idx <= 0" : !smt.bool
            %24 = iree_codegen.smt.lookup %21 [0] -> [16] : !smt.int
            %25 = iree_codegen.smt.lookup %21 [0] -> [8] : !smt.int
            %26 = iree_codegen.smt.lookup %21 [0] -> [16] : !smt.int
            %c1_16 = smt.int.constant 1
            %27 = smt.int.mul %c1_16, %11
            %c1_17 = smt.int.constant 1
            %28 = smt.int.mul %c1_17, %12
            %c1_18 = smt.int.constant 1
            %29 = smt.int.mul %c1_18, %13
            %c1_19 = smt.int.constant 1
            %30 = smt.int.mul %c1_19, %14
            %31 = smt.int.mul %29, %24
            %32 = smt.int.mul %30, %25
            %sg_m_cnt = smt.declare_fun "sg_m_cnt" : !smt.int
            %sg_n_cnt = smt.declare_fun "sg_n_cnt" : !smt.int
            %33 = smt.int.mul %sg_m_cnt, %sg_n_cnt
            %34 = smt.int.mul %33, %16
            %35 = smt.int.mul %15, %26
            %c1_20 = smt.int.constant 1
            %36 = smt.int.sub %24, %c1_20
            %37 = smt.int.add %arg0, %36
            %38 = smt.int.div %37, %24
            %39 = smt.int.mul %38, %24
            %c1_21 = smt.int.constant 1
            %40 = smt.int.sub %25, %c1_21
            %41 = smt.int.add %arg1, %40
            %42 = smt.int.div %41, %25
            %43 = smt.int.mul %42, %25
            %c1_22 = smt.int.constant 1
            %44 = smt.int.sub %26, %c1_22
            %45 = smt.int.add %arg2, %44
            %46 = smt.int.div %45, %26
            %47 = smt.int.mul %46, %26
            %48 = smt.eq %16, %c32_13 : !smt.int
            iree_codegen.smt.assert %48, "sg_size == preferred_subgroup_size" : !smt.bool
            %c0_23 = smt.int.constant 0
            %49 = smt.int.mod %39, %11
            %50 = smt.eq %49, %c0_23 : !smt.int
            iree_codegen.smt.assert %50, "dim_0 must be divisible by wg_0 ({} % {} == 0)", %39, %11 : !smt.bool, !smt.int, !smt.int
            %c1_24 = smt.int.constant 1
            %51 = smt.int.cmp ge %11, %c1_24
            iree_codegen.smt.assert %51, "wg_0 >= 1" : !smt.bool
            %52 = smt.int.cmp le %11, %39
            iree_codegen.smt.assert %52, "wg_0 <= dim_0" : !smt.bool
            %c0_25 = smt.int.constant 0
            %53 = smt.int.mod %11, %13
            %54 = smt.eq %53, %c0_25 : !smt.int
            iree_codegen.smt.assert %54, "wg_0 must be divisible by sg_0 ({} % {} == 0)", %11, %13 : !smt.bool, !smt.int, !smt.int
            %c0_26 = smt.int.constant 0
            %55 = smt.int.mod %43, %12
            %56 = smt.eq %55, %c0_26 : !smt.int
            iree_codegen.smt.assert %56, "dim_1 must be divisible by wg_1 ({} % {} == 0)", %43, %12 : !smt.bool, !smt.int, !smt.int
            %c1_27 = smt.int.constant 1
            %57 = smt.int.cmp ge %12, %c1_27
            iree_codegen.smt.assert %57, "wg_1 >= 1" : !smt.bool
            %58 = smt.int.cmp le %12, %43
            iree_codegen.smt.assert %58, "wg_1 <= dim_1" : !smt.bool
            %c0_28 = smt.int.constant 0
            %59 = smt.int.mod %12, %14
            %60 = smt.eq %59, %c0_28 : !smt.int
            iree_codegen.smt.assert %60, "wg_1 must be divisible by sg_1 ({} % {} == 0)", %12, %14 : !smt.bool, !smt.int, !smt.int
            %61 = smt.int.cmp ge %11, %24
            iree_codegen.smt.assert %61, "wg_0 >= mma_m" : !smt.bool
            %62 = smt.int.cmp ge %12, %25
            iree_codegen.smt.assert %62, "wg_1 >= mma_n" : !smt.bool
            %c0_29 = smt.int.constant 0
            %63 = smt.int.mod %11, %24
            %64 = smt.eq %63, %c0_29 : !smt.int
            iree_codegen.smt.assert %64, "wg_0 must be divisible by mma_m ({} % {} == 0)", %11, %24 : !smt.bool, !smt.int, !smt.int
            %c0_30 = smt.int.constant 0
            %65 = smt.int.mod %12, %25
            %66 = smt.eq %65, %c0_30 : !smt.int
            iree_codegen.smt.assert %66, "wg_1 must be divisible by mma_n ({} % {} == 0)", %12, %25 : !smt.bool, !smt.int, !smt.int
            %67 = smt.int.mul %13, %24
            %68 = smt.int.mul %14, %25
            %c0_31 = smt.int.constant 0
            %69 = smt.int.mod %11, %67
            %70 = smt.eq %69, %c0_31 : !smt.int
            iree_codegen.smt.assert %70, "wg_0 must be divisible by sg_0 * mma_m ({} % {} == 0)", %11, %67 : !smt.bool, !smt.int, !smt.int
            %c0_32 = smt.int.constant 0
            %71 = smt.int.mod %12, %68
            %72 = smt.eq %71, %c0_32 : !smt.int
            iree_codegen.smt.assert %72, "wg_1 must be divisible by sg_1 * mma_n ({} % {} == 0)", %12, %68 : !smt.bool, !smt.int, !smt.int
            %73 = smt.int.cmp le %27, %c512
            iree_codegen.smt.assert %73, "prod(wg_m) <= 512 (max_vgprs)" : !smt.bool
            %74 = smt.int.cmp le %28, %c512
            iree_codegen.smt.assert %74, "prod(wg_n) <= 512 (max_vgprs)" : !smt.bool
            %c0_33 = smt.int.constant 0
            %75 = smt.int.mod %27, %31
            %76 = smt.eq %75, %c0_33 : !smt.int
            iree_codegen.smt.assert %76, "prod(wg_m) must be divisible by prod(sg_m) * mma_m ({} % {} == 0)", %27, %31 : !smt.bool, !smt.int, !smt.int
            %c0_34 = smt.int.constant 0
            %77 = smt.int.mod %28, %32
            %78 = smt.eq %77, %c0_34 : !smt.int
            iree_codegen.smt.assert %78, "prod(wg_n) must be divisible by prod(sg_n) * mma_n ({} % {} == 0)", %28, %32 : !smt.bool, !smt.int, !smt.int
            %79 = smt.int.mul %29, %sg_m_cnt, %24
            %80 = smt.int.mul %30, %sg_n_cnt, %25
            %81 = smt.eq %27, %79 : !smt.int
            %82 = smt.eq %28, %80 : !smt.int
            iree_codegen.smt.assert %81, "prod(wg_m) == prod(sg_m) * sg_m_cnt * mma_m" : !smt.bool
            iree_codegen.smt.assert %82, "prod(wg_n) == prod(sg_n) * sg_n_cnt * mma_n" : !smt.bool
            %c1_35 = smt.int.constant 1
            %83 = smt.int.cmp ge %15, %c1_35
            iree_codegen.smt.assert %83, "red_2 >= 1" : !smt.bool
            %c0_36 = smt.int.constant 0
            %84 = smt.int.mod %47, %35
            %85 = smt.eq %84, %c0_36 : !smt.int
            iree_codegen.smt.assert %85, "aligned inner k dim dim_2 must be divisible by red_2 * mma_k ({} % {} == 0)", %47, %35 : !smt.bool, !smt.int, !smt.int
            %86 = smt.int.cmp le %35, %c512
            iree_codegen.smt.assert %86, "red_2 * mma_k <= 512 (max_vgprs)" : !smt.bool
            %87 = smt.int.cmp le %35, %47
            iree_codegen.smt.assert %87, "red_2 * mma_k <= aligned k dim" : !smt.bool
            %c1_37 = smt.int.constant 1
            %88 = smt.int.cmp ge %13, %c1_37
            iree_codegen.smt.assert %88, "sg_0 >= 1" : !smt.bool
            %c1_38 = smt.int.constant 1
            %89 = smt.int.cmp ge %14, %c1_38
            iree_codegen.smt.assert %89, "sg_1 >= 1" : !smt.bool
            %c1_39 = smt.int.constant 1
            %c32_40 = smt.int.constant 32
            %90 = smt.int.cmp ge %sg_m_cnt, %c1_39
            iree_codegen.smt.assert %90, "sg_m_cnt >= 1" : !smt.bool
            %91 = smt.int.cmp le %sg_m_cnt, %c32_40
            iree_codegen.smt.assert %91, "sg_m_cnt <= 32" : !smt.bool
            %c1_41 = smt.int.constant 1
            %c32_42 = smt.int.constant 32
            %92 = smt.int.cmp ge %sg_n_cnt, %c1_41
            iree_codegen.smt.assert %92, "sg_n_cnt >= 1" : !smt.bool
            %93 = smt.int.cmp le %sg_n_cnt, %c32_42
            iree_codegen.smt.assert %93, "sg_n_cnt <= 32" : !smt.bool
            %c1_43 = smt.int.constant 1
            %c10 = smt.int.constant 10
            %94 = smt.int.cmp ge %33, %c1_43
            iree_codegen.smt.assert %94, "sg_num >= 1" : !smt.bool
            %95 = smt.int.cmp le %33, %c10
            iree_codegen.smt.assert %95, "sg_num <= 10" : !smt.bool
            %96 = smt.int.cmp le %34, %c1024
            iree_codegen.smt.assert %96, "total_threads <= max_threads" : !smt.bool
            %c2 = smt.int.constant 2
            %c2_44 = smt.int.constant 2
            %97 = smt.int.mul %c2, %27, %35
            %98 = smt.int.mul %c2_44, %28, %35
            %99 = smt.int.add %97, %98
            %100 = smt.int.cmp le %99, %c101376
            iree_codegen.smt.assert %100, "shared memory must fit in workgroup memory" : !smt.bool
            %101 = smt.eq %17, %34 : !smt.int
            iree_codegen.smt.assert %101, "wg_size_x == total_threads" : !smt.bool
            %c1_45 = smt.int.constant 1
            %102 = smt.eq %18, %c1_45 : !smt.int
            iree_codegen.smt.assert %102, "wg_size_y == 1" : !smt.bool
            %c1_46 = smt.int.constant 1
            %103 = smt.eq %19, %c1_46 : !smt.int
            iree_codegen.smt.assert %103, "wg_size_z == 1" : !smt.bool
            %c2_47 = smt.int.constant 2
            %104 = smt.eq %20, %c2_47 : !smt.int
            iree_codegen.smt.assert %104, "prefetch_num_stages == 2 (use_igemm_convolution=false)" : !smt.bool
          }
          %c0_4 = arith.constant 0 : index
          %c32_5 = arith.constant 32 : index
          %c1_6 = arith.constant 1 : index
          %c32_7 = arith.constant 32 : index
          %c1_8 = arith.constant 1 : index
          %c32_9 = arith.constant 32 : index
          iree_codegen.smt.constraints target = <set = 0>, pipeline = #iree_gpu.pipeline<VectorDistribute>, 
           knobs = {gpu_pipeline_options = {no_reduce_shared_memory_bank_conflicts = false, prefetch_num_stages = #iree_codegen.smt.int_knob<"prefetch_num_stages">, use_igemm_convolution = false}, mma_kind = #iree_codegen.smt.one_of_knob<"mma_idx", [#iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>]>, promote_operands = [0, 1], promotion_types = [#iree_gpu.derived_thread_config, #iree_gpu.derived_thread_config], reduction = [0, 0, #iree_codegen.smt.int_knob<"red_2">], subgroup_basis = [[#iree_codegen.smt.int_knob<"sg_m_cnt">, #iree_codegen.smt.int_knob<"sg_n_cnt">, 1], [0, 1, 2]], subgroup_size = #iree_codegen.smt.int_knob<"sg_size">, workgroup = [#iree_codegen.smt.int_knob<"wg_0">, #iree_codegen.smt.int_knob<"wg_1">, 0], workgroup_size = [#iree_codegen.smt.int_knob<"wg_size_x">, #iree_codegen.smt.int_knob<"wg_size_y">, #iree_codegen.smt.int_knob<"wg_size_z">]}
           dims(%c32_5, %c32_7, %c32_9) {
          ^bb0(%arg0: !smt.int, %arg1: !smt.int, %arg2: !smt.int):
            %c32_10 = smt.int.constant 32
            %8 = smt.eq %arg0, %c32_10 : !smt.int
            iree_codegen.smt.assert %8, "dim_0 ({}) == 32", %arg0 : !smt.bool, !smt.int
            %c32_11 = smt.int.constant 32
            %9 = smt.eq %arg1, %c32_11 : !smt.int
            iree_codegen.smt.assert %9, "dim_1 ({}) == 32", %arg1 : !smt.bool, !smt.int
            %c32_12 = smt.int.constant 32
            %10 = smt.eq %arg2, %c32_12 : !smt.int
            iree_codegen.smt.assert %10, "dim_2 ({}) == 32", %arg2 : !smt.bool, !smt.int
            %c32_13 = smt.int.constant 32
            %c1024 = smt.int.constant 1024
            %c101376 = smt.int.constant 101376
            %c512 = smt.int.constant 512
            %11 = iree_codegen.smt.knob "wg_0" : !smt.int
            %12 = iree_codegen.smt.knob "wg_1" : !smt.int
            %13 = iree_codegen.smt.knob "red_2" : !smt.int
            %14 = iree_codegen.smt.knob "sg_m_cnt" : !smt.int
            %15 = iree_codegen.smt.knob "sg_n_cnt" : !smt.int
            %16 = iree_codegen.smt.knob "sg_size" : !smt.int
            %17 = iree_codegen.smt.knob "wg_size_x" : !smt.int
            %18 = iree_codegen.smt.knob "wg_size_y" : !smt.int
            %19 = iree_codegen.smt.knob "wg_size_z" : !smt.int
            %20 = iree_codegen.smt.knob "prefetch_num_stages" : !smt.int
            %21 = iree_codegen.smt.knob "mma_idx" : !smt.int
            %c0_14 = smt.int.constant 0
            %c0_15 = smt.int.constant 0
            %22 = smt.int.cmp ge %21, %c0_14
            iree_codegen.smt.assert %22, "mma_idx >= 0" : !smt.bool
            %23 = smt.int.cmp le %21, %c0_15
            iree_codegen.smt.assert %23, "mma_idx <= 0" : !smt.bool
            %24 = iree_codegen.smt.lookup %21 [0] -> [16] : !smt.int
            %25 = iree_codegen.smt.lookup %21 [0] -> [8] : !smt.int
            %26 = iree_codegen.smt.lookup %21 [0] -> [16] : !smt.int
            %27 = smt.int.mul %14, %15
            %28 = smt.int.mul %14, %24
            %29 = smt.int.div %11, %28
            %30 = smt.int.mul %15, %25
            %31 = smt.int.div %12, %30
            %32 = smt.int.div %13, %26
            %33 = smt.eq %16, %c32_13 : !smt.int
            iree_codegen.smt.assert %33, "sg_size == preferred_subgroup_size" : !smt.bool
            %c0_16 = smt.int.constant 0
            %34 = smt.int.mod %arg0, %11
            %35 = smt.eq %34, %c0_16 : !smt.int
            iree_codegen.smt.assert %35, "dim_0 must be divisible by wg_0 ({} % {} == 0)", %arg0, %11 : !smt.bool, !smt.int, !smt.int
            %c0_17 = smt.int.constant 0
            %36 = smt.int.mod %arg1, %12
            %37 = smt.eq %36, %c0_17 : !smt.int
            iree_codegen.smt.assert %37, "dim_1 must be divisible by wg_1 ({} % {} == 0)", %arg1, %12 : !smt.bool, !smt.int, !smt.int
            %c0_18 = smt.int.constant 0
            %38 = smt.int.mod %arg2, %13
            %39 = smt.eq %38, %c0_18 : !smt.int
            iree_codegen.smt.assert %39, "dim_2 must be divisible by red_2 ({} % {} == 0)", %arg2, %13 : !smt.bool, !smt.int, !smt.int
            %40 = smt.int.cmp ge %11, %24
            iree_codegen.smt.assert %40, "wg_0 >= mma_m" : !smt.bool
            %41 = smt.int.cmp le %11, %arg0
            iree_codegen.smt.assert %41, "wg_0 <= dim_0" : !smt.bool
            %42 = smt.int.cmp ge %12, %25
            iree_codegen.smt.assert %42, "wg_1 >= mma_n" : !smt.bool
            %43 = smt.int.cmp le %12, %arg1
            iree_codegen.smt.assert %43, "wg_1 <= dim_1" : !smt.bool
            %44 = smt.int.cmp ge %13, %26
            iree_codegen.smt.assert %44, "red_2 >= mma_k" : !smt.bool
            %45 = smt.int.cmp le %13, %arg2
            iree_codegen.smt.assert %45, "red_2 <= dim_2" : !smt.bool
            %46 = smt.int.cmp le %11, %c512
            iree_codegen.smt.assert %46, "wg_0 <= 512 (max VGPRs)" : !smt.bool
            %47 = smt.int.cmp le %12, %c512
            iree_codegen.smt.assert %47, "wg_1 <= 512 (max VGPRs)" : !smt.bool
            %48 = smt.int.cmp le %13, %c512
            iree_codegen.smt.assert %48, "red_2 <= 512 (max VGPRs)" : !smt.bool
            %c0_19 = smt.int.constant 0
            %49 = smt.int.mod %11, %24
            %50 = smt.eq %49, %c0_19 : !smt.int
            iree_codegen.smt.assert %50, "wg_0 must be divisible by mma_m ({} % {} == 0)", %11, %24 : !smt.bool, !smt.int, !smt.int
            %c0_20 = smt.int.constant 0
            %51 = smt.int.mod %12, %25
            %52 = smt.eq %51, %c0_20 : !smt.int
            iree_codegen.smt.assert %52, "wg_1 must be divisible by mma_n ({} % {} == 0)", %12, %25 : !smt.bool, !smt.int, !smt.int
            %c0_21 = smt.int.constant 0
            %53 = smt.int.mod %13, %26
            %54 = smt.eq %53, %c0_21 : !smt.int
            iree_codegen.smt.assert %54, "red_2 must be divisible by mma_k ({} % {} == 0)", %13, %26 : !smt.bool, !smt.int, !smt.int
            %55 = smt.int.mul %14, %24, %29
            %56 = smt.int.mul %15, %25, %31
            %57 = smt.int.mul %26, %32
            %c0_22 = smt.int.constant 0
            %58 = smt.int.mod %11, %55
            %59 = smt.eq %58, %c0_22 : !smt.int
            iree_codegen.smt.assert %59, "wg_0 must be divisible by (sg_m_cnt * mma_m * sg_m) ({} % {} == 0)", %11, %55 : !smt.bool, !smt.int, !smt.int
            %c0_23 = smt.int.constant 0
            %60 = smt.int.mod %12, %56
            %61 = smt.eq %60, %c0_23 : !smt.int
            iree_codegen.smt.assert %61, "wg_1 must be divisible by (sg_n_cnt * mma_n * sg_n) ({} % {} == 0)", %12, %56 : !smt.bool, !smt.int, !smt.int
            %c0_24 = smt.int.constant 0
            %62 = smt.int.mod %13, %57
            %63 = smt.eq %62, %c0_24 : !smt.int
            iree_codegen.smt.assert %63, "red_2 must be divisible by (mma_k * sg_k) ({} % {} == 0)", %13, %57 : !smt.bool, !smt.int, !smt.int
            %c1_25 = smt.int.constant 1
            %c32_26 = smt.int.constant 32
            %64 = smt.int.cmp ge %14, %c1_25
            iree_codegen.smt.assert %64, "sg_m_cnt >= 1" : !smt.bool
            %65 = smt.int.cmp le %14, %c32_26
            iree_codegen.smt.assert %65, "sg_m_cnt <= 32" : !smt.bool
            %66 = smt.int.cmp ge %15, %c1_25
            iree_codegen.smt.assert %66, "sg_n_cnt >= 1" : !smt.bool
            %67 = smt.int.cmp le %15, %c32_26
            iree_codegen.smt.assert %67, "sg_n_cnt <= 32" : !smt.bool
            %68 = smt.int.cmp ge %29, %c1_25
            iree_codegen.smt.assert %68, "sg_m >= 1" : !smt.bool
            %69 = smt.int.cmp le %29, %c32_26
            iree_codegen.smt.assert %69, "sg_m <= 32" : !smt.bool
            %70 = smt.int.cmp ge %31, %c1_25
            iree_codegen.smt.assert %70, "sg_n >= 1" : !smt.bool
            %71 = smt.int.cmp le %31, %c32_26
            iree_codegen.smt.assert %71, "sg_n <= 32" : !smt.bool
            %72 = smt.int.cmp ge %32, %c1_25
            iree_codegen.smt.assert %72, "sg_k >= 1" : !smt.bool
            %73 = smt.int.cmp le %32, %c32_26
            iree_codegen.smt.assert %73, "sg_k <= 32" : !smt.bool
            %74 = smt.int.mul %14, %15
            %75 = smt.eq %74, %27 : !smt.int
            iree_codegen.smt.assert %75, "sg_m_cnt * sg_n_cnt == sg_num" : !smt.bool
            %c1_27 = smt.int.constant 1
            %c10 = smt.int.constant 10
            %76 = smt.int.cmp ge %27, %c1_27
            iree_codegen.smt.assert %76, "sg_num >= 1" : !smt.bool
            %77 = smt.int.cmp le %27, %c10
            iree_codegen.smt.assert %77, "sg_num <= 10" : !smt.bool
            %78 = smt.int.mul %14, %15, %16
            %79 = smt.int.cmp le %78, %c1024
            iree_codegen.smt.assert %79, "total_threads <= max_threads" : !smt.bool
            %80 = smt.int.mul %13, %11
            %81 = smt.int.mul %14, %15, %16
            %c0_28 = smt.int.constant 0
            %82 = smt.int.mod %80, %81
            %83 = smt.eq %82, %c0_28 : !smt.int
            iree_codegen.smt.assert %83, "lhs_tile_elements must be divisible by thread_count ({} % {} == 0)", %80, %81 : !smt.bool, !smt.int, !smt.int
            %84 = smt.int.mul %13, %12
            %85 = smt.int.mul %14, %15, %16
            %c0_29 = smt.int.constant 0
            %86 = smt.int.mod %84, %85
            %87 = smt.eq %86, %c0_29 : !smt.int
            iree_codegen.smt.assert %87, "rhs_tile_elements must be divisible by thread_count ({} % {} == 0)", %84, %85 : !smt.bool, !smt.int, !smt.int
            %c2 = smt.int.constant 2
            %c2_30 = smt.int.constant 2
            %88 = smt.int.mul %c2, %11, %13
            %89 = smt.int.mul %c2_30, %12, %13
            %90 = smt.int.add %88, %89
            %91 = smt.int.cmp le %90, %c101376
            iree_codegen.smt.assert %91, "shared memory must fit in workgroup memory" : !smt.bool
            %92 = smt.eq %17, %78 : !smt.int
            iree_codegen.smt.assert %92, "wg_size_x == total_threads" : !smt.bool
            %c1_31 = smt.int.constant 1
            %93 = smt.eq %18, %c1_31 : !smt.int
            iree_codegen.smt.assert %93, "wg_size_y == 1" : !smt.bool
            %c1_32 = smt.int.constant 1
            %94 = smt.eq %19, %c1_32 : !smt.int
            iree_codegen.smt.assert %94, "wg_size_z == 1" : !smt.bool
            %95 = smt.int.cmp le %17, %11
            %96 = smt.int.cmp le %17, %12
            %97 = smt.or %95, %96
            iree_codegen.smt.assert %97, "wg_size_x <= wg_m OR wg_size_x <= wg_n" : !smt.bool
            %c0_33 = smt.int.constant 0
            %98 = smt.int.mod %13, %24
            %99 = smt.eq %98, %c0_33 : !smt.int
            iree_codegen.smt.assert %99, "red_2 must be divisible by mma_m ({} % {} == 0)", %13, %24 : !smt.bool, !smt.int, !smt.int
            %c2_34 = smt.int.constant 2
            %100 = smt.eq %20, %c2_34 : !smt.int
            iree_codegen.smt.assert %100, "prefetch_num_stages == 2" : !smt.bool
          }
          iree_codegen.store_to_buffer %7, %2 : tensor<32x32xf32> into memref<32x32xf32, #hal.descriptor_type<storage_buffer>>
          return
        }
        iree_codegen.dispatch_config @main_dispatch_0_matmul_32x32x32_f16xf16xf32 {
        ^bb0(%arg0: !hal.device):
          %x, %y, %z = iree_tensor_ext.dispatch.workgroup_count_from_slice()
          iree_codegen.yield %x, %y, %z : index, index, index
        }
      }
    }
  }
  util.global private mutable @main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer
  util.initializer {
    %device, %queue_affinity = hal.device.resolve on(#hal.device.affinity<@__device_0>) : !hal.device, i64
    %allocator = hal.device.allocator<%device : !hal.device> : !hal.allocator
    %memory_type = hal.memory_type<"DeviceVisible|DeviceLocal"> : i32
    %buffer_usage = hal.buffer_usage<"TransferSource|TransferTarget|Transfer|DispatchStorageRead|DispatchStorageWrite|DispatchStorage"> : i32
    %c8192 = arith.constant 8192 : index
    %buffer = hal.allocator.allocate<%allocator : !hal.allocator> affinity(%queue_affinity) type(%memory_type) usage(%buffer_usage) : !hal.buffer{%c8192}
    util.global.store %buffer, @main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer
    util.return
  }
  util.func public @main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32(%arg0: i32) attributes {iree.abi.stub, iree.reflection = {iree.benchmark = "dispatch"}} {
    %0 = arith.index_cast %arg0 : i32 to index
    %device, %queue_affinity = hal.device.resolve on(#hal.device.affinity<@__device_0>) : !hal.device, i64
    %cmd = hal.command_buffer.create device(%device : !hal.device) mode("OneShot|AllowInlineExecution") categories(Dispatch) affinity(%queue_affinity) : !hal.command_buffer
    %main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer = util.global.load @main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer
    %c0 = arith.constant 0 : index
    %c2048 = arith.constant 2048 : index
    %c4096 = arith.constant 4096 : index
    %workgroup_x, %workgroup_y, %workgroup_z = hal.executable.calculate_workgroups device(%device : !hal.device) target(@main_dispatch_0::@cuda_nvptx_fb::@main_dispatch_0_matmul_32x32x32_f16xf16xf32) : index, index, index
    %exe = hal.executable.lookup device(%device : !hal.device) executable(@main_dispatch_0) : !hal.executable
    %function_id = hal.executable.lookup.function target(%exe : !hal.executable) function(@main_dispatch_0::@cuda_nvptx_fb::@main_dispatch_0_matmul_32x32x32_f16xf16xf32) : i64
    %c1 = arith.constant 1 : index
    scf.for %arg1 = %c0 to %0 step %c1 {
      hal.command_buffer.dispatch<%cmd : !hal.command_buffer> target(%exe : !hal.executable)[%function_id] workgroups([%workgroup_x, %workgroup_y, %workgroup_z]) bindings([
        (%main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer)[%c0, %c2048], 
        (%main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer)[%c2048, %c2048], 
        (%main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer)[%c4096, %c4096]
      ]) flags("None")
      hal.command_buffer.execution_barrier<%cmd : !hal.command_buffer> source("Dispatch|CommandRetire") target("CommandIssue|Dispatch") flags("None")
    }
    hal.command_buffer.finalize<%cmd : !hal.command_buffer>
    %1 = util.null : !hal.fence
    %fence = hal.fence.create device(%device : !hal.device) flags("None") : !hal.fence
    hal.device.queue.execute<%device : !hal.device> affinity(%queue_affinity) wait(%1) signal(%fence) commands(%cmd) flags("None")
    %c-1_i32 = arith.constant -1 : i32
    %status = hal.fence.await until([%fence]) timeout_millis(%c-1_i32) flags("None") : i32
    util.status.check_ok %status, "failed to wait on timepoint"
    util.return
  }
  util.func public @shark_tune_buffer() -> !hal.buffer_view attributes {iree.abi.stub} {
    %main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer = util.global.load @main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer
    %c0 = arith.constant 0 : index
    %c8192 = arith.constant 8192 : index
    %element_type_i8 = hal.element_type<i8> : i32
    %dense_row_major = hal.encoding_type<dense_row_major> : i32
    %view = hal.buffer_view.create buffer(%main_dispatch_0_cuda_nvptx_fb_main_dispatch_0_matmul_32x32x32_f16xf16xf32_buffer : !hal.buffer)[%c0, %c8192] shape([%c8192]) type(%element_type_i8) encoding(%dense_row_major) : !hal.buffer_view
    util.return %view : !hal.buffer_view
  }
}