"""What a run tells of its progress, on a clock made up here."""

from __future__ import annotations

import pytest

from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.report.progress_text import RunProgress
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
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


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_new_best_is_told_with_the_time_left_at_the_pace_so_far(watch: Watch) -> None:
    progress = RunProgress(None, watch)
    watch.now_s += 500
    progress.start()
    assert progress.line(record(DEFAULT_ID, 1.0), tried=1, of=61, waiting=60) == ""
    watch.now_s += 10
    told = progress.line(record("a", 2.0), tried=2, of=61, waiting=59)
    assert told == "mm: 2/61 tried, best so far a with 2.00 times the default's speed (5 us), about 5 min left"


def test_what_is_hardly_better_or_fails_is_not_told(watch: Watch) -> None:
    progress = RunProgress(None, watch)
    assert progress.line(record("a", 2.0), tried=1, of=9, waiting=3)
    for each in (record("b", 2.01), record("c", 1.5), record("d")):
        assert progress.line(each, tried=2, of=9, waiting=3) == ""
    assert "best so far e" in progress.line(record("e", 2.1), tried=3, of=9, waiting=3)


def test_after_half_a_minute_without_news_there_is_a_line_all_the_same(watch: Watch) -> None:
    progress = RunProgress(None, watch)
    lines = []
    for number in range(1, 41):
        watch.now_s += 4
        lines.append(progress.line(record(str(number)), tried=number, of=41, waiting=40 - number))
    told = [line for line in lines if line]
    assert len(told) == 5
    assert told[0] == "mm: 8/41 tried, none faster than the default so far, about 2 min left"
    assert told[-1] == lines[-1] == "mm: 40/41 tried, none faster than the default so far"


def test_the_time_given_is_the_most_that_is_left(watch: Watch) -> None:
    progress = RunProgress(60.0, watch)
    progress.start()
    assert progress.left_s(100) == 60
    watch.now_s += 20
    assert "about 40 s left" in progress.line(record("a", 2.0), tried=1, of=101, waiting=100)
    assert "about 20 s left" in progress.line(record("b", 3.0), tried=2, of=101, waiting=2)
    assert not progress.is_spent()
    watch.now_s += 41
    assert progress.is_spent()
    assert progress.left_s(100) == 0


def test_the_best_of_an_earlier_run_is_the_best_so_far_and_no_news(watch: Watch) -> None:
    progress = RunProgress(None, watch)
    progress.note(record("known", 1.8))
    progress.note(record("slow", 0.5))
    watch.now_s += 500
    progress.start()
    watch.now_s += 10
    assert progress.line(record("a", 1.5), tried=41, of=61, waiting=20) == ""
    watch.now_s += 30
    told = progress.line(record("b"), tried=42, of=61, waiting=6)
    assert told == "mm: 42/61 tried, best so far known with 1.80 times the default's speed (5.56 us), about 2 min left"


def test_without_a_limit_and_before_the_first_nobody_knows(watch: Watch) -> None:
    progress = RunProgress(None, watch)
    watch.now_s += 1e6
    assert progress.left_s(5) is None
    assert not progress.is_spent()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5900.0, "98 min"), (7200.0, "2.0 h")]
)
def test_a_span_is_told_as_precisely_as_it_matters(seconds: float, words: str) -> None:
    assert format_s(seconds) == words
