"""Options that the compiler pins, opened as knobs: what comes out changes, on targets that need no device."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import NoSpace, SearchSpace, SpaceRequest, narrowed, opened, spaces_for
from pytest_shark_tune.search_space.candidate import Candidate, make_candidates
from pytest_shark_tune.spec.build import single_entry_spec
from tests.thinned import thinned

OP = ops.matmul(m=256, n=256, k=128, lhs="f16")
PIPELINES = ("TileAndFuse", "VectorDistribute")


@cache
def emitted(target: str) -> tuple[Compiler, Dispatch, tuple[SearchSpace, ...]]:
    compiler = Compiler(Target.parse(target))
    (dispatch,) = extract_dispatches([Source(name=OP.name, text=OP.text, is_benchmark=False)], compiler, 2).dispatches
    return compiler, dispatch, search_spaces(dispatch, compiler)


def candidates(target: str, pipeline: str, name: str, *values: int) -> list[Candidate]:
    """One member of a pipeline's space, with the option ``name`` at each of ``values``."""
    compiler, dispatch, spaces = emitted(target)
    (space,) = [each for each in spaces if each.pipeline == pipeline]
    # The shortest step along k leaves something to prefetch.
    member = min(space.sample(40, seed=4), key=lambda knobs: knobs["red_2"])
    (wider,) = opened([space], SpaceRequest(knobs={name: values}), compiler.target.backend)
    return list(make_candidates(dispatch.name, dispatch.root, wider, [{**member, name: value} for value in values]))


def binary(target: str, candidate: Candidate, directory: Path) -> str:
    """The hash of a candidate's code, once its config is found applied."""
    compiler, dispatch, _ = emitted(target)
    configured = configure_with(
        dispatch.members[0].module.text, single_entry_spec(dispatch.root, candidate.compilation_info)
    )
    assert why_not_applied(configured, candidate.compilation_info) is None
    compiler.compile_sources(configured.text, directory / "out.vmfb")
    return hashlib.sha256((directory / "out.vmfb").read_bytes()).hexdigest()


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    ("target", "name", "values", "texts"),
    thinned(
        [
            ("hip:gfx942", "prefetch_num_stages", (0, 2), ("prefetch_num_stages = 0", "prefetch_num_stages = 2")),
            (
                "hip:gfx942",
                "flush_denormals",
                (0, 1),
                ("denormal_fp_math<none>", 'denormal_fp_math<"preserve-sign">'),
            ),
            (
                "cuda:sm_89",
                "no_reduce_shared_memory_bank_conflicts",
                (0, 1),
                ("bank_conflicts = false", "bank_conflicts = true"),
            ),
        ],
        every=3,
    ),
)
def test_an_option_changes_the_code(
    pipeline: str, target: str, name: str, values: tuple[int, int], texts: tuple[str, str], tmp_path: Path
) -> None:
    made = candidates(target, pipeline, name, *values)
    for candidate, text in zip(made, texts, strict=True):
        assert text in candidate.compilation_info
    assert made[0].id != made[1].id
    assert binary(target, made[0], tmp_path) != binary(target, made[1], tmp_path)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_waves_per_eu_reach_the_function(pipeline: str, tmp_path: Path) -> None:
    """Whether code changes depends on the registers in use, so it is the config that is looked at."""
    none, four = candidates("hip:gfx942", pipeline, "waves_per_eu", 0, 4)
    assert "llvm_func_attrs" not in none.compilation_info
    assert 'llvm_func_attrs = {"amdgpu-waves-per-eu" = "4"}' in four.compilation_info
    assert "gpu_pipeline_options" in four.compilation_info
    assert binary("hip:gfx942", four, tmp_path)


def test_an_option_multiplies_a_space_and_conditions_may_name_it() -> None:
    compiler, _, spaces = emitted("hip:gfx942")
    request = SpaceRequest(
        where=("waves_per_eu > 1 or prefetch_num_stages == 0",),
        knobs={"waves_per_eu": (1, 2), "prefetch_num_stages": (0, 2, 3)},
    )
    wider = opened(spaces, request, compiler.target.backend)
    assert [len(each) for each in wider] == [6 * len(each) for each in spaces]
    left = narrowed(wider, request, {name for space in wider for name in space.names})
    assert [len(each) for each in left] == [4 * len(each) for each in spaces]


def test_a_pipeline_without_the_option_is_told() -> None:
    compiler = Compiler(Target.parse("llvm-cpu"))
    op = ops.matmul(m=64, n=64, k=64, lhs="f32")
    (dispatch,) = extract_dispatches([Source(name=op.name, text=op.text, is_benchmark=False)], compiler, 2).dispatches
    spaces = spaces_for(dispatch.root, dispatch.target)
    with pytest.raises(NoSpace, match="prefetch_num_stages is no option of DoubleTilingExpert on llvm-cpu"):
        opened(spaces, SpaceRequest(knobs={"prefetch_num_stages": (0, 2)}), "llvm-cpu")
