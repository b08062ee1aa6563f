"""Merging runs: which record stays, who wins, and what does not compare."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State
from pytest_shark_tune.results.merge_runs import FinishedRun, RecordFile, merge_runs, write_merged
from pytest_shark_tune.results.summary import RunSummary, Summary
from pytest_shark_tune.system import journal
from tests.factories import make_final, make_record


def record(name: str, samples: int, state: State = State.MEASURED) -> Record:
    return make_record(name, knobs={"tile": 8}, state=state, samples_us=(5.0,) * samples)


def final(name: str, ratio: float, *, samples: int = 3, wins: bool = True) -> FinalRecord:
    finalist = Finalist(
        id=name,
        state=State.MEASURED,
        samples_us=(10 / ratio,) * samples,
        ratio=ratio,
        ratio_low=ratio - 0.05,
        ratio_high=ratio + 0.05,
    )
    return make_final(finalist, winner=name if wins else None)


def run(
    name: str,
    records: list[Record],
    finals: list[FinalRecord] | None = None,
    *,
    device: str = "CPU",
    iree: str = "3",
    dropped: dict[str, str] | None = None,
) -> FinishedRun:
    about = RunSummary(
        versions={"iree-base-compiler": iree}, target="llvm-cpu", device=device, seconds=1.0, complete=True
    )
    summary = Summary(run=about, dispatches=(), sources=(), untunable=(), dropped=dropped or {})
    return FinishedRun(name, summary, tuple(records), tuple(finals or ()))


def test_of_a_candidate_tried_twice_the_record_with_more_samples_stays() -> None:
    few, many, only = record("aa", 3), record("aa", 5), record("bb", 1)
    for runs in ([run("x", [few]), run("y", [many, only])], [run("x", [many, only]), run("y", [few])]):
        merged = merge_runs(runs)
        best = next(number for number, given in enumerate(runs) if many in given.records)
        assert merged.records["matmul"].keys() == {"aa", "bb"}
        assert merged.origins == {("matmul", "aa"): (best, 0), ("matmul", "bb"): (best, 1)}
        assert merged.notes == ["matmul: 1 candidate was tried more than once; the record with more samples stays"]


def test_records_with_as_many_samples_stay_with_the_run_that_is_named_first() -> None:
    first, second = record("aa", 0, State.RUN_FAILED), record("aa", 0, State.WRONG_RESULT)
    merged = merge_runs([run("x", [first]), run("y", [second])])
    assert merged.records["matmul"]["aa"].state is State.RUN_FAILED
    assert merged.origins == {("matmul", "aa"): (0, 0)}


def test_the_best_of_the_winners_of_all_finals_wins() -> None:
    merged = merge_runs([run("x", [], [final("aa", 1.3)]), run("y", [], [final("bb", 1.6)])])
    assert merged.finals["matmul"].winner == "bb"
    assert [each.id for each in merged.finals["matmul"].finalists] == ["bb", "aa"]


def test_a_final_without_a_winner_gives_way_to_one_with_a_winner() -> None:
    lost = final("aa", 1.01, samples=9, wins=False)
    merged = merge_runs([run("x", [], [lost]), run("y", [], [final("bb", 1.2)])])
    assert merged.finals["matmul"].winner == "bb"
    assert merge_runs([run("x", [], [lost])]).finals["matmul"].winner is None


def test_of_one_that_won_twice_the_final_with_more_samples_counts() -> None:
    long = final("aa", 1.3, samples=9)
    merged = merge_runs([run("x", [], [final("aa", 1.5)]), run("y", [], [long])])
    assert merged.finals["matmul"] == long


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (run("y", [], device="GPU"), r"device models.*x \(CPU\), y \(GPU\)"),
        (run("y", [], iree="4"), "releases of IREE"),
    ],
)
def test_runs_that_do_not_compare_are_refused(other: FinishedRun, what: str) -> None:
    with pytest.raises(InputError, match=f"different {what}"):
        merge_runs([run("x", []), other])


def test_a_default_that_failed_is_told() -> None:
    merged = merge_runs([run("x", [record("default", 0, State.RUN_FAILED)])])
    assert merged.failed_defaults == {"matmul": "run_failed: "}


def test_a_winner_that_its_run_dropped_gives_way_to_any_other() -> None:
    best = run("x", [], [final("aa", 1.6)], dropped={"matmul": "it does not pay"})
    other = run("y", [], [final("bb", 1.3)])
    for runs in ([best, other], [other, best]):
        merged = merge_runs(runs)
        assert merged.finals["matmul"].winner == "bb"
        assert merged.dropped == {}
        assert merged.standing == (merged.finals["matmul"],)
        assert "matmul: aa does not compete: x left it out: it does not pay" in merged.notes


def test_a_winner_that_any_run_dropped_is_left_out_without_another() -> None:
    dropped = run("x", [], [final("aa", 1.6)], dropped={"matmul": "it does not pay"})
    kept = run("y", [], [final("aa", 1.7, samples=9)])
    lost = run("z", [], [final("bb", 1.0, wins=False)], dropped={"other": "another dispatch"})
    for runs in ([dropped], [kept, dropped], [dropped, lost]):
        merged = merge_runs(runs)
        assert merged.finals["matmul"].winner == "aa"
        assert merged.dropped == {"matmul": "x left it out: it does not pay"}
        assert merged.standing == ()
    assert merge_runs([kept, lost]).dropped == {}


def test_records_in_files_are_merged_without_their_samples_and_written_with_them(tmp_path: Path) -> None:
    given = run("x", [], [final("aa", 1.3)])
    runs = []
    for number, records in enumerate(([record("default", 2), record("aa", 3), record("bb", 3)], [record("bb", 5)])):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(msgspec.json.Encoder().encode_lines(records))
        runs.append(dataclasses.replace(given, records=RecordFile(path)))
    merged = merge_runs(runs)
    held = merged.records["matmul"]
    assert [len(held[name].samples_us) for name in ("default", "aa", "bb")] == [2, 3, 0]
    assert held["bb"].knobs == {}
    write_merged(tmp_path / "out", merged, Draft((), ""), tasks={}, checks=())
    written = journal.read(tmp_path / "out" / "records.jsonl", Record)
    assert written == [record("default", 2), record("aa", 3), record("bb", 5)]
