from __future__ import annotations

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import Dispatch, TargetFacts
from pytest_shark_tune.search_space import SearchSpace, spaces_for
from pytest_shark_tune.search_space import candidate as module
from pytest_shark_tune.search_space.candidate import Candidate, NotInSpace, default_candidate, make_candidates
from tests.factories import matmul_root

TARGET = TargetFacts(backend="llvm-cpu", architecture="x86_64", native_vector_bytes=64, processors=2)


ROOT = matmul_root(512, 512, 512)
KNOBS = {"dist_0": 64, "dist_1": 128, "peel": 0, "vec_0": 8, "vec_1": 32, "vec_2": 4}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    (only,) = spaces_for(ROOT, TARGET)
    return only


def make(space: SearchSpace, **changes: int) -> Candidate:
    (only,) = make_candidates("matmul", ROOT, space, [KNOBS | changes])
    return only


def test_a_candidate_carries_the_attributes_canonical_text(space: SearchSpace) -> None:
    made = make(space)
    assert made.config == (
        "#iree_cpu.lowering_config<distribution = [64, 128, 0], "
        "vector_common_parallel = [8, 32, 0], vector_reduction = [0, 0, 4]>"
    )
    assert made.compilation_info == (
        f"#iree_codegen.compilation_info<lowering_config = {made.config}, "
        "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    )
    assert (made.dispatch, made.pipeline, made.knobs) == ("matmul", "DoubleTilingExpert", KNOBS)


def test_loops_are_peeled_where_tiles_do_not_divide(space: SearchSpace) -> None:
    made = make(space, vec_0=6, dist_0=96, peel=1)
    assert "distribution = [96, 128, 0]" in made.config
    assert made.compilation_info.endswith(
        "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>, {enable_loop_peeling}>>"
    )


def test_ids_are_made_of_the_content(space: SearchSpace) -> None:
    first, second = make(space), make(space, vec_2=8)
    assert first == make(space)
    assert len(first.id) == 6
    assert first.id != second.id
    assert set(first.id) <= set("0123456789abcdef")
    other = matmul_root(512, 512, 1024)
    (elsewhere,) = make_candidates("matmul", other, spaces_for(other, TARGET)[0], [KNOBS])
    assert elsewhere.id != first.id


def test_the_order_of_knobs_and_of_candidates_changes_no_id(space: SearchSpace) -> None:
    sets = space.sample(20, 0)
    forwards = make_candidates("matmul", ROOT, space, sets)
    backwards = make_candidates("matmul", ROOT, space, [dict(reversed(knobs.items())) for knobs in reversed(sets)])
    assert forwards == tuple(reversed(backwards))


def test_only_ids_that_collide_are_lengthened() -> None:
    digests = ["aaaaaa1111", "aaaaaa1222", "bbbbbb1111", "aaaaab1111"]
    assert module._unique_prefixes(digests) == ["aaaaaa11", "aaaaaa12", "bbbbbb", "aaaaab"]


def test_a_thousand_candidates_have_a_thousand_ids(space: SearchSpace) -> None:
    made = make_candidates("matmul", ROOT, space, space.sample(1000, 1))
    assert len({each.id for each in made}) == 1000


def test_knobs_outside_the_space_are_refused_in_words(space: SearchSpace) -> None:
    with pytest.raises(NotInSpace, match="must be a multiple of vec_0"):
        make(space, vec_0=7, dist_0=64)
    with pytest.raises(NotInSpace, match="there is no knob bogus"):
        make(space, bogus=1)
    with pytest.raises(NotInSpace, match="twice"):
        make_candidates("matmul", ROOT, space, [KNOBS, KNOBS])


def test_the_default_is_a_candidate_that_applies_nothing() -> None:
    dispatch = Dispatch(
        name="matmul",
        root=ROOT,
        target=TARGET,
        default_pipeline="DoubleTilingExpert",
        default_config="#iree_cpu.lowering_config<distribution = [64, 64, 0]>",
        members=(),
    )
    assert default_candidate(dispatch) == Candidate(
        id="default",
        dispatch="matmul",
        pipeline="DoubleTilingExpert",
        knobs={},
        config="#iree_cpu.lowering_config<distribution = [64, 64, 0]>",
        compilation_info="",
    )


def test_a_candidate_survives_being_written_down(space: SearchSpace) -> None:
    made = make(space)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Candidate) == made
