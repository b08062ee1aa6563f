"""What a dispatch is worth in a model with several forms, while better configs are found."""

from __future__ import annotations

import pytest

from pytest_shark_tune.plan.costs import ModelCosts, slow_sources
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan


def form(name: str, outside_us: float, **times_us: tuple[float, float]) -> Profile:
    shares = tuple(
        Share(dispatch=dispatch, calls=1, time_us=time_us, share=0.1, least_us=least_us)
        for dispatch, (time_us, least_us) in times_us.items()
    )
    total_us = outside_us + sum(time_us for time_us, _ in times_us.values())
    return Profile(source=name, function="main", model_us=total_us, shares=shares, measured="")


DEFAULT = form("model", 0.0, both=(100.0, 10.0), slow=(100.0, 50.0))
FAST = form("model-fast", 0.0, both=(100.0, 10.0), quick=(40.0, 20.0))
UNTUNED = dict.fromkeys(("both", "slow", "quick"), 1.0)


def test_the_fastest_form_counts_fully_and_another_by_what_it_need_not_catch_up() -> None:
    costs = ModelCosts([DEFAULT, FAST]).costs(UNTUNED)
    assert costs["quick"].time_us == 40.0
    assert costs["both"].time_us == 100.0
    # It has to save 60 us to catch up, of 140 us that it can save at all.
    assert costs["slow"].time_us == pytest.approx(100.0 * (1 - 60 / 140))
    assert costs["slow"].least_us == pytest.approx(50.0 * (1 - 60 / 140))


def test_a_form_that_cannot_win_any_more_is_worth_nothing() -> None:
    ratios = UNTUNED | {"both": 10.0, "quick": 2.0}
    # 10 + 20 us against 10 + 100, of which the limits leave 60.
    costs = ModelCosts([DEFAULT, FAST]).costs(ratios)
    assert costs["slow"].time_us == 0.0
    assert costs["quick"].time_us == 40.0


def test_a_dispatch_that_is_not_tuned_keeps_its_time() -> None:
    costs = ModelCosts([DEFAULT, FAST]).costs({"both": 1.0, "quick": 1.0})
    # The default form can only save at the dispatch that both have: 90 us, and it is 60 us behind.
    assert costs["slow"].least_us == costs["slow"].time_us == pytest.approx(100.0 * (1 - 60 / 90))


def test_one_form_alone_is_never_behind() -> None:
    costs = ModelCosts([DEFAULT]).costs(UNTUNED)
    assert {name: cost.time_us for name, cost in costs.items()} == {"both": 100.0, "slow": 100.0}


def test_a_form_is_slow_by_the_best_speeds_so_far() -> None:
    sources = (
        Source(name="model", text="", is_benchmark=False),
        Source(name="model-fast", text="", is_benchmark=False, model="model"),
    )
    plan = Plan(sources=sources, tasks=(), untunable=(), profiles=(DEFAULT, FAST))
    assert slow_sources(plan, {}, 1.2) == {"model"}
    assert slow_sources(plan, {"slow": 4.0}, 1.2) == set(), "125 us against 140"
    assert slow_sources(plan, {"slow": 4.0, "quick": 4.0}, 1.1) == {"model"}, "125 us against 110"
