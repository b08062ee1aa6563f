"""The progress of a run as a line, on a clock made up here."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_shark_tune.plan.roles import Phase
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.report.progress_text import RunProgress
from pytest_shark_tune.report.remaining import replay
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.system.units import format_s
from tests.factories import make_record


class Watch:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def record(identifier: str, ratio: float | None = None) -> Record:
    state, samples_us = (State.RUN_FAILED, ()) if ratio is None else (State.MEASURED, (10 / ratio,) * 3)
    return make_record(identifier, dispatch="mm", state=state, samples_us=samples_us, ratio=ratio)


def begin(progress: RunProgress, total_s: float | None = None, finals: int = 0) -> None:
    budget = TimeBudget.starting_now(total_s)
    progress.begin_search(Counter({Phase.FINAL: finals}), budget, ops=2, models_s=0.0, devices=1)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_step_is_shown_with_its_number(watch: Watch) -> None:
    progress = RunProgress(watch)
    progress.add_step(Step("finding the configs of mm", Stage.EXTRACT, 3, 18))
    assert progress.line() == "extract 4 of 18: finding the configs of mm"


def test_the_best_so_far_is_an_estimate_and_the_time_left_is_that_of_everything(watch: Watch) -> None:
    progress = RunProgress(watch)
    watch.now_s += 500
    begin(progress, finals=2)
    watch.now_s += 10
    progress.add_record(record(DEFAULT_ID, 1.0), waiting=59)
    assert progress.line() == "search 1 of 60: none faster yet (mm)"
    watch.now_s += 10
    progress.add_record(record("a", 2.04), waiting=58)
    assert progress.line() == "search 2 of 60, about 10 min left: best about 2.0x (mm)"
    progress.add_record(record("b"), waiting=57)
    progress.add_record(record("c", 1.5), waiting=56)
    assert progress.line().endswith("best about 2.0x (mm)")


def test_the_best_of_an_earlier_run_is_the_best_so_far(watch: Watch) -> None:
    progress = RunProgress(watch)
    progress.note(record("known", 1.8))
    progress.note(record("slow", 0.5))
    begin(progress)
    progress.add_record(record("a", 1.5), waiting=20)
    assert progress.line().endswith("best about 1.8x (mm)")


def test_the_search_ends_by_its_limit(watch: Watch) -> None:
    progress = RunProgress(watch)
    begin(progress, 80.0)
    assert not progress.is_spent()
    watch.now_s += 59
    assert not progress.is_spent()
    watch.now_s += 2
    assert progress.is_spent()


def test_without_a_limit_the_search_is_never_spent(watch: Watch) -> None:
    progress = RunProgress(watch)
    begin(progress)
    watch.now_s += 1e6
    assert not progress.is_spent()


def test_the_events_give_the_same_estimate_again(watch: Watch) -> None:
    progress = RunProgress(watch)
    begin(progress, finals=3)
    for number in range(20):
        watch.now_s += 2
        progress.add_record(record(str(number), 1.1), waiting=40 - number)
    assert progress.left_s() == replay(progress.events, progress.passed_s)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5900.0, "98 min"), (7200.0, "2.0 h")]
)
def test_a_span_is_told_as_precisely_as_it_matters(seconds: float, words: str) -> None:
    assert format_s(seconds) == words
