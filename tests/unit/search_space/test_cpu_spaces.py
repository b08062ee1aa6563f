from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest
import z3

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts, Tensor
from pytest_shark_tune.search_space import NoSpace, SearchSpace, spaces_for
from pytest_shark_tune.search_space.candidate import make_candidates

TARGET = TargetFacts(backend="llvm-cpu", architecture="x86_64", native_vector_bytes=64, processors=2)
PARALLEL, REDUCTION = "parallel", "reduction"


def maps(dims: str, *results: str) -> tuple[str, ...]:
    return tuple(f"affine_map<({dims}) -> ({result})>" for result in results)


def convolution(*, h: int = 8, w: int = 16, f: int = 32, c: int = 16, window: int = 3, element: str = "f32") -> RootOp:
    """A conv_2d_nhwc_hwcf."""
    return RootOp(
        op="linalg.generic",
        kind="convolution",
        loops=(1, h, w, f, window, window, c),
        iterators=(PARALLEL,) * 4 + (REDUCTION,) * 3,
        maps=maps("n, h, w, f, y, x, c", "n, h + y, w + x, c", "y, x, c, f", "n, h, w, f"),
        inputs=(
            Tensor((1, h + window - 1, w + window - 1, c), element),
            Tensor((window, window, c, f), element),
        ),
        outputs=(Tensor((1, h, w, f), element),),
        batch=(0,),
        output_image=(1, 2),
        output_channel=(3,),
        filter_loop=(4, 5),
        input_channel=(6,),
        strides=(1, 1),
        dilations=(1, 1),
    )


def filters_first() -> RootOp:
    """A conv_2d_nhwc_fhwc, which the compiler does not decompose."""
    given = convolution()
    return msgspec.structs.replace(
        given,
        maps=maps("n, h, w, f, y, x, c", "n, h + y, w + x, c", "f, y, x, c", "n, h, w, f"),
        inputs=(given.inputs[0], Tensor((32, 3, 3, 16), "f32")),
    )


def channels_first(*, h: int = 24, w: int = 32, stride: int = 1, window: int = 3) -> RootOp:
    """A depthwise_conv_2d_nchw_chw, as iree-compile generalizes it; ``stride`` is that of rows."""
    return RootOp(
        op="linalg.generic",
        kind="convolution",
        loops=(1, h, w, 8, window, window),
        iterators=(PARALLEL,) * 4 + (REDUCTION,) * 2,
        maps=maps("n, h, w, d, y, x", f"n, d, h * {stride} + y, w + x", "d, y, x", "n, d, h, w"),
        inputs=(Tensor((1, 8, (h - 1) * stride + window, w + window - 1), "f32"), Tensor((8, window, window), "f32")),
        outputs=(Tensor((1, 8, h, w), "f32"),),
        batch=(0,),
        output_image=(1, 2),
        filter_loop=(4, 5),
        depth=(3,),
        strides=(stride, 1),
        dilations=(1, 1),
    )


def one_dimensional() -> RootOp:
    return RootOp(
        op="linalg.generic",
        kind="convolution",
        loops=(1, 24, 32, 3, 16),
        iterators=(PARALLEL,) * 3 + (REDUCTION,) * 2,
        maps=maps("n, w, f, x, c", "n, w * 2 + x, c", "x, c, f", "n, w, f"),
        inputs=(Tensor((1, 49, 16), "f32"), Tensor((3, 16, 32), "f32")),
        outputs=(Tensor((1, 24, 32), "f32"),),
        batch=(0,),
        output_image=(1,),
        output_channel=(2,),
        filter_loop=(3,),
        input_channel=(4,),
        strides=(2,),
        dilations=(1,),
    )


def pooling() -> RootOp:
    """A pooling_nchw_max: a channel is a batch to it."""
    return RootOp(
        op="linalg.generic",
        kind="pooling",
        loops=(1, 16, 16, 16, 3, 3),
        iterators=(PARALLEL,) * 4 + (REDUCTION,) * 2,
        maps=maps("n, c, h, w, y, x", "n, c, h + y, w + x", "y, x", "n, c, h, w"),
        inputs=(Tensor((1, 16, 18, 18), "f32"), Tensor((3, 3), "f32")),
        outputs=(Tensor((1, 16, 16, 16), "f32"),),
        batch=(0, 1),
        output_image=(2, 3),
        filter_loop=(4, 5),
        strides=(1, 1),
        dilations=(1, 1),
    )


def attention(*, k1: int = 32, element: str = "f16", mask: str = "") -> RootOp:
    """Online attention of 2 heads, 24 queries and 40 keys, with a mask of these elements if one is named."""
    root = RootOp(
        op="iree_linalg_ext.online_attention",
        kind="attention",
        loops=(2, 24, 32, k1, 40),
        iterators=(PARALLEL,) * 3 + (REDUCTION,) * 2,
        maps=maps("b, m, n, k, l", "b, m, k", "b, l, k", "b, l, n", "", "b, m, n", "b, m", "b, m"),
        inputs=(
            Tensor((2, 24, k1), element),
            Tensor((2, 40, k1), element),
            Tensor((2, 40, 32), element),
            Tensor((), element),
        ),
        outputs=(Tensor((2, 24, 32), "f32"), Tensor((2, 24), "f32"), Tensor((2, 24), "f32")),
        batch=(0,),
        m=(1,),
        n=(2,),
        k1=(3,),
        k2=(4,),
    )
    if not mask:
        return root
    masked = (*root.inputs, Tensor((2, 24, 40), mask))
    (mask_map,) = maps("b, m, n, k, l", "b, m, l")
    return msgspec.structs.replace(root, inputs=masked, maps=(*root.maps[:4], mask_map, *root.maps[4:]))


def generic(sizes: Mapping[str, int], iterators: Sequence[str], *operands: str) -> RootOp:
    """A linalg.generic; the last of ``operands`` is its result, each written as the loops that index it."""
    tensors = tuple(Tensor(tuple(sizes[name] for name in operand.split(", ")), "f32") for operand in operands)
    return RootOp(
        op="linalg.generic",
        kind="other",
        loops=tuple(sizes.values()),
        iterators=tuple(iterators),
        maps=maps(", ".join(sizes), *operands),
        inputs=tensors[:-1],
        outputs=tensors[-1:],
    )


def packed(m: int, n: int, k: int, tile: tuple[int, int, int] = (16, 16, 1), *, element: str = "f32") -> RootOp:
    """A linalg.mmt4d of ``m`` x ``k`` by ``k`` x ``n`` packed tiles."""
    return RootOp(
        op="linalg.mmt4d",
        kind="contraction",
        loops=(m, n, k, *tile),
        iterators=(PARALLEL, PARALLEL, REDUCTION) * 2,
        maps=maps("m, n, k, r, c, d", "m, k, r, d", "n, k, c, d", "m, n, r, c"),
        inputs=(Tensor((m, k, tile[0], tile[2]), element), Tensor((n, k, tile[1], tile[2]), element)),
        outputs=(Tensor((m, n, tile[0], tile[1]), "i32" if element == "i8" else "f32"),),
        m=(0, 3),
        n=(1, 4),
        k=(2, 5),
    )


ROW_SUM = generic({"i": 96, "j": 200}, (PARALLEL, REDUCTION), "i, j", "i")
COLUMN_SUM = generic({"i": 200, "j": 96}, (PARALLEL, REDUCTION), "j, i", "i")
TRANSPOSE = generic({"i": 48, "j": 40}, (PARALLEL, PARALLEL), "j, i", "i, j")
ROOTS = {
    "convolution": convolution(h=4, w=8, c=4),
    "filters_first": msgspec.structs.replace(filters_first(), loops=(1, 2, 4, 8, 3, 3, 8)),
    "one_dimensional": one_dimensional(),
    "pooling": pooling(),
    "attention": attention(),
    "row_sum": ROW_SUM,
    "column_sum": COLUMN_SUM,
    "transpose": TRANSPOSE,
    "packed": packed(6, 10, 7, (8, 16, 1)),
}


def only(root: RootOp) -> SearchSpace:
    (space,) = spaces_for(root, TARGET)
    return space


def count_with_z3(space: SearchSpace, most: int) -> int:
    solver = z3.Solver()
    solver.from_string(space.smtlib())
    knobs = [z3.Int(name) for name in space.names]
    found = 0
    while found <= most and solver.check() == z3.sat:
        model = solver.model()
        values = [model[knob].as_long() for knob in knobs]
        assert dict(zip(space.names, values, strict=True)) in space
        solver.add(z3.Or(*(knob != value for knob, value in zip(knobs, values, strict=True))))
        found += 1
    return found


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_enumeration_is_what_z3_finds(root: RootOp) -> None:
    (space,) = spaces_for(root, msgspec.structs.replace(TARGET, native_vector_bytes=16, processors=1))
    # All but three knobs are fixed, as z3 takes milliseconds for each solution.
    fixed = dict(space.sample(1, 0)[0])
    free = set(space.names[-3:])
    members = [knobs for knobs in space if all(knobs[name] == fixed[name] for name in space.names if name not in free)]
    slice_of_it = msgspec.structs.replace(
        space,
        knobs=tuple(
            knob if knob.name in free else msgspec.structs.replace(knob, domain=(fixed[knob.name],))
            for knob in space.knobs
        ),
    )
    assert count_with_z3(slice_of_it, len(members)) == len(members)


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_members_become_configs_with_distribution(root: RootOp) -> None:
    space = only(root)
    for candidate in make_candidates("dispatch", root, space, space.sample(5, 1)):
        assert candidate.config.startswith("#iree_cpu.lowering_config<distribution = [")
        assert f"#iree_cpu.pipeline<{space.pipeline}>" in candidate.compilation_info


@pytest.mark.parametrize(
    ("root", "pipeline"),
    [
        (convolution(), "ConvTileAndDecomposeExpert"),
        (pooling(), "ConvTileAndDecomposeExpert"),
        (filters_first(), "DoubleTilingExpert"),
        (channels_first(), "RegisterTiling"),
        (channels_first(w=34), "PeeledRegisterTiling"),
        (one_dimensional(), "DoubleTilingExpert"),
        (attention(), "LinalgExtTileAndVectorize"),
        (ROW_SUM, "DoubleTilingExpert"),
        (packed(4, 4, 8), "Mmt4dTilingExpert"),
    ],
)
def test_the_pipeline_is_the_compilers(root: RootOp, pipeline: str) -> None:
    assert only(root).pipeline == pipeline


def test_a_decomposed_convolution_keeps_one_image_dimension_at_one() -> None:
    root = convolution(c=4)
    space = only(root)
    assert {"vec_4", "vec_5"} <= set(space.names)
    for knobs in space:
        assert knobs["vec_1"] == knobs["vec_4"] == 1 or knobs["vec_2"] == knobs["vec_5"] == 1
    member = next(knobs for knobs in space if knobs["vec_2"] > 1)
    (reason, *_) = space.violated(member | {"vec_1": 2})
    assert "must both be 1, or the convolution is not vectorized" in reason


def test_results_in_registers_lie_along_a_row() -> None:
    space = only(channels_first())
    assert set(space.names) == {"dist_1", "dist_2", "dist_3", "vec_1", "vec_2"}
    assert {knobs["vec_2"] for knobs in space} == {8, 16, 32}
    for knobs in space:
        assert 32 % knobs["dist_2"] == knobs["dist_2"] % knobs["vec_2"] == 0
        assert 32 <= knobs["vec_1"] * knobs["vec_2"] <= 32 * 16
    (reason, *_) = space.violated({"dist_1": 24, "dist_2": 32, "dist_3": 8, "vec_1": 1, "vec_2": 16})
    assert "the product of the parallel vector tiles (16) must be at least 32" in reason


def test_rows_that_no_vector_length_divides_are_peeled_and_whole_in_a_workgroup() -> None:
    space = only(channels_first(w=38))
    assert set(space.names) == {"dist_1", "dist_3", "vec_1", "vec_2"}
    assert {knobs["vec_2"] for knobs in space} == {8, 16, 32}
    (made, *_) = make_candidates("dispatch", channels_first(w=38), space, space.sample(1, 0))
    assert ", 38, " in made.config
    assert "iree-llvmcpu-peel,canonicalize,cse," in made.compilation_info


def test_rows_that_are_read_with_a_stride_are_taken_singly() -> None:
    assert "vec_1" not in only(channels_first(stride=2)).names


def test_a_filter_is_gone_through_singly_where_there_are_channels() -> None:
    assert not {"vec_4", "vec_5"} & set(only(convolution(c=64)).names)


def test_the_width_of_a_key_is_never_tiled() -> None:
    space = only(attention())
    assert "vec_3" not in space.names
    (made, *_) = make_candidates("dispatch", attention(), space, space.sample(1, 0))
    assert "vector_reduction = [0, 0, 0, 0, " in made.config


@pytest.mark.parametrize("root", [packed(16, 16, 256, (16, 16, 2), element="bf16"), packed(12, 8, 16, (8, 8, 4))])
def test_packed_tiles_are_never_divided(root: RootOp) -> None:
    space = only(root)
    assert {knob.name for knob in space.knobs} == {"dist_0", "dist_1", "vec_0", "vec_1", "vec_2"}
    rows, columns, depth = root.loops[3:]
    for made in make_candidates("dispatch", root, space, space.sample(20, 0)):
        assert f", 0, {rows}, {columns}, 0], vector_common_parallel = [" in made.config
        assert f", 0, {rows}, {columns}, 0], vector_reduction = [0, 0, " in made.config
        assert f", 0, 0, {depth}]>" in made.config


def test_sums_of_packed_tiles_fit_the_registers() -> None:
    for knobs in only(packed(32, 32, 128)):
        assert knobs["vec_0"] * knobs["vec_1"] * 16 * 16 <= 32 * 16


@pytest.mark.parametrize("mask", ["i1", "i8", "f16", "f32"])
def test_a_mask_changes_nothing_in_the_space_of_attention(mask: str) -> None:
    assert only(attention(mask=mask)) == only(attention())


@pytest.mark.parametrize(
    "sizes", [{"i": 1 << 23}, {"i": (1 << 22) + 1}, {"i": 1 << 24, "j": 3}, {"i": 3, "j": 1 << 23}]
)
def test_long_loops_have_a_space_with_the_knobs_values_alone(sizes: Mapping[str, int]) -> None:
    space = only(generic(sizes, (PARALLEL,) * len(sizes), ", ".join(sizes), ", ".join(sizes)))
    assert len(space) > 4
    for knob in space.knobs:
        assert set(knob.domain) >= {member[knob.name] for member in space}
        assert len(knob.domain) < 500


def test_rows_of_a_reduction_are_short_enough_for_what_may_be_fused() -> None:
    wide = generic({"i": 256, "j": 1000}, (PARALLEL, REDUCTION), "i, j", "i")
    assert {knobs["vec_0"] for knobs in only(wide)} <= {1, 2}
    assert {knobs["vec_0"] for knobs in only(ROW_SUM)} > {1, 2, 4}


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (convolution(element="f8E4M3FN"), "f8E4M3FN"),
        (attention(k1=256), "wider than 128"),
        (attention(element="i8"), "elements of type i8"),
        (attention(mask="i32"), "elements of type i32"),
        (packed(4, 4, 8, element="f8E4M3FN"), "linalg.mmt4d has elements of type f8E4M3FN"),
        (msgspec.structs.replace(ROW_SUM, kind="scaled_contraction"), r"\(scaled_contraction\) on llvm-cpu"),
        (msgspec.structs.replace(ROW_SUM, loops=(96, -1)), "dynamic"),
        (msgspec.structs.replace(TRANSPOSE, loops=(0, 40)), "size zero"),
        (msgspec.structs.replace(ROW_SUM, loops=(), iterators=(), maps=()), "no indexing maps"),
        (generic({"i": 64}, (REDUCTION,), "i", "i"), "no parallel loop"),
        (msgspec.structs.replace(convolution(), output_image=(), filter_loop=()), "image"),
    ],
)
def test_what_has_no_space_says_why(root: RootOp, reason: str) -> None:
    with pytest.raises(NoSpace, match=reason):
        spaces_for(root, TARGET)
