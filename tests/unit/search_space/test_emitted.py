from __future__ import annotations

import time

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.search_space import SearchSpace, spaces_in
from pytest_shark_tune.search_space.candidate import make_candidates
from tests.factories import matmul_root

pytestmark = pytest.mark.compiler


@pytest.fixture(scope="module")
def emitted() -> str:
    source = ops.matmul(m=2048, n=10240, k=1280, lhs="f16", transpose_b=True)
    compiler = Compiler(Target.parse("hip:gfx942"))
    flags = ["--iree-codegen-emit-pipeline-constraints", "--iree-codegen-add-tuner-attributes"]
    return compiler.lower(source.text, to="executable-configurations", flags=flags)


@pytest.fixture(scope="module")
def spaces(emitted: str) -> dict[str, SearchSpace]:
    return {space.pipeline: space for space in spaces_in(emitted)}


def test_what_the_compiler_emits_is_enumerated_whole(spaces: dict[str, SearchSpace]) -> None:
    """Sizes as z3 found them with blocking clauses, which takes minutes."""
    assert {name: len(space) for name, space in spaces.items()} == {"TileAndFuse": 2692, "VectorDistribute": 1009}


def test_reading_and_enumerating_take_a_fraction_of_a_second(emitted: str) -> None:
    best = min(_seconds(emitted) for _ in range(3))
    # It takes 0.15 s; the rest is for a machine that does something else as well.
    assert best < 1.0


def _seconds(text: str) -> float:
    # A name of its own makes the spaces new, so nothing is answered from memory.
    fresh = text.replace("prod(wg_m)", f"prod(wg_m, {time.monotonic_ns()})")
    started = time.perf_counter()
    assert sum(len(space) for space in spaces_in(fresh)) == 3701
    return time.perf_counter() - started


def test_configs_of_gpu_pipelines_are_the_compilers_own(spaces: dict[str, SearchSpace]) -> None:
    root = matmul_root(8, 8, 8)  # Only the id depends on it.
    for name, space in spaces.items():
        knobs = space.sample(3, 0)
        for candidate, given in zip(make_candidates("matmul", root, space, knobs), knobs, strict=True):
            assert candidate.knobs == given
            assert f"workgroup = [{given['wg_0']}, {given['wg_1']}, 0]" in candidate.config
            assert f"#iree_gpu.pipeline<{name}>" in candidate.compilation_info
            assert f"workgroup_size = [{given['wg_size_x']}, 1, 1]" in candidate.compilation_info
