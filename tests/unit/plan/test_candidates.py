"""Candidates in columns: the table gives back what was put into it, and holds no candidate."""

from __future__ import annotations

import msgspec
import pytest

from pytest_shark_tune.plan.candidates import CandidateTable, knob_rows, packed
from pytest_shark_tune.search_space.candidate import Candidate
from tests.factories import INFO, make_task


def candidate(identity: str, config: str, info: str = "", *, space: int = 0, **knobs: int) -> Candidate:
    return Candidate(
        id=identity, dispatch="one", pipeline="P", knobs=knobs, config=config, compilation_info=info, space=space
    )


UNEQUAL = (
    candidate("a", "f32 [8, -16, 0]", INFO.format(8), tile=8, other=16),
    candidate("b", "f32 [16, -8, 0]", INFO.format(16), tile=16, other=8),
    candidate("c", "f32 [16, -8]", INFO.format(16), tile=16),
    candidate("d", "007 and 1e-08", "", tile=-(1 << 63)),
    candidate("e", f"{'9' * 18} {'9' * 19} {'9' * 400}", "x1y22z", tile=(1 << 63) - 1),
    candidate("f", "", ""),
    candidate("g", "12", "34", space=1),
)


def test_a_table_gives_back_its_candidates() -> None:
    table = packed("one", UNEQUAL)
    again = msgspec.json.decode(msgspec.json.encode(table), type=CandidateTable)
    for found in (table, again):
        assert tuple(found) == UNEQUAL
        assert [found[index] for index in range(-len(UNEQUAL), 0)] == list(UNEQUAL)
        assert found[1:3] == UNEQUAL[1:3]
        assert [row.knobs for row in knob_rows(found)] == [each.knobs for each in UNEQUAL]
        assert [found.pipeline(index) for index in range(len(found))] == ["P"] * len(UNEQUAL)
        assert [found.index(each) for each in UNEQUAL] == list(range(len(UNEQUAL)))
    with pytest.raises(IndexError):
        table[len(UNEQUAL)]
    with pytest.raises(ValueError, match="is not in the table"):
        table.index(msgspec.structs.replace(UNEQUAL[0], config="another"))
    assert [each.dispatch for each in table.renamed("two")] == ["two"] * len(UNEQUAL)
    assert tuple(packed("one", ())) == ()


def test_configs_of_one_space_share_their_words_and_equal_columns() -> None:
    many = [candidate(f"{tile:06x}", f"tile {tile}", INFO.format(tile), tile=tile, fixed=1) for tile in range(1000)]
    (layout,) = packed("one", many).layouts
    assert len(layout.columns) == 2, "the knobs, whose numbers the texts take too"
    assert len(msgspec.json.encode(packed("one", many))) < len(msgspec.json.encode(many)) / 4


def test_a_task_finds_its_candidates_in_either_form() -> None:
    task = make_task("one", 8)
    table = msgspec.structs.replace(task, candidates=packed("one", task.candidates))
    for found in (task, table):
        assert found.ids == ("aaaaaa", "bbbbbb")
        assert found.label(1) == ("DoubleTilingExpert", "bbbbbb")
        assert found.candidate("bbbbbb") == task.candidates[1]
        assert found.candidate("default") == task.default
        assert [each.dispatch for each in found.renamed("two").candidates] == ["two", "two"]
