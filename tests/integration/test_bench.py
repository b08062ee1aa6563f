"""The bench with real candidates: how a run's processes tell each other what a finalist has to reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan import Task, make_plan, read_source
from pytest_shark_tune.session import Session
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.stages.measurement import Measurement
from pytest_shark_tune.stages.space.request import SpaceRequest
from pytest_shark_tune.stages.winner import FINALISTS
from pytest_shark_tune.tools import journal
from pytest_shark_tune.tools.cache import Cache
from pytest_shark_tune.tools.compiler import Compiler, Target


@pytest.fixture
def task() -> Task:
    source = read_source(ops.matmul(m=64, n=64, k=64), Path())
    (task,) = make_plan([source], Compiler(Target.parse("llvm-cpu")), processors=2, count=4, seed=0).tasks
    return task


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    settings = RunSettings(
        devices=("local-task",),
        device_name="cpu",
        jobs=2,
        candidates=4,
        seed=0,
        records=tmp_path / "records.jsonl",
        finals=tmp_path / "finals.jsonl",
        exchange=tmp_path / "exchange",
        request=SpaceRequest(),
    )
    session = Session(settings, Compiler(Target.parse("llvm-cpu")), Cache(tmp_path / "cache"))
    yield session
    session.close()


def measure_all(session: Session, task: Task) -> list[Measurement]:
    measured = []
    for candidate in (task.default, *task.candidates):
        try:
            measured.append(session.measure(task, candidate, session.artifact(task, candidate)))
        except CandidateFailed:
            assert candidate is not task.default
    return measured


def test_candidates_raise_the_bar_and_whoever_stays_below_is_dropped(session: Session, task: Task) -> None:
    bars = session.settings.exchange / "bars" / f"{task.dispatch.key}.jsonl"
    default, *candidates = measure_all(session, task)
    assert len(candidates) >= 2
    told = [round(each.ratio_low, 5) for each in candidates if not each.cut_short and each.ratio_low > 1]
    assert journal.read(bars, float) == told
    # As if another process had found four that are out of reach; the default is measured all the same.
    bars.parent.mkdir(exist_ok=True)
    for _ in range(FINALISTS):
        journal.append(bars, 1000.0)
    default, *candidates = measure_all(session, task)
    assert default.ratio_high != 1000.0
    assert all(each.cut_short and each.ratio_high in (1.0, 1000.0) for each in candidates)
    assert any(each.ratio_high == 1000.0 for each in candidates)
    assert journal.read(bars, float) == [*told, *[1000.0] * FINALISTS]
