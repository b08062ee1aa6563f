"""Landscapes made of records made up here, written and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.plan.types import KernelTask, Plan
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.results.landscape import landscape_of, write_landscapes
from pytest_shark_tune.results.replay import read_landscape
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import kernel_candidates, kernel_default
from tests import factories

SPACE = SearchSpace.of("Blocked", {"bi": (1, 2, 4, 8), "bj": (1, 2, 4)})
KNOBS = [{"bi": bi, "bj": bj} for bi in (1, 2, 4, 8) for bj in (1, 2, 4)]


def kernel(name: str) -> KernelTask:
    return KernelTask(
        name=name,
        weight=1,
        default=kernel_default(name, SPACE, KNOBS[0]),
        candidates=kernel_candidates(name, SPACE, KNOBS[1:]),
        space_size=len(KNOBS),
    )


def make_record(
    task: KernelTask, identity: str, time_us: float | None, state: State = State.MEASURED, *, duplicate_of: str = ""
) -> Record:
    candidate = task.candidate(identity)
    return factories.make_record(
        identity,
        dispatch=task.name,
        pipeline=candidate.pipeline,
        knobs=candidate.knobs,
        state=state,
        reason="" if time_us else "because",
        duplicate_of=duplicate_of,
        compile_s=0.5,
        samples_us=(time_us, time_us) if time_us else (),
        baseline_samples_us=(10.0, 10.2) if time_us else (),
        ratio=10 / time_us if time_us else None,
    )


def records_of(task: KernelTask) -> list[Record]:
    """Times of 9 and more for most, 5 for the last; one that failed, and two duplicates."""
    ids = [each.id for each in task.candidates]
    return [
        make_record(task, "default", 10.1),
        make_record(task, ids[-1], 5.0),
        make_record(task, ids[0], None, State.COMPILE_FAILED),
        make_record(task, ids[1], None, State.DUPLICATE, duplicate_of=ids[-1]),
        make_record(task, ids[2], None, State.DUPLICATE, duplicate_of="default"),
        *(make_record(task, name, 9.0 + position) for position, name in enumerate(ids[3:-2])),
    ]


def ledger_of(directory: Path, *tasks: KernelTask) -> ResultStore:
    plan = Plan(sources=(), tasks=(), untunable=(), kernels=tasks)
    store = ResultStore(
        directory,
        {"plan": plan}.__getitem__,
        target="llvm-cpu",
        device="Some CPU",
        device_slug="some-cpu",
        versions={},
        starter=None,
    )
    store.add_plan("plan", "")
    return store


def take(store: ResultStore, *records: Record) -> None:
    for record in records:
        store.add(TestResult(plan="plan", suite="", record=record))


def test_what_was_tried_stands_in_the_order_of_the_plan_with_its_state() -> None:
    task = kernel("blocked")
    found = landscape_of(task, records_of(task), note="chosen by chance")
    assert found is not None
    assert (found.dispatch, found.device, found.target, found.iree) == ("blocked", "Some CPU", "llvm-cpu", "3.13.0")
    assert found.note == "10 of 11 candidates, chosen by chance"
    assert [each.knobs for each in found.candidates] == [*KNOBS[1:-2], KNOBS[-1]]
    assert [each.state.value for each in found.candidates[:4]] == [
        "compile_failed",
        "duplicate",
        "duplicate",
        "measured",
    ]
    assert found.candidates[0].reason == "because"
    assert found.candidates[0].compile_s == 0.5
    assert found.baseline_samples_us == ((10.0, 10.2),) * 8


def test_a_duplicate_is_as_fast_as_the_one_whose_binary_it_shares() -> None:
    task = kernel("blocked")
    found = landscape_of(task, records_of(task))
    assert found is not None
    assert found.ratios()[:4] == pytest.approx((None, 10.1 / 5, 1.0, 10.1 / 9))


def test_a_dispatch_of_iree_brings_its_facts(plan: Plan) -> None:
    (task,) = plan.tasks
    records = [
        Record(
            id=candidate.id,
            dispatch=task.name,
            pipeline=candidate.pipeline,
            knobs=candidate.knobs,
            config=candidate.config,
            state=State.MEASURED,
            samples_us=(9.0,),
            baseline_samples_us=(10.0,),
            ratio=1.1,
            device="Some CPU",
            target="llvm-cpu",
            iree="3.13.0",
        )
        for candidate in (task.default, *task.candidates)
    ]
    found = landscape_of(task, records)
    assert found is not None
    assert found.known_facts().loops == (64, 96, 128)
    assert found.known_facts().processors == task.dispatch.target.processors


def test_what_is_written_can_be_replayed(tmp_path: Path) -> None:
    task = kernel("blocked")
    store = ledger_of(tmp_path / "out", task)
    (tmp_path / "out").mkdir()
    take(store, *records_of(task))
    path = tmp_path / "new directory" / "blocked.json"
    assert write_landscapes(path, store, note="all") == [f"landscape: {path}"]
    assert read_landscape(path) == landscape_of(task, records_of(task), note="all")
    for strategy in ("exhaustive", "random", "model"):
        result = CliRunner().invoke(main, ["replay", str(path), "--strategy", strategy, "--seeds", "1"])
        assert result.exit_code == 0, result.output
        assert "not reached" not in result.output


def test_several_dispatches_get_a_file_each_and_one_without_a_measurement_is_told(tmp_path: Path) -> None:
    one, two, three = (kernel(name) for name in ("one", "two", "three"))
    store = ledger_of(tmp_path, one, two, three)
    take(store, *records_of(one), *records_of(three), make_record(two, "default", 10.0))
    assert write_landscapes(tmp_path / "run.json", store) == [
        f"landscape: {tmp_path / 'run-one.json'}",
        "no landscape of two: no candidate was measured",
        f"landscape: {tmp_path / 'run-three.json'}",
    ]
    assert read_landscape(tmp_path / "run-three.json").dispatch == "three"


def test_a_name_that_is_no_file_name_becomes_one(tmp_path: Path) -> None:
    odd, plain = kernel("a/b c.d"), kernel("plain")
    store = ledger_of(tmp_path, odd, plain)
    take(store, *records_of(odd))
    write_landscapes(tmp_path / "run.json", store)
    assert (tmp_path / "run-a_b_c.d.json").is_file()


def test_what_cannot_be_written_is_a_failure_of_the_run(tmp_path: Path) -> None:
    task = kernel("blocked")
    store = ledger_of(tmp_path, task)
    take(store, *records_of(task))
    (tmp_path / "taken").mkdir()
    assert write_landscapes(tmp_path / "taken", store) == []
    (error,) = store.failures
    assert error.filename == str(tmp_path / "taken")


def test_the_option_names_a_file(pytester: pytest.Pytester) -> None:
    def asked(*arguments: str) -> Path | None:
        return TuneOptions.from_pytest_config(pytester.parseconfig("--tune", *arguments)).landscape

    assert asked() is None
    assert asked("--tune-record-landscape=a.json") == pytester.path / "a.json"
    with pytest.raises(pytest.UsageError, match=r"--tune-record-landscape: .* is a directory; name a file in it"):
        asked("--tune-record-landscape=.")
