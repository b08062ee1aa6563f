"""The meanings of knobs."""

from __future__ import annotations

import pytest

from pytest_shark_tune.commands.knobs import explain_knob, explain_knobs


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("dist_2", "tile of loop 2 that one task of the thread pool computes"),
        ("wg_0", "tile of loop 0 that a workgroup computes"),
        ("wg_size_x", "threads of a workgroup along x; 0 leaves them to the tiles"),
        ("sg_m_cnt", "subgroups of a workgroup along m"),
        ("waves_per_eu", "waves"),
        ("red_k2", "step of the reduction loop k2"),
        ("tile", ""),
        ("wg_0_other", ""),
    ],
)
def test_a_knob_is_explained_by_its_name(name: str, meaning: str) -> None:
    found = explain_knob(name)
    assert meaning in found
    assert bool(found) == bool(meaning)


def test_knobs_of_one_kind_are_explained_once() -> None:
    assert [kind for kind, _ in explain_knobs(["wg_0", "wg_1", "wg_size_x", "made_up"])] == ["wg_N", "wg_size_x"]
    assert explain_knobs(["vec_3"]) == [("vec_N", "tile of loop N that is unrolled into vectors")]
