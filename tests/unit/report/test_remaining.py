"""The time left of a run, from events made up here."""

from __future__ import annotations

import msgspec
import pytest

from pytest_shark_tune.report.remaining import Event, Remaining, Workload, replay
from pytest_shark_tune.system.steps import Stage, Step

WORK = Workload(finals=4, models=2)


def searched(done: float, of: float, at_s: float, work: Workload = WORK) -> list[Event]:
    begun = Event(s=10.0, stage=Stage.SEARCH, work=work)
    return [begun, Event(s=at_s, stage=Stage.SEARCH, done=done, of=of)]


def test_before_the_search_nothing_is_known() -> None:
    assert replay([Event(s=1.0, stage=Stage.EXTRACT, done=1, of=9)], 5.0) is None
    assert replay(searched(0, 100, 11.0), 11.0) is None


def test_the_rest_of_the_search_goes_at_its_pace_and_finals_and_models_come_after() -> None:
    left_s = replay(searched(50, 100, 60.0), 60.0)
    alone_s = replay(searched(50, 100, 60.0, Workload(finals=0, models=0)), 60.0)
    assert left_s is not None
    assert alone_s is not None
    assert alone_s == pytest.approx(50.5)
    assert left_s > alone_s + 4 * 5 + 2 * 5, "finals take rounds over all dispatches, and models are compiled"


def test_a_limit_ends_each_stage_and_the_run() -> None:
    limited = Workload(finals=100, models=100, search_s=60.0, finals_s=80.0, total_s=100.0)
    assert replay(searched(100, 1000, 60.0, limited), 60.0) == pytest.approx(50.5)
    assert replay(searched(0, 1000, 10.0, limited), 10.0) == pytest.approx(100.0)
    overdue_s = replay(searched(0, 1000, 10.0, limited), 120.0)
    assert overdue_s is None, "nothing was tried yet"
    overdue_s = replay(searched(100, 1000, 60.0, limited), 120.0)
    assert overdue_s is not None
    assert overdue_s > 60, "two rounds of finals are played all the same"


def test_steps_of_the_extraction_say_nothing_about_the_rest_of_a_limited_run() -> None:
    limited = Workload(finals=0, models=0, total_s=720.0)
    events = [Event(s=1.0, stage=Stage.EXTRACT, work=limited), Event(s=60.0, stage=Stage.EXTRACT, done=29, of=30)]
    assert replay(events, 61.0) == pytest.approx(660.0)


def test_the_rounds_of_finals_tell_how_long_they_take() -> None:
    events = [*searched(100, 100, 110.0, Workload(finals=4, models=0)), Event(s=110.0, stage=Stage.FINALS)]
    events.append(Event(s=140.0, stage=Stage.FINALS, done=6, of=14))
    assert replay(events, 140.0) == pytest.approx(30 * 8 / 6 + 0.5)


def test_a_test_of_a_whole_model_takes_what_is_expected_and_its_rest_shrinks() -> None:
    work = Workload(finals=0, models=2, models_s=50.0)
    events = [*searched(100, 100, 110.0, work), Event(s=110.0, stage=Stage.MODELS)]
    assert replay(events, 120.0) == pytest.approx(40 - 10 + 0.5)
    events.append(Event(s=112.0, stage=Stage.MODELS, done=1, of=2))
    assert replay(events, 112.0) == pytest.approx(20.5)
    assert replay(events, 122.0) == pytest.approx(10.5)
    slow = [*events[:-1], Event(s=150.0, stage=Stage.MODELS, done=1, of=2)]
    assert replay(slow, 151.0) == pytest.approx(39.5)


@pytest.mark.parametrize(
    ("models_s", "forms", "sure", "left_s"),
    [
        (50.0, 0, None, 40),
        (50.0, 0, 1, 40),
        (50.0, 0, 0, 0.4),
        (50.0, 1, 0, 40),  # Forms are compared even if no config wins.
        (None, 0, 2, 0.4 + 2 * 18),
        (None, 0, 9, 0.4 + 3 * 18),
    ],
)
def test_whole_models_take_time_if_a_config_may_win(
    models_s: float | None, forms: int, sure: int | None, left_s: float
) -> None:
    work = Workload(finals=0, models=2, sources=3, models_s=models_s, forms=forms)
    begun, tried = searched(50, 100, 60.0, work)
    assert replay([begun, msgspec.structs.replace(tried, sure=sure)], 60.0) == pytest.approx(50 + left_s + 0.5)


def test_the_fewest_rounds_are_played_though_their_time_is_up() -> None:
    work = Workload(finals=4, models=0, search_s=10.0, finals_s=20.0, total_s=25.0)
    events = [*searched(100, 100, 20.0, work), Event(s=20.0, stage=Stage.FINALS)]
    events.append(Event(s=60.0, stage=Stage.FINALS, done=2, of=14))
    assert replay(events, 60.0) == pytest.approx(40.5)
    remaining = Remaining()
    for event in events:
        remaining.add(event)
    assert remaining.stage is Stage.FINALS


def test_an_earlier_stage_does_not_come_back() -> None:
    remaining = Remaining()
    remaining.add(Event(s=5.0, stage=Stage.FINALS, done=2, of=14))
    remaining.add(Event(s=6.0, stage=Stage.SEARCH, done=60, of=61))
    assert (remaining.stage, remaining.steps) == (Stage.FINALS, (2, 14))


def test_a_step_travels_as_text() -> None:
    step = Step("finals of 3 dispatches", Stage.FINALS, 2, 14)
    read = Step.from_json(step.to_json())
    assert (read, read.stage, read.done, read.of) == ("finals of 3 dispatches", Stage.FINALS, 2, 14)
