"""The entries of a guarded spec: many records without an entry are few tests."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_shark_tune.guard.plan import make_guard_plan
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.snapshot import records_path, write_spec
from tests.factories import INFO, make_winner, matmul_root


def test_of_many_records_without_an_entry_the_first_have_tests_of_their_own(tmp_path: Path) -> None:
    spec = tmp_path / "spec.mlir"
    winner = make_winner("aaaaaa", dispatch="one", root=matmul_root(8, 8, 8), compilation_info=INFO.format(8))
    write_spec(spec, [winner])
    gone = [msgspec.structs.replace(winner, dispatch=f"gone_{number}") for number in range(150)]
    records_path(spec).write_bytes(msgspec.json.Encoder().encode_lines([*gone[:75], winner, *gone[75:]]))
    plan = make_guard_plan(Plan(sources=(), tasks=(), untunable=()), "key", spec, device_name="")
    names = ["one", *(f"gone_{number}" for number in range(100)), "others"]
    assert [entry.name for entry in plan.entries] == names
    assert plan.entries[0].problem == ""
    assert plan.entries[-1].problem == (
        "spec.jsonl has 50 more records of which spec.mlir has no such entry any more: delete them"
    )


def test_a_snapshot_without_its_records_says_so(tmp_path: Path) -> None:
    """Committed without them, no entry would be held to its recorded speed, and nobody told."""
    winner = make_winner("aaaaaa", dispatch="one", root=matmul_root(8, 8, 8), compilation_info=INFO.format(8))
    for directory, note in (("__specs__", "x.jsonl is missing beside the snapshot"), ("specs", "")):
        spec = tmp_path / directory / "x.mlir"
        spec.parent.mkdir()
        write_spec(spec, [winner])
        records_path(spec).unlink()
        (entry,) = make_guard_plan(Plan(sources=(), tasks=(), untunable=()), "key", spec, device_name="").entries
        assert entry.note.startswith(note)
        assert bool(entry.note) == bool(note)
