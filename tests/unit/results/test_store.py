"""The result store on findings made here: what it writes, and when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import Member, Untunable
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms
from pytest_shark_tune.records.snapshot import read_records, records_path, write_spec
from pytest_shark_tune.records.types import (
    Finalist,
    FinalRecord,
    Record,
    RecordedOp,
    SourceCheck,
    SpecRecord,
    State,
    WinnerRecord,
)
from pytest_shark_tune.results.coverage import Collected, Coverage
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.read import read_spec
from tests import factories
from tests.factories import INFO, make_task

MODULE = make_task("any", 8).dispatch.members[0].module
ONE, TWO = make_task("one", 64, calls=3), make_task("two", 32)
PLAN = Plan(sources=(), tasks=(ONE, TWO), untunable=(Untunable("odd_0", "model", "it is odd"),))


def make_record(task: Task, identity: str, ratio: float | None = None, state: State = State.MEASURED) -> Record:
    candidate = task.candidate(identity)
    return factories.make_record(
        identity,
        dispatch=task.dispatch.name,
        knobs=candidate.knobs,
        config=candidate.config,
        state=state,
        reason="" if ratio else "because",
        compile_s=0.5,
        samples_us=(10.0 / ratio,) if ratio else (),
        baseline_samples_us=(10.0,) if ratio else (),
        ratio=ratio,
        ratio_low=ratio and ratio * 0.9,
        ratio_high=ratio and ratio * 1.1,
    )


def make_final(task: Task, winner: str | None) -> FinalRecord:
    finalist = Finalist(id="aaaaaa", state=State.MEASURED, samples_us=(5.0,), ratio=2.0, ratio_low=1.9, ratio_high=2.1)
    return factories.make_final(
        finalist,
        dispatch=task.dispatch.name,
        root=task.dispatch.root,
        weight=task.dispatch.weight,
        winner=winner,
        reason="" if winner else "none is faster",
        compilation_info=task.candidate(winner).compilation_info if winner else "",
    )


class Run:
    """A result store of one run, and ways to tell it what was found out."""

    def __init__(
        self,
        directory: Path,
        *,
        starter: str | None = None,
        plans: Mapping[str, Plan] = MappingProxyType({"plan": PLAN}),
    ) -> None:
        self.out = directory / ".tune"
        self.out.mkdir(exist_ok=True)
        self.suite = directory / "suite"
        self.store = ResultStore(
            self.out,
            plans.__getitem__,
            target="llvm-cpu",
            device="Some CPU",
            device_slug="some-cpu",
            versions={"pytest-shark-tune": "0"},
            starter=starter,
            fingerprint="setting",
        )

    def take(self, *found: Record | FinalRecord | SpecRecord, plan: str = "plan", suite: Path | None = None) -> None:
        for each in found:
            record = each if isinstance(each, Record) else None
            final = each if isinstance(each, FinalRecord) else None
            spec = each if isinstance(each, SpecRecord) else None
            directory = str(suite or self.suite)
            self.store.add(TestResult(plan=plan, suite=directory, record=record, final=final, spec=spec))

    @property
    def matchers(self) -> list[str]:
        return [row.matcher for row in read_spec((self.out / "spec.mlir").read_text())]

    @property
    def snapshot(self) -> Path:
        return self.suite / "__specs__" / "llvm-cpu-some-cpu.mlir"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


VERIFIED = SpecRecord(sources=(SourceCheck(source="model", applied=1),), dropped={})
ALL_OF_ONE = (make_record(ONE, "default", 1.0), make_record(ONE, "aaaaaa", 2.0), make_record(ONE, "bbbbbb", 1.5))


def test_records_are_written_as_they_come(run: Run) -> None:
    for count, record in enumerate(ALL_OF_ONE, 1):
        run.take(record)
        lines = run.store.records_path.read_bytes().splitlines()
        assert len(lines) == count
        assert msgspec.json.decode(lines[-1], type=Record) == record
    assert run.store.records("one") == ALL_OF_ONE
    assert run.store.records("two") == ()


def test_what_an_earlier_run_left_goes_with_the_first_finding(run: Run) -> None:
    for path in (run.store.records_path, run.store.finals_path, run.store.summary_path, run.store.spec_path):
        path.write_text("old\n", encoding="utf-8")
    run.store.add_plan("plan", str(run.suite))
    assert not run.store.has_results
    assert len(list(run.out.iterdir())) == 4
    run.take(ALL_OF_ONE[0])
    assert run.store.has_results
    assert {path.name for path in run.out.iterdir()} == {"records.jsonl", "spec.mlir"}
    run.store.finish(complete=True)
    assert not run.store.spec_path.exists(), "nothing won"


def test_the_winner_of_a_final_is_in_spec_snapshot_and_summary(run: Run) -> None:
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), make_final(TWO, None), VERIFIED)
    summary = run.store.finish(complete=True)
    assert run.matchers == ["match_one"]
    assert run.snapshot.read_text() == run.store.spec_path.read_text()
    (line,) = run.snapshot.with_suffix(".jsonl").read_text().splitlines()
    assert json.loads(line)["compilation_info"] == INFO.format(8)
    one, two = summary.dispatches
    assert (one.weight, one.baseline_us, one.best_us, one.winner, one.reason) == (3, 10.0, 5.0, "aaaaaa", "")
    assert (one.speedup, one.speedup_low, one.speedup_high) == (2.0, 1.9, 2.1)
    assert (two.winner, two.reason) == (None, "none is faster")
    assert summary.untunable == PLAN.untunable
    assert json.loads(run.store.summary_path.read_text()) == json.loads(msgspec.json.encode(summary))


def test_an_entry_that_verification_dropped_is_nowhere(run: Run) -> None:
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), SpecRecord(sources=(), dropped={"one": "it is slower"}))
    (row, _) = run.store.finish(complete=True).dispatches
    assert (row.winner, row.speedup, row.reason) == (None, None, "it is slower")
    assert not run.store.spec_path.exists()
    assert not run.snapshot.exists()


def test_what_was_measured_end_to_end_stands_for_what_was_said_of_a_model_before(run: Run) -> None:
    whole = SourceCheck(source="model", applied=1, ratio=1.5, ratio_low=1.4, ratio_high=1.6)
    measured = SpecRecord(sources=(whole,), dropped={"two": "the model is no faster with it"}, model="model")
    tried = (make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0))
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), *tried, make_final(TWO, "aaaaaa"), VERIFIED, measured)
    summary = run.store.finish(complete=True)
    assert summary.sources == (whole,)
    assert summary.dropped == measured.dropped
    assert run.matchers == ["match_one"]
    assert summary.dispatches[1].reason == "the model is no faster with it"


def test_a_run_that_ended_early_gives_a_provisional_winner_and_no_snapshot(run: Run) -> None:
    run.take(*ALL_OF_ONE)
    summary = run.store.finish(complete=False)
    (row, other) = summary.dispatches
    assert not summary.run.complete
    assert row.winner == "aaaaaa"
    assert row.reason.startswith("provisional: ")
    assert row.finalists == 0
    assert other.reason == "its candidates were not all tried"
    assert run.matchers == ["match_one"]
    assert not run.snapshot.exists()


def test_a_final_that_the_time_cut_has_finalists(run: Run) -> None:
    cut = msgspec.structs.replace(make_final(ONE, "aaaaaa"), is_provisional=True, rounds=3)
    run.take(*ALL_OF_ONE, cut)
    (row, _) = run.store.finish(complete=True).dispatches
    assert row.finalists == len(cut.finalists)


def test_the_funnel_counts_where_each_candidate_was_not_ported(run: Run) -> None:
    run.take(
        ALL_OF_ONE[0],
        make_record(ONE, "aaaaaa", state=State.COMPILE_FAILED),
        make_record(ONE, "bbbbbb", state=State.WRONG_RESULT),
    )
    (row, _) = run.store.finish(complete=True).dispatches
    funnel = (row.generated, row.tried, row.compiled, row.applied, row.ran, row.correct, row.measured, row.finalists)
    assert funnel == (2, 2, 1, 1, 1, 0, 0, 0)
    assert json.loads(run.store.summary_path.read_text())["dispatches"][0]["losses"] == [
        {
            "stage": "compiled",
            "state": "compile_failed",
            "count": 1,
            "causes": [{"reason": "because", "count": 1, "example": "aaaaaa"}],
        },
        {
            "stage": "correct",
            "state": "wrong_result",
            "count": 1,
            "causes": [{"reason": "because", "count": 1, "example": "bbbbbb"}],
        },
    ]


@pytest.mark.parametrize(
    ("complete", "why", "reason"),
    [
        (True, "", "its test was deselected or came to no result"),
        (False, "", "the run ended early"),
        (True, "the time was spent (--tune-time)", "the time was spent (--tune-time)"),
        (False, "the time was spent (--tune-time)", "the run ended early"),
    ],
)
def test_candidates_that_were_not_tried_have_a_reason(run: Run, complete: bool, why: str, reason: str) -> None:
    run.take(ALL_OF_ONE[0], ALL_OF_ONE[1])
    (row, other) = run.store.finish(complete=complete, why_stopped=lambda dispatch: why).dispatches
    assert (row.tried, other.tried) == (1, 0)
    assert [(each.state, each.count) for each in row.losses] == [("not_tried", 1), ("measured", 1)]
    assert {each.losses[0].causes[0].reason for each in (row, other)} == {reason}


def test_a_final_that_was_not_held_is_the_reason_where_all_was_tried(run: Run) -> None:
    run.take(*(make_record(ONE, name, 1.0) for name in ("default", "aaaaaa", "bbbbbb")))
    (row, other) = run.store.finish(complete=True).dispatches
    assert (row.reason, other.reason) == ("no final was held", "its candidates were not all tried")


def test_measurements_on_an_unsteady_machine_are_counted(run: Run) -> None:
    noted = msgspec.structs.replace(make_record(ONE, "aaaaaa", 2.0), repeated=1, note="the speed drifted")
    run.take(noted)
    run.take(make_record(ONE, "bbbbbb", 1.5))
    run.take(msgspec.structs.replace(make_final(ONE, "aaaaaa"), note="round 1: the speed drifted"))
    assert run.store.finish(complete=True).run.unsteady == 2


def test_a_default_that_failed_is_the_reason(run: Run) -> None:
    run.take(make_record(ONE, "default", state=State.RUN_FAILED))
    (row, _) = run.store.finish(complete=True).dispatches
    assert (row.baseline_us, row.reason) == (None, "the default config failed: run_failed: because")


def test_a_snapshot_keeps_the_entries_of_dispatches_that_this_run_did_not_decide(tmp_path: Path) -> None:
    first, second, third = (Run(tmp_path) for _ in range(3))
    first.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    first.store.finish(complete=True)
    second.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"), VERIFIED)
    second.store.finish(complete=True)
    assert second.matchers == ["match_two"]
    assert [row.matcher for row in read_spec(second.snapshot.read_text())] == ["match_one", "match_two"]
    third.take(*ALL_OF_ONE, make_final(ONE, None), VERIFIED)
    third.store.finish(complete=True)
    assert [row.matcher for row in read_spec(third.snapshot.read_text())] == ["match_two"]


def test_a_starter_goes_behind_into_the_spec_and_not_into_the_snapshot(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.take(make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"))
    first.store.finish(complete=True)
    second = Run(tmp_path, starter=first.store.spec_path.read_text())
    second.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    second.store.finish(complete=True)
    assert second.matchers == ["match_one", "match_two"]
    assert [row.matcher for row in read_spec(second.snapshot.read_text())] == ["match_one"]


def test_what_cannot_be_written_leaves_the_rest(run: Run) -> None:
    run.store.records_path.symlink_to("/dev/full")
    run.take(ALL_OF_ONE[0])
    assert run.store.failures == [], "the link of an earlier run goes"
    run.store.records_path.unlink()
    run.store.records_path.symlink_to("/dev/full")
    run.take(*ALL_OF_ONE[1:])
    assert [failure.strerror for failure in run.store.failures] == ["No space left on device"] * 2
    assert {failure.filename for failure in run.store.failures} == {str(run.store.records_path)}
    run.store.summary_path.mkdir()
    summary = run.store.finish(complete=False)
    assert summary.dispatches[0].winner == "aaaaaa"
    assert run.matchers == ["match_one"]
    assert [failure.filename for failure in run.store.failures[2:]] == [str(run.store.summary_path)]


def test_a_winner_says_how_it_was_tuned(run: Run) -> None:
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    run.store.finish(complete=True, candidates_tried={"one": 2, "two": 0}.__getitem__)
    (record,) = read_records(run.snapshot)
    assert (record.fingerprint, record.candidates) == ("setting", 2)
    assert [(op.source, op.symbol) for op in record.ops] == [("model", "one_0")]
    assert record.content


def kept(run: Run) -> WinnerRecord:
    """The one record of a snapshot of ``ONE`` that a run before ``run`` made."""
    before = Run(run.out.parent)
    before.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    before.store.finish(complete=True)
    (record,) = read_records(run.snapshot)
    return record


def test_what_is_kept_is_the_winner_without_a_candidate_tried(run: Run) -> None:
    record = kept(run)
    text = run.snapshot.read_text()
    run.store.add_plan("plan", str(run.suite))
    run.store.add_kept("plan", record)
    run.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"), VERIFIED)
    one, _ = run.store.finish(complete=True).dispatches
    assert (one.winner, one.speedup, one.tried, one.finalists) == ("aaaaaa", 2.0, 0, 0)
    assert one.reason == "kept: nothing changed since it was tuned (IREE 3.13.0)"
    assert one.losses[0].causes[0].reason == "the entry of the snapshot is kept"
    assert run.matchers == ["match_one", "match_two"]
    assert read_records(run.snapshot)[0] == record
    assert text != run.snapshot.read_text()
    (change,) = run.store.changes
    assert change.describe() == ("two: added (contraction 32x32x32 f32, f32 -> f32, DoubleTilingExpert, 5 us, 2.00x)",)


def test_a_winner_that_was_not_checked_is_told_and_not_written(run: Run) -> None:
    record = kept(run)
    run.store.add_plan("plan", str(run.suite))
    run.store.add_kept("plan", record)
    run.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"))
    run.store.finish(complete=True)
    assert read_records(run.snapshot) == (record,)
    (change,) = run.store.changes
    assert change.describe() == (
        "not updated with two: [spec] gave no result, and only what holds in the whole is written; run that as well",
    )


def test_what_is_kept_and_fails_in_the_whole_loses_its_entry(run: Run) -> None:
    record = kept(run)
    run.store.add_plan("plan", str(run.suite))
    run.store.add_kept("plan", record)
    run.take(SpecRecord(sources=(), dropped={"one": "it is slower"}))
    assert run.store.finish(complete=True).dispatches[0].reason == "it is slower"
    assert not run.snapshot.exists()
    assert run.store.changes[0].describe()[0].startswith("one: removed (")


def test_a_default_that_fails_speaks_against_no_entry(run: Run) -> None:
    record = kept(run)
    run.take(make_record(ONE, "default", state=State.COMPILE_FAILED), make_final(ONE, None), VERIFIED)
    run.store.finish(complete=True)
    assert read_records(run.snapshot) == (record,)


def test_an_entry_is_dropped_only_where_the_whole_suite_was_collected(run: Run) -> None:
    record = kept(run)
    odd = msgspec.structs.replace(record, dispatch="odd", root=make_task("odd", 8).dispatch.root)
    untunable = msgspec.structs.replace(odd, dispatch="unread", ops=(RecordedOp("model", "odd_0"),))
    for whole, left in ((), ["one", "odd"]), ([str(run.suite)], ["one"]):
        write_spec(run.snapshot, [record, odd])
        later = Run(run.out.parent)
        later.store.add_collected(Collected(whole=tuple(whole)))
        later.take(make_record(TWO, "default", 1.0), make_final(TWO, None), VERIFIED)
        later.store.finish(complete=True)
        assert [each.dispatch for each in read_records(run.snapshot)] == left
    assert later.store.changes[0].describe()[0].endswith(": its dispatch is in the suite no more")
    write_spec(run.snapshot, [record, untunable])
    again = Run(run.out.parent)
    again.store.add_collected(Collected(whole=(str(run.suite),)))
    again.take(make_record(TWO, "default", 1.0), make_final(TWO, None), VERIFIED)
    again.store.finish(complete=True)
    assert again.store.changes[0].describe() == (), "what cannot be tuned today may be tomorrow"


MEASURED_WHOLE = SpecRecord(sources=(SourceCheck(source="model", applied=1, ratio=1.5),), dropped={}, model="model")
RUNNABLE = Source(name="model", text="", is_benchmark=False, functions={"main": ()})
APART = msgspec.structs.replace(
    make_task("apart", 24),
    dispatch=msgspec.structs.replace(
        make_task("apart", 24).dispatch, members=(Member(symbol="apart_0", source="op", calls=1, module=MODULE),)
    ),
)


@pytest.mark.parametrize("had_snapshot", [True, False])
def test_an_entry_of_a_model_that_was_not_measured_end_to_end_is_told_and_not_written(
    tmp_path: Path, had_snapshot: bool
) -> None:
    run = Run(tmp_path, plans={"plan": msgspec.structs.replace(PLAN, sources=(RUNNABLE,), tasks=(ONE, APART))})
    if had_snapshot:
        write_spec(run.snapshot, [msgspec.structs.replace(kept(Run(tmp_path)), id="bbbbbb")])
    before = run.snapshot.read_bytes() if had_snapshot else b""
    run.store.add_collected(Collected(whole=(str(run.suite),)))
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    run.store.finish(complete=False)
    (change,) = run.store.changes
    why = "[model-end-to-end] gave no result, and only what holds in the whole is written; run that as well"
    assert change.describe() == (f"not updated with one: {why}",)
    assert change.is_unwritten != had_snapshot
    assert (run.snapshot.read_bytes() if had_snapshot else b"") == before


def test_only_what_a_model_has_waits_for_it(tmp_path: Path) -> None:
    run = Run(tmp_path, plans={"plan": msgspec.structs.replace(PLAN, sources=(RUNNABLE,), tasks=(ONE, APART))})
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    run.take(make_record(APART, "default", 1.0), make_record(APART, "aaaaaa", 2.0), make_final(APART, "aaaaaa"))
    run.store.finish(complete=True)
    assert [each.dispatch for each in read_records(run.snapshot)] == ["apart"]
    again = Run(tmp_path, plans={"plan": msgspec.structs.replace(PLAN, sources=(RUNNABLE,))})
    again.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED, MEASURED_WHOLE)
    again.store.finish(complete=True)
    assert [each.dispatch for each in read_records(run.snapshot)] == ["apart", "one"]


def test_nothing_is_gone_from_a_suite_before_all_of_it_was_tried(tmp_path: Path) -> None:
    record = kept(Run(tmp_path))
    odd = msgspec.structs.replace(record, dispatch="odd", root=make_task("odd", 8).dispatch.root)
    run = Run(tmp_path, plans={"plan": msgspec.structs.replace(PLAN, sources=(RUNNABLE,))})
    write_spec(run.snapshot, [record, odd])
    run.store.add_collected(Collected(whole=(str(run.suite),)))
    run.take(make_record(TWO, "default", 1.0), make_final(TWO, None), VERIFIED)
    run.store.finish(complete=False)
    assert read_records(run.snapshot) == (record, odd)


def test_entries_without_a_record_stay_in_the_snapshot(run: Run) -> None:
    record, foreign = kept(run), make_task("foreign", 16)
    entry = SpecEntry(name="foreign", root=foreign.dispatch.root, compilation_info=INFO.format(24))
    write_spec(run.snapshot, [record], build_spec([entry]))
    run.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"), VERIFIED)
    run.store.finish(complete=True)
    matchers = [row.matcher for row in read_spec(run.snapshot.read_text())]
    assert matchers == ["match_one", "match_two", "match_foreign"]
    assert run.store.changes[0].describe()[0].startswith("two: added (")


@pytest.mark.parametrize("suffix", [".mlir", ".jsonl"])
def test_a_snapshot_that_cannot_be_read_stays_as_it_is(run: Run, suffix: str) -> None:
    kept(run)
    spoilt = run.snapshot.with_suffix(suffix)
    spoilt.write_text(f"<<<<<<<\n{spoilt.read_text()}")
    before = run.snapshot.read_bytes(), records_path(run.snapshot).read_bytes()
    run.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"), VERIFIED)
    run.store.finish(complete=True)
    assert (run.snapshot.read_bytes(), records_path(run.snapshot).read_bytes()) == before
    (change,) = run.store.changes
    assert change.problem
    assert change.describe() == (f"not updated: {change.problem}",)


def test_each_suite_that_has_a_dispatch_gets_its_entry(tmp_path: Path) -> None:
    """Two suites in one run, and later one of them again with what it has."""
    other = Path(tmp_path, "other")
    members = (Member(symbol="there_3", source="another", calls=7, module=MODULE),)
    there = msgspec.structs.replace(ONE, dispatch=msgspec.structs.replace(ONE.dispatch, members=members))
    plans = {"plan": PLAN, "other": msgspec.structs.replace(PLAN, tasks=(there,))}
    run = Run(tmp_path, plans=plans)
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    run.take(VERIFIED, plan="other", suite=other)
    run.store.finish(complete=True)
    paths = [run.snapshot, run.store.snapshot_of(str(other))]
    assert run.store.snapshots == tuple(sorted(paths))
    ((first,), (second,)) = map(read_records, paths)
    assert (first.ops, first.weight) == ((RecordedOp("model", "one_0"),), 3)
    assert (second.ops, second.weight) == ((RecordedOp("another", "there_3"),), 7)
    assert (first.id, first.ratio, first.samples_us) == (second.id, second.ratio, second.samples_us)
    # What was tuned apart has figures of its own.
    second = msgspec.structs.replace(second, ratio=1.75, samples_us=(5.5,))
    write_spec(paths[1], [second])
    again = Run(tmp_path, plans=plans)
    again.store.add_plan("plan", str(run.suite))
    again.store.add_plan("other", str(other))
    again.store.add_kept("plan", first)
    again.take(VERIFIED)
    again.take(VERIFIED, plan="other", suite=other)
    again.store.finish(complete=True)
    assert [read_records(path) for path in paths] == [(first,), (second,)]
    assert [change.describe() for change in again.store.changes] == [(), ()]


def test_a_suite_whose_own_spec_was_not_tried_gets_no_entry(tmp_path: Path) -> None:
    other = Path(tmp_path, "other")
    run = Run(tmp_path, plans={"plan": PLAN, "other": PLAN})
    run.store.add_plan("other", str(other))
    run.take(*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
    run.store.finish(complete=True)
    assert run.store.snapshots == (run.snapshot,)
    (told,) = [change.describe() for change in run.store.changes if change.is_unwritten]
    assert told[0].startswith("not updated with one: [spec] gave no result")


def test_an_entry_that_another_run_adds_meanwhile_is_not_gone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.add_collected(Collected(whole=(str(run.suite),)))
    record = kept(Run(tmp_path))
    new = msgspec.structs.replace(record, dispatch="new", root=make_task("new", 8).dispatch.root)
    write_spec(run.snapshot, [record, new])
    run.take(make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"), VERIFIED)
    run.store.finish(complete=True)
    assert [each.dispatch for each in read_records(run.snapshot)] == ["one", "new", "two"]


def write_entry(directory: Path, name: str, ready: Barrier) -> None:
    """What one of several runs does to the snapshot that they share."""
    task = make_task(name, 8 * (int(name.removeprefix("entry_")) + 1))
    run = Run(directory / name, plans={"plan": msgspec.structs.replace(PLAN, tasks=(task,))})
    suite = directory / "suite"
    found = (make_record(task, "default", 1.0), make_record(task, "aaaaaa", 2.0), make_final(task, "aaaaaa"), VERIFIED)
    run.take(*found, suite=suite)
    ready.wait(60)
    run.store.finish(complete=True)


def test_runs_that_write_a_snapshot_at_the_same_moment_lose_no_entry(tmp_path: Path) -> None:
    context = get_context("fork")
    for _ in range(3):
        names = [f"entry_{number}" for number in range(4)]
        ready = context.Barrier(len(names))
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        processes = [context.Process(target=write_entry, args=(tmp_path, name, ready)) for name in names]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * len(names)
        snapshot = tmp_path / "suite" / "__specs__" / "llvm-cpu-some-cpu.mlir"
        assert sorted(each.dispatch for each in read_records(snapshot)) == names
        assert sorted(row.matcher for row in read_spec(snapshot.read_text())) == [f"match_{name}" for name in names]
        assert sorted(path.suffix for path in snapshot.parent.iterdir()) == [".jsonl", ".mlir"], "no lock is left"
        shutil.rmtree(snapshot.parent)


NOTHING_WON = (*ALL_OF_ONE, make_final(ONE, None), VERIFIED)
WON = (*ALL_OF_ONE, make_final(ONE, "aaaaaa"), VERIFIED)
BOTH = (*WON, make_record(TWO, "default", 1.0), make_record(TWO, "aaaaaa", 2.0), make_final(TWO, "aaaaaa"))


@pytest.mark.parametrize(
    ("coverage", "complete"), [(Coverage.TESTS, True), (Coverage.FILES, True), (Coverage.WHOLE, False)]
)
@pytest.mark.parametrize("found", [NOTHING_WON, WON], ids=["nothing-won", "won"])
def test_a_run_of_a_part_keeps_the_spec_of_the_whole(
    tmp_path: Path, coverage: Coverage, complete: bool, found: tuple[Record | FinalRecord | SpecRecord, ...]
) -> None:
    full = Run(tmp_path)
    full.take(*BOTH)
    assert full.store.finish(complete=True).run.spec_coverage is Coverage.WHOLE
    before = full.store.spec_path.read_bytes()
    for _ in range(2):  # The summary is the part's then, and still tells of the spec.
        part = Run(tmp_path)
        part.store.add_collected(Collected(coverage=coverage))
        part.take(*found)
        summary = part.store.finish(complete=complete)
        assert (summary.run.keeps_spec, summary.run.spec_coverage) == (True, Coverage.WHOLE)
        assert part.store.spec_path.read_bytes() == before
    again = Run(tmp_path)
    again.take(*WON)
    assert not again.store.finish(complete=True).run.keeps_spec
    assert again.matchers == ["match_one"]


def test_a_model_that_stays_as_it_is_leaves_no_file_in_its_suite(run: Run) -> None:
    stays = FormRecord(model="net", target="llvm-cpu", device="Some CPU", iree="3.13.0")
    run.take(*NOTHING_WON)
    run.store.add(TestResult(plan="plan", suite=str(run.suite), form=stays))
    run.store.finish(complete=True)
    assert [path.parent for path in run.store.form_paths] == [run.out]
    assert not run.snapshot.parent.exists()


def test_a_form_that_won_alone_is_kept_in_the_suite(run: Run) -> None:
    form = Form(name="O3", flags=("--iree-opt-level=O3",))
    won = FormRecord(model="net", form=form, target="llvm-cpu", device="Some CPU", iree="3.13.0")
    run.take(*NOTHING_WON)
    run.store.add(TestResult(plan="plan", suite=str(run.suite), form=won))
    run.store.finish(complete=True)
    assert {path.parent for path in run.store.form_paths} == {run.out, run.snapshot.parent}
    assert [record.form for record in find_forms(run.snapshot)] == [form]


def test_a_part_replaces_the_spec_of_another_part_and_removes_none(tmp_path: Path) -> None:
    def run(*found: Record | FinalRecord | SpecRecord) -> list[str]:
        part = Run(tmp_path)
        part.store.add_collected(Collected(coverage=Coverage.TESTS))
        part.take(*found)
        part.store.finish(complete=True)
        return part.matchers

    assert run(*BOTH) == ["match_one", "match_two"]
    assert run(*WON) == ["match_one"]
    assert run(*NOTHING_WON) == ["match_one"]
