"""Knobs read back from configs, for every way in which a space is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import SearchSpace, SpaceRequest, opened
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.search_space.config_reader import ReadConfig, knobs_of, option_values, read_config, read_knobs

pytestmark = pytest.mark.compiler

IMAGE = ops.conv_2d(batch=2, height=8, width=8, channels=32, filters=32, kernel_height=3, kernel_width=3, lhs="f16")
OPTIONS = {
    "prefetch_num_stages": (0, 2, 3),
    "no_reduce_shared_memory_bank_conflicts": (0, 1),
    "waves_per_eu": (0, 1, 2),
    "flush_denormals": (0, 1),
}

# Target, the op and the options that become knobs: one row for each way in which a space is made.
COMPILED: dict[str, tuple[str, OpSource, dict[str, tuple[int, ...]]]] = {
    "cpu": ("llvm-cpu:x86-64-v3", ops.matmul(m=60, n=48, k=64, lhs="f32"), {}),
    "cpu-attention": ("llvm-cpu:x86-64-v3", ops.attention(batch=2, queries=32, keys=32, head=16, element="f32"), {}),
    "rocm": ("hip:gfx942", ops.matmul(m=128, n=128, k=64, lhs="f16"), OPTIONS),
    "rocm-convolution": ("hip:gfx942", IMAGE, {}),
    "rocm-attention": ("hip:gfx942", ops.attention(batch=2, queries=64, keys=64, head=64), {}),
    "rocm-padded": ("hip:gfx942", ops.batch_matmul(batch=2, m=33, n=48, k=40, lhs="f16"), {}),
    "cuda": ("cuda:sm_89", ops.matmul(m=64, n=64, k=64, lhs="f32"), {}),
    "cuda-attention": ("cuda:sm_89", ops.attention(batch=2, queries=64, keys=64, head=64), {}),
    "vulkan": ("vulkan:rdna3", ops.matmul(m=64, n=64, k=64, lhs="f16"), {}),
}
SLOW = ("cpu-attention", "rocm-convolution", "cuda-attention")
_MADE: dict[str, tuple[Dispatch, tuple[SearchSpace, ...]]] = {}


def compiled(row: str) -> tuple[Dispatch, tuple[SearchSpace, ...]]:
    """The dispatch of a row and its spaces, made once for all tests."""
    if row not in _MADE:
        target, op, options = COMPILED[row]
        compiler = Compiler(Target.parse(target))
        (dispatch,) = extract_dispatches([read_source(op, Path())], compiler, 2).dispatches
        spaces = opened(search_spaces(dispatch, compiler), SpaceRequest(knobs=options), compiler.target.backend)
        _MADE[row] = dispatch, spaces
    return _MADE[row]


def info_of(row: str, space: SearchSpace, knobs: dict[str, int]) -> str:
    (candidate,) = make_candidates(row, compiled(row)[0].root, space, [knobs])
    return candidate.compilation_info


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=pytest.mark.slow if row in SLOW else []) for row in COMPILED],
)
def test_a_members_config_gives_its_knobs(row: str) -> None:
    dispatch, spaces = compiled(row)
    for space in spaces:
        members = space.sample(20, seed=11)
        assert members
        for made in make_candidates(row, dispatch.root, space, members):
            found = knobs_of(space, made.compilation_info)
            assert isinstance(found, dict), found
            assert found == made.knobs
            assert found in space


def test_a_config_of_another_pipeline_has_no_knobs() -> None:
    _, (first, second) = compiled("rocm")
    info = info_of("rocm", second, second.sample(1, 0)[0])
    assert knobs_of(first, info) == "its pipeline is VectorDistribute, and the space's is TileAndFuse"


def test_knobs_outside_the_space_are_read() -> None:
    _, (space,) = compiled("cpu")
    info = info_of("cpu", space, {"dist_0": 60, "dist_1": 48, "peel": 0, "vec_0": 6, "vec_1": 16, "vec_2": 4})
    found = knobs_of(space, info.replace("vector_common_parallel = [6,", "vector_common_parallel = [9,"))
    assert isinstance(found, dict)
    assert found["vec_0"] == 9
    assert space.violated(found)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[60, 48, 0]", "[60, 48, 7]", "distribution[2] is 7, and in the space always 0"),
        ("[60, 48, 0]", "[60, 48]", "distribution is [60, 48], and the space has 3 entries there"),
        ("vector_reduction", "cache_reduction = [0, 0, 8], vector_reduction", "cache_reduction is [0, 0, 8], and"),
        ("[6, 16, 0]", "[6, [16], 0]", "vector_common_parallel[1] is [16], which is no whole number"),
        ("Expert>", "Expert>, {enable_decomposition}", "enable_decomposition is 1, and the space has no such entry"),
    ],
)
def test_what_no_member_has_is_told(old: str, new: str, reason: str) -> None:
    _, (space,) = compiled("cpu")
    info = info_of("cpu", space, {"dist_0": 60, "dist_1": 48, "peel": 0, "vec_0": 6, "vec_1": 16, "vec_2": 4})
    assert old in info
    found = knobs_of(space, info.replace(old, new))
    assert isinstance(found, str)
    assert reason in found


def test_a_knob_that_stands_twice_must_be_one_value() -> None:
    _, (space,) = compiled("cuda")
    knobs = next(knobs for knobs in space if knobs["wg_0"] != knobs["red_2"])
    info = info_of("cuda", space, knobs)
    padding = f"padding = [{knobs['wg_0']},"
    assert padding in info
    found = knobs_of(space, info.replace(padding, "padding = [1,"))
    assert isinstance(found, str)
    assert "wg_0" in found


def test_a_knob_without_its_place_is_told() -> None:
    _, (_, space) = compiled("rocm")
    info = info_of("rocm", space, space.sample(1, 0)[0])
    config = read_config(info)
    reading = read_knobs(space, ReadConfig(pipeline=config.pipeline, tree=config.tree | {"subgroup_basis": []}))
    assert "sg_m_cnt" not in reading.knobs
    assert any(difference.startswith("subgroup_basis is []") for difference in reading.differences)
    tree = {name: part for name, part in config.tree.items() if name != "subgroup_basis"}
    reading = read_knobs(space, ReadConfig(pipeline=config.pipeline, tree=tree))
    assert "subgroup_basis[0][0], which is sg_m_cnt, is missing" in reading.differences


def test_an_instruction_that_the_target_lacks_is_told() -> None:
    _, (space, _) = compiled("rocm")
    info = info_of("rocm", space, next(knobs for knobs in space if knobs["mma_idx"] == 0))
    found = knobs_of(space, info.replace("MFMA_F32_16x16x16_F16", "MFMA_F32_16x16x4_F32"))
    assert isinstance(found, str)
    assert "mma_kind is #iree_gpu.mma_layout<MFMA_F32_16x16x4_F32>, which is none of" in found


def test_options_that_are_not_off_are_listed() -> None:
    _, (space, _) = compiled("rocm")
    wanted = {"prefetch_num_stages": 3, "waves_per_eu": 2, "flush_denormals": 1}
    others = {"no_reduce_shared_memory_bank_conflicts": 0}
    knobs = next(knobs for knobs in space if knobs | wanted | others == knobs)
    assert option_values(read_config(info_of("rocm", space, knobs))) == wanted


@pytest.mark.parametrize("text", ["", "nonsense", "[1, 2]", "#iree_cpu.lowering_config<distribution = [1]>"])
def test_what_is_no_compilation_info_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a compilation_info"):
        read_config(text)
