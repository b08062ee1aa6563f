"""Snapshots: which record is whose, and what becomes of the entries that have none when others are written."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records import snapshot
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.read import SpecRow, read_spec
from tests.factories import INFO, make_task
from tests.unit.records.test_reconcile import record_of
from tests.unit.results.test_store import ONE, TWO

OURS, OTHER = record_of(ONE), record_of(TWO)
FOREIGN = make_task("foreign", 16)


def by_hand(*tasks: Task) -> str:
    """A spec that nobody recorded anything of."""
    return build_spec(
        [SpecEntry(name=each.name, root=each.dispatch.root, compilation_info=INFO.format(24)) for each in tasks]
    )


def row(matcher: str, dispatch: str = "") -> SpecRow:
    return SpecRow(matcher=matcher, compilation_info="", provenance={"dispatch": dispatch} if dispatch else {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spec.mlir"


def rows(path: Path) -> list[tuple[str, object]]:
    """The matchers of a spec with the dispatches that they tell."""
    return [(each.matcher, each.provenance.get("dispatch")) for each in read_spec(path.read_text("utf-8"))]


def replace(path: Path, winners: list[WinnerRecord]) -> None:
    snapshot.replace_spec(path, snapshot.snapshot_draft(path, winners), winners)


@pytest.mark.parametrize(
    ("entries", "owner"),
    [
        ([row("match_one", "one")], 0),
        ([row("match_by_hand", "one")], 0),
        ([row("match_one")], 0),
        ([row("match_one"), row("match_one_2", "one")], 1),
        ([row("match_one", "one"), row("match_one_2", "one")], 0),
        ([row("match_one"), row("match_one")], 0),
        ([row("match_one", "two")], None),
        ([row("match_by_hand")], None),
    ],
)
def test_a_record_is_of_one_entry_at_most(entries: list[SpecRow], owner: int | None) -> None:
    expected = [OURS if place == owner else None for place in range(len(entries))]
    assert list(snapshot.records_of(entries, [OURS])) == expected


def test_dispatches_of_one_name_in_spec_and_starter_keep_their_records_apart(path: Path, tmp_path: Path) -> None:
    starter = tmp_path / "starter.mlir"
    namesake = record_of(make_task("one", 48))
    snapshot.write_spec(starter, [namesake])
    snapshot.write_spec(path, [OURS], starter.read_text("utf-8"))
    assert rows(path) == [("match_one", "one"), ("match_one_2", "one_2")]
    assert snapshot.records_of(read_spec(path.read_text("utf-8")), snapshot.read_records(path)) == (OURS, None)


def test_entries_without_a_record_stay_behind_what_is_written(path: Path) -> None:
    snapshot.write_spec(path, [OURS], by_hand(FOREIGN))
    replace(path, [OTHER, OURS])
    assert rows(path) == [("match_two", "two"), ("match_one", "one"), ("match_foreign", None)]
    assert snapshot.read_records(path) == (OTHER, OURS)
    written = path.read_bytes()
    replace(path, [OTHER, OURS])
    assert path.read_bytes() == written
    replace(path, [])
    assert rows(path) == [("match_foreign", None)]
    assert not snapshot.records_path(path).exists()


def test_an_entry_without_a_record_gives_way_to_a_winner_of_its_matcher(path: Path) -> None:
    snapshot.write_spec(path, [OURS, OTHER])
    snapshot.records_path(path).unlink()
    replace(path, [OURS])
    assert rows(path) == [("match_one", "one"), ("match_two", "two")]
    assert snapshot.read_records(path) == (OURS,)


def test_what_is_somebodys_own_is_not_touched(path: Path) -> None:
    text = f"// By hand.\n{by_hand(FOREIGN)}"
    path.write_text(text, "utf-8")
    replace(path, [])
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (".jsonl", "spec.jsonl:2 is no record, so nobody knows which entries have one: take spec.jsonl from version "),
        (".mlir", "the spec is not MLIR that this IREE parses"),
    ],
)
def test_nothing_is_written_where_it_cannot_be_told_what_there_is(path: Path, spoil: str, message: str) -> None:
    snapshot.write_spec(path, [OURS, OTHER])
    spoilt = path.with_suffix(spoil)
    spoilt.write_text("<<<<<<<\n".join(spoilt.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    before = path.read_bytes(), snapshot.records_path(path).read_bytes()
    with pytest.raises(InputError, match=message):
        replace(path, [OURS])
    with pytest.raises(InputError, match=message):
        replace(path, [])
    assert (path.read_bytes(), snapshot.records_path(path).read_bytes()) == before


def test_without_entries_there_is_no_file(path: Path) -> None:
    replace(path, [OURS])
    assert rows(path) == [("match_one", "one")]
    replace(path, [])
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("suffix", [".mlir", ".jsonl"])
def test_what_is_no_regular_file_is_refused_and_not_read(path: Path, kind: str, suffix: str) -> None:
    other = path.with_suffix(suffix)
    match kind:
        case "pipe":
            os.mkfifo(other)
        case "device":
            other.symlink_to("/dev/zero")
        case _:
            other.mkdir()
    with pytest.raises(InputError, match=f"{other.name} cannot be read: (it is no regular file|Is a directory)"):
        snapshot.read_text(path) if suffix == ".mlir" else snapshot.read_records(path)


def test_of_many_records_those_are_held_that_an_entry_may_have(path: Path) -> None:
    records = (msgspec.structs.replace(OURS, dispatch=name) for _ in range(3) for name in ("one", "two", "three"))
    entries = [row("match_one", "one"), row("match_one_2", "one"), row("match_two")]
    held = list(snapshot._candidates_for(entries, records))
    assert [record.dispatch for record in held] == ["one", "two", "one"]


def test_of_many_damaged_lines_the_first_are_named() -> None:
    path = Path("spec.jsonl")
    assert snapshot.places_of(path, (1, 2)) == "spec.jsonl:1, spec.jsonl:2"
    assert snapshot.places_of(path, range(1, 21)).endswith("spec.jsonl:10 or 10 more lines")
