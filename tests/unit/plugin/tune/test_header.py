"""The header and the end of a run: how its time is shared out, and how it was spent."""

from __future__ import annotations

from pytest_shark_tune.plugin.tune.header import describe_shares, describe_spent
from pytest_shark_tune.report.remaining import Event
from pytest_shark_tune.system.steps import Stage


def test_the_shares_of_the_time_are_those_of_the_budget() -> None:
    assert describe_shares(600.0).startswith(
        "10 min (--tune-time): forms until 2 min, search until 6 min, finals until 8 min"
    )


def test_the_time_of_each_stage_adds_up() -> None:
    stages = (
        (Stage.EXTRACT, 0.0),
        (Stage.SEARCH, 5.0),
        (Stage.SEARCH, 30.0),
        (Stage.FINALS, 65.0),
        (Stage.WRITE, 80.0),
    )
    events = [Event(s=s, stage=stage) for stage, s in stages]
    assert describe_spent(events, 82.0) == "time: 82 s, of which extract 5 s, search 60 s, finals 15 s, write 2 s"


def test_a_run_that_tried_nothing_says_nothing_of_its_time() -> None:
    assert describe_spent([Event(s=0.0, stage=Stage.EXTRACT)], 3.0) == ""
