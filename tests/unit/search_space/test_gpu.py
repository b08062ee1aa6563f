from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import pytest
import z3

from pytest_shark_tune.dispatch.types import Intrinsic, RootOp, TargetFacts, Tensor
from pytest_shark_tune.search_space import NoSpace, SearchSpace, spaces_for
from pytest_shark_tune.search_space.candidate import NotInSpace, make_candidates
from pytest_shark_tune.search_space.gpu.tiling import tile_sizes
from tests.factories import matmul_root

NV_MMA = Intrinsic(
    attribute="#iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>", shape=(16, 8, 16), elements=("f16", "f16", "f32")
)
NV_WMMA = Intrinsic(
    attribute="#iree_gpu.mma_layout<NV_WMMA_F32_16x16x16_F16>", shape=(16, 16, 16), elements=("f16", "f16", "f32")
)
WMMA = Intrinsic(
    attribute="#iree_gpu.mma_layout<WMMAR3_F32_16x16x16_F16>", shape=(16, 16, 16), elements=("f16", "f16", "f32")
)
CUDA = TargetFacts(
    backend="cuda",
    subgroup_sizes=(32,),
    max_workgroup_sizes=(1024, 1024, 1024),
    max_threads=1024,
    shared_memory_bytes=101376,
    intrinsics=(NV_MMA, NV_WMMA),
)
RDNA3 = msgspec.structs.replace(
    CUDA, backend="vulkan-spirv", subgroup_sizes=(32, 64), shared_memory_bytes=65536, intrinsics=(WMMA,)
)
ANDROID = TargetFacts(
    backend="vulkan-spirv",
    subgroup_sizes=(64,),
    max_workgroup_sizes=(128, 128, 64),
    max_threads=128,
    shared_memory_bytes=16384,
)


def matmul(m: int, n: int, k: int, element: str = "f32") -> RootOp:
    return matmul_root(m, n, k, element, op="linalg.generic")


_CONVOLUTION = """
func.func @pattern(%a: tensor<{h}x{w}x{c}xf32>, %b: tensor<3x3x{c}x{f}xf32>, %o: tensor<{oh}x{ow}x{f}xf32>) {{
  %0 = linalg.generic {{
    indexing_maps = [
      affine_map<(d0, d1, d2, d3, d4, d5) -> (d0 + d3, d1 + d4, d5)>,
      affine_map<(d0, d1, d2, d3, d4, d5) -> (d3, d4, d5, d2)>,
      affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1, d2)>],
    iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction", "reduction"]
  }} ins(%a, %b : tensor<{h}x{w}x{c}xf32>, tensor<3x3x{c}x{f}xf32>) outs(%o : tensor<{oh}x{ow}x{f}xf32>) {{
  ^bb0(%x: f32, %y: f32, %z: f32):
    %p = arith.mulf %x, %y : f32
    %s = arith.addf %z, %p : f32
    linalg.yield %s : f32
  }} -> tensor<{oh}x{ow}x{f}xf32>
  return
}}
"""


def convolution(height: int, width: int, channels: int, filters: int) -> RootOp:
    h, w = height + 2, width + 2
    return RootOp(
        op="linalg.generic",
        kind="convolution",
        loops=(height, width, filters, 3, 3, channels),
        iterators=("parallel",) * 3 + ("reduction",) * 3,
        maps=(
            "affine_map<(d0, d1, d2, d3, d4, d5) -> (d0 + d3, d1 + d4, d5)>",
            "affine_map<(d0, d1, d2, d3, d4, d5) -> (d3, d4, d5, d2)>",
            "affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1, d2)>",
        ),
        inputs=(Tensor((h, w, channels), "f32"), Tensor((3, 3, channels, filters), "f32")),
        outputs=(Tensor((height, width, filters), "f32"),),
        output_image=(0, 1),
        output_channel=(2,),
        filter_loop=(3, 4),
        input_channel=(5,),
        pattern=_CONVOLUTION.format(h=h, w=w, c=channels, f=filters, oh=height, ow=width),
    )


def attention(batch: int, queries: int, keys: int, head: int, element: str) -> RootOp:
    return RootOp(
        op="iree_linalg_ext.online_attention",
        kind="attention",
        loops=(batch, queries, head, head, keys),
        iterators=("parallel",) * 3 + ("reduction",) * 2,
        maps=(),
        inputs=(
            Tensor((batch, queries, head), element),
            Tensor((batch, keys, head), element),
            Tensor((batch, keys, head), element),
            Tensor((), element),
        ),
        outputs=(Tensor((batch, queries, head), "f32"),),
        batch=(0,),
        m=(1,),
        n=(2,),
        k1=(3,),
        k2=(4,),
    )


def sums(rows: int, columns: int, element: str = "f32") -> RootOp:
    """The root op of the sums of rows."""
    return RootOp(
        op="linalg.generic",
        kind="other",
        loops=(rows, columns),
        iterators=("parallel", "reduction"),
        maps=("affine_map<(d0, d1) -> (d0, d1)>", "affine_map<(d0, d1) -> (d0)>"),
        inputs=(Tensor((rows, columns), element),),
        outputs=(Tensor((rows,), element),),
    )


def transpose(rows: int, columns: int, element: str = "f16") -> RootOp:
    return RootOp(
        op="linalg.generic",
        kind="other",
        loops=(rows, columns),
        iterators=("parallel", "parallel"),
        maps=("affine_map<(d0, d1) -> (d0, d1)>", "affine_map<(d0, d1) -> (d1, d0)>"),
        inputs=(Tensor((rows, columns), element),),
        outputs=(Tensor((columns, rows), element),),
    )


def space_of(root: RootOp, target: TargetFacts, pipeline: str = "") -> SearchSpace:
    return next(space for space in spaces_for(root, target) if pipeline in ("", space.pipeline))


CHOSEN = [
    pytest.param(
        matmul(512, 512, 512),
        CUDA,
        "TileAndFuse",
        {"wg_0": 32, "wg_1": 128, "thr_0": 1, "thr_1": 16, "red_2": 32, "promote": 0, "wg_size_x": 256},
        id="simt",
    ),
    pytest.param(
        matmul(512, 512, 512),
        ANDROID,
        "BaseVectorize",
        {"wg_0": 16, "wg_1": 256, "thr_0": 8, "thr_1": 8, "red_2": 4, "wg_size_x": 32, "wg_size_y": 2},
        id="vectors",
    ),
    pytest.param(
        matmul(512, 512, 512),
        RDNA3,
        "MatmulPromoteVectorize",
        {"wg_0": 64, "wg_1": 64, "red_2": 16, "depth": 2, "wg_size_x": 16, "wg_size_y": 8},
        id="shared memory",
    ),
    pytest.param(
        matmul(2048, 10240, 1280, "f16"),
        RDNA3,
        "CooperativeMatrixVectorize",
        {"wg_0": 64, "wg_1": 128, "sg_0": 32, "sg_1": 64, "red_2": 32, "wg_size_x": 64, "wg_size_y": 2},
        id="cooperative matrices",
    ),
    pytest.param(
        convolution(32, 32, 64, 96),
        ANDROID,
        "BaseDistribute",
        {"wg_0": 1, "wg_1": 2, "wg_2": 32, "thr_0": 1, "thr_1": 1, "thr_2": 1}
        | {"wg_size_x": 32, "wg_size_y": 2, "wg_size_z": 1},
        id="convolution",
    ),
    pytest.param(
        attention(20, 1024, 1024, 64, "f16"),
        CUDA,
        "VectorDistribute",
        {"m_tile": 64, "n_tile": 32, "red_k2": 64, "sg_m_cnt": 4, "wg_size_x": 128},
        id="attention",
    ),
    pytest.param(
        sums(512, 1024),
        CUDA,
        "VectorDistribute",
        {"wg_0": 1, "thr_1": 4, "lanes": 32, "sg_cnt": 4, "red_1": 512, "wg_size_x": 128},
        id="reduction",
    ),
    pytest.param(
        transpose(1024, 2048),
        CUDA,
        "TileAndFuse",
        {"wg_0": 32, "wg_1": 32, "thr_0": 1, "thr_1": 4, "promote": 2, "wg_size_x": 256},
        id="transpose",
    ),
    pytest.param(
        attention(20, 1024, 1024, 64, "f16"),
        msgspec.structs.replace(CUDA, intrinsics=(), shared_memory_bytes=49152),
        "VectorDistribute",
        {"lanes_k2": 32, "lanes_n": 1, "sg_k2_cnt": 8, "red_k2": 256, "thr_k1": 8, "thr_n": 8}
        | {"n_tile": 16, "wg_size_x": 256},
        id="attention by lanes",
    ),
]


@pytest.mark.parametrize(("root", "target", "pipeline", "knobs"), CHOSEN)
def test_what_the_compiler_chooses_is_a_member(
    root: RootOp, target: TargetFacts, pipeline: str, knobs: dict[str, int]
) -> None:
    assert space_of(root, target, pipeline).violated(knobs) == ()


SMALL = [
    pytest.param(matmul(64, 16, 5), CUDA, id="simt"),
    pytest.param(convolution(4, 4, 3, 8), CUDA, id="convolutions"),
    pytest.param(matmul(16, 8, 8), ANDROID, id="spirv"),
    pytest.param(attention(2, 32, 32, 16, "f16"), CUDA, id="attention"),
    pytest.param(sums(24, 96), CUDA, id="reduction"),
    pytest.param(transpose(24, 40), CUDA, id="transpose"),
    pytest.param(matmul(33, 48, 40, "f16"), CUDA, id="padded matrix instructions"),
    pytest.param(attention(2, 5, 6, 4, "f32"), CUDA, id="attention by lanes"),
]


def solutions(space: SearchSpace) -> Iterator[tuple[int, ...]]:
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(space.smtlib()))
    while solver.check() == z3.sat:
        model = solver.model()
        values = tuple(model.eval(z3.Int(name), model_completion=True).as_long() for name in space.names)
        yield values
        solver.add(z3.Or(*(z3.Int(name) != value for name, value in zip(space.names, values, strict=True))))


@pytest.mark.parametrize(("root", "target"), SMALL)
def test_enumeration_equals_what_z3_finds(root: RootOp, target: TargetFacts) -> None:
    for space in spaces_for(root, target):
        if len(space) <= 120:
            assert {tuple(row) for row in space.members().tolist()} == set(solutions(space))
        else:
            solver = z3.Solver()
            solver.add(z3.parse_smt2_string(space.smtlib()))
            for knobs in space.sample(20, 0):
                assert solver.check(*(z3.Int(name) == value for name, value in knobs.items())) == z3.sat


def test_simt_tiles_keep_to_the_targets_limits() -> None:
    space = space_of(matmul(512, 512, 512), CUDA)
    assert 5_000 < len(space) < 50_000
    for knobs in space.sample(2_000, 0):
        threads = knobs["wg_0"] // knobs["thr_0"] * (knobs["wg_1"] // knobs["thr_1"])
        assert knobs["wg_size_x"] == threads <= 1024
        assert threads % 32 == 0
        assert 4 <= knobs["thr_0"] * knobs["thr_1"] <= 64
        if knobs["promote"]:
            assert (knobs["wg_0"] + knobs["wg_1"]) * knobs["red_2"] * 4 <= 101376


def test_padding_is_the_tile_of_each_dimension() -> None:
    root = matmul(33, 48, 40, "f16")
    space = space_of(root, CUDA, "TileAndFuse")
    for knobs in space.sample(10, 0):
        assert knobs["pad_2"] == 16 * knobs["red_2"]
        (made,) = make_candidates("mm", root, space, [knobs])
        assert f"padding = [{knobs['wg_0']}, {knobs['wg_1']}, {knobs['pad_2']}]" in made.config
    assert "padding" not in space_of(matmul(64, 48, 32, "f16"), CUDA, "TileAndFuse").knob_dictionary


def test_a_reduction_that_is_no_multiple_of_a_subgroup_leaves_threads_idle() -> None:
    for knobs in space_of(sums(24, 100), CUDA):
        assert knobs["sg_cnt"] == 1
        assert 100 % knobs["red_1"] == 0


def test_padded_tiles_go_through_shared_memory() -> None:
    space = space_of(matmul(127, 131, 61), msgspec.structs.replace(CUDA, shared_memory_bytes=16384))
    for knobs in space:
        wg_0, wg_1, red = knobs["wg_0"], knobs["wg_1"], knobs["red_2"]
        assert ((wg_0 + wg_1) * red + wg_0 * wg_1) * 4 <= 16384


def test_a_limit_is_told_in_words() -> None:
    space = space_of(matmul(512, 512, 512), ANDROID, "BaseVectorize")
    knobs = {"wg_0": 64, "wg_1": 64, "thr_0": 2, "thr_1": 4, "red_2": 4, "wg_size_x": 16, "wg_size_y": 32}
    assert space.violated(knobs) == ("the threads of a workgroup (512) must be at most 128",)
    assert "wg_0 (6) must be a multiple of thr_0 (4)" in space.violated(knobs | {"wg_0": 6, "thr_0": 4})


def test_little_to_compute_leaves_no_limits_made_for_speed() -> None:
    space = space_of(matmul(2, 3, 5), CUDA)
    assert len(space) > 0
    assert all(knobs["wg_size_x"] < 32 for knobs in space)


def test_a_convolution_is_tried_as_a_product_and_direct() -> None:
    product, direct = spaces_for(convolution(32, 32, 64, 96), CUDA)
    assert product.pipeline == direct.pipeline == "TileAndFuse"
    assert "use_igemm_convolution = true" in product.knob_dictionary
    assert "use_igemm_convolution" not in direct.knob_dictionary
    assert {"red_3"} == {name for name in product.names if name.startswith("red")}
    assert {"red_3", "red_4", "red_5"} == {name for name in direct.names if name.startswith("red")}


def test_ids_of_several_spaces_are_kept_apart() -> None:
    root = matmul(512, 512, 512)
    space = space_of(root, CUDA)
    sets = space.sample(50, 0)
    (alone,) = make_candidates("mm", root, space, sets[:1])
    (again,) = make_candidates("mm", root, space, sets[:1], taken={alone.id})
    assert again.id.startswith(alone.id)
    assert len(again.id) == len(alone.id) + 1
    with pytest.raises(NotInSpace, match="twice"):
        make_candidates("mm", root, space, [sets[0], sets[0]])


def test_matrix_instructions_make_attention_only_where_they_fit() -> None:
    assert "mma_kind" in space_of(attention(20, 1024, 1024, 64, "f16"), CUDA).knob_dictionary
    assert "NV_WMMA" not in space_of(attention(20, 1024, 1024, 64, "f16"), CUDA).knob_dictionary
    for root in (attention(3, 77, 77, 40, "f16"), attention(4, 128, 256, 64, "f32")):
        assert "mma_kind" not in space_of(root, CUDA).knob_dictionary


def test_a_candidate_of_spirv_carries_levels_sizes_and_options() -> None:
    root = matmul(512, 512, 512)
    space = space_of(root, RDNA3, "MatmulPromoteVectorize")
    knobs = {"wg_0": 64, "wg_1": 64, "red_2": 16, "depth": 2, "wg_size_x": 16, "wg_size_y": 8}
    (made,) = make_candidates("mm", root, space, [knobs])
    assert made.config == "#iree_codegen.lowering_config<tile_sizes = [[64, 64, 16]]>"
    assert made.compilation_info.endswith(
        "translation_info = <pipeline = #iree_gpu.spirv_pipeline<MatmulPromoteVectorize> workgroup_size = [16, 8, 1], "
        "{pipeline_depth = 2 : i64, store_stage = 0 : i64}>>"
    )


def test_a_candidate_of_attention_carries_both_products() -> None:
    root = attention(20, 1024, 1024, 64, "f16")
    knobs = {"m_tile": 64, "n_tile": 32, "red_k2": 64, "sg_m_cnt": 4, "wg_size_x": 128}
    (made,) = make_candidates("attention", root, space_of(root, CUDA), [knobs])
    assert "decomposition_config = {pv_attrs = {lowering_config = #iree_gpu.lowering_config<{" in made.config
    assert made.config.count("mma_kind = #iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>") == 2
    assert "subgroup_basis = [[1, 4, 1, 1, 1], [0, 1, 3, 4]]" in made.config
    assert "reduction = [0, 0, 0, 0, 64], workgroup = [1, 64, 32, 0, 0]" in made.config


@pytest.mark.parametrize(
    ("root", "target", "message"),
    [
        (matmul(64, 64, 64, "f64"), CUDA, "elements of type f64"),
        (attention(1, 64, 64, 64, "f64"), CUDA, "elements of type f64"),
        (attention(1, 64, 64, 64, "f16"), ANDROID, "no search space covers"),
        (matmul(64, 0, 64), RDNA3, "size zero"),
    ],
)
def test_what_is_not_covered_is_told(root: RootOp, target: TargetFacts, message: str) -> None:
    with pytest.raises(NoSpace, match=message):
        spaces_for(root, target)


@pytest.mark.parametrize(
    ("size", "largest", "tiles"),
    [
        (1, 256, (1,)),
        (5, 256, (1, 2, 3, 6)),
        (7, 4, (1, 2, 4)),
        (64, 64, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)),
        (13, 256, (1, 2, 3, 4, 8, 16)),
    ],
)
def test_tiles_leave_little_idle(size: int, largest: int, tiles: tuple[int, ...]) -> None:
    found = tile_sizes(size, largest)
    assert found == tiles
    assert all(math.ceil(size / tile) * tile - size <= max(size // 4, 1) for tile in found)
