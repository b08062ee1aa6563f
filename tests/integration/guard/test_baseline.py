"""Guarding without a spec: times are recorded, and compared beside a microbenchmark, with runs that need no clock."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.guard.baseline import Baselines, baseline_plan
from pytest_shark_tune.guard.plan import BaselineSubject, GuardEntry
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.records.baseline import BaselineRecord
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.settings import RunSettings
from tests.models import matmuls

PLAYS: dict[str, float] = {}


def played(ratio: float) -> Measurement:
    return Measurement(
        samples_us=(1000.0 / ratio,),
        baseline_samples_us=(1000.0,),
        ratio=ratio,
        ratio_low=ratio * 0.99,
        ratio_high=ratio * 1.01,
        batch=10,
        blocks=4,
        noise=0.005,
    )


@pytest.fixture
def guarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuardSession:
    """A session whose rounds have the ratio that the test sets."""
    (tmp_path / "model.mlir").write_text(matmuls("main", 64, 32, 48))
    settings = RunSettings.in_directory(tmp_path, ("local-task",), "this CPU", jobs=2)
    session = GuardSession(settings, Compiler(Target.parse("llvm-cpu")), Cache(tmp_path / "cache"))
    monkeypatch.setattr(Baselines, "_play", lambda *_: played(PLAYS["ratio"]))
    monkeypatch.setattr(Baselines, "_loader", lambda *_: None)
    monkeypatch.setattr(type(session.microbenchmarks), "largest_code", "the code")
    return session


def verdicts(session: GuardSession, directory: Path, *, golden: Path | None = None) -> dict[str, Verdict]:
    path = None if golden else directory / "baseline.jsonl"
    plan = session.baseline_plan(["model.mlir"], directory, path, golden)
    return {entry.name: session.evaluator.evaluate(plan, entry, entry.checks[0], alpha=0.002) for entry in plan.entries}


@pytest.mark.compiler
def test_times_are_recorded_once_and_a_slowdown_fails(guarding: GuardSession, tmp_path: Path) -> None:
    PLAYS["ratio"] = 2.0
    first = verdicts(guarding, tmp_path)
    assert "model" in first
    assert len(first) >= 2
    records = [verdict.recorded for verdict in first.values()]
    assert all(isinstance(record, BaselineRecord) for record in records)
    for record in records:
        journal.append(tmp_path / "baseline.jsonl", record)
    same = verdicts(guarding, tmp_path)
    assert {verdict.outcome for verdict in same.values()} == {CheckOutcome.PASSED}
    assert not any(verdict.recorded for verdict in same.values())
    PLAYS["ratio"] = 1.7
    slower = verdicts(guarding, tmp_path)["model"]
    assert slower.outcome is CheckOutcome.FAILED
    assert "it is slower than recorded: 0.850" in slower.reason
    changed = [msgspec.structs.replace(record, calibration="other") for record in records if record]
    for record in changed:
        journal.append(tmp_path / "baseline.jsonl", record)
    skipped = verdicts(guarding, tmp_path)["model"]
    assert skipped.outcome is CheckOutcome.SKIPPED
    assert "--tune-baseline-update" in skipped.reason


@pytest.mark.compiler
def test_cold_dispatches_are_compared_only_if_they_were_recorded(guarding: GuardSession, tmp_path: Path) -> None:
    plan = guarding.plan_of(["model.mlir"], tmp_path)
    (cold,) = [task.name for task in plan.tasks]
    hot = msgspec.structs.replace(plan, tasks=())
    path = tmp_path / "baseline.jsonl"
    make = partial(baseline_plan, plan, hot, "llvm-cpu", "this CPU", path, None)
    assert [entry.name for entry in make().entries] == ["model"]
    record = BaselineRecord(
        name=cold,
        us=1,
        ratio=1,
        ratio_low=1,
        ratio_high=1,
        calibration="the code",
        target="llvm-cpu",
        device="this CPU",
        iree="3.13.0",
    )
    journal.append(path, record)
    assert [entry.name for entry in make().entries] == [cold, "model"]
    assert [entry.name for entry in make(updates=True).entries] == ["model"]


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("ms", "outcome", "reason"),
    [
        (10.0, CheckOutcome.PASSED, ""),
        (0.1, CheckOutcome.FAILED, "it takes 0.5 ms"),
        (0.5, CheckOutcome.UNDECIDED, "the golden time is tighter than the noise"),
    ],
)
def test_golden_times_are_limits_and_tight_ones_are_told(
    guarding: GuardSession, tmp_path: Path, ms: float, outcome: CheckOutcome, reason: str
) -> None:
    PLAYS["ratio"] = 2.0
    golden = tmp_path / "golden.json"
    golden.write_text(f'{{"golden_time_ms": {ms}}}')
    (verdict,) = verdicts(guarding, tmp_path, golden=golden).values()
    assert (verdict.check, verdict.outcome) == (EntryCheck.GOLDEN, outcome)
    assert reason in verdict.reason


def test_golden_times_are_for_one_model(guarding: GuardSession, tmp_path: Path) -> None:
    (tmp_path / "other.mlir").write_text(matmuls("other", 64, 32, 48))
    (tmp_path / "golden.json").write_text('{"golden_time_ms": 1}')
    with pytest.raises(InputError, match="golden times are for one model that can be run, and there are 2"):
        guarding.baseline_plan(["model.mlir", "other.mlir"], tmp_path, None, tmp_path / "golden.json")


def test_the_check_of_a_subject_is_its_own() -> None:
    entry = GuardEntry(name="model", baseline=BaselineSubject(model="model"))
    assert entry.checks == (EntryCheck.BASELINE,)
    assert not EntryCheck.BASELINE.is_static
