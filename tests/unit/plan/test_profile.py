"""Shares of a model's time: what is hot, and whose an entry point's time is."""

from __future__ import annotations

import pytest

from pytest_shark_tune.device.profiler import Cost
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.tuning.model.profile import by_symbol

SHARES = tuple(
    Share(dispatch=name, calls=1, time_us=100 * share, share=share, reason=reason)
    for name, share, reason in (("a", 0.5, ""), ("odd", 0.3, "it is odd"), ("b", 0.15, ""), ("c", 0.05, ""))
)
PROFILE = Profile(source="model", function="main", model_us=110.0, shares=SHARES, measured="the running model")


@pytest.mark.parametrize(
    ("share", "hot"),
    [(0.01, "a"), (0.5, "a"), (0.51, "a odd"), (0.8, "a odd"), (0.9, "a odd b"), (1.0, "a odd b c")],
)
def test_the_fewest_that_make_up_a_share_are_hot_tunable_or_not(share: float, hot: str) -> None:
    assert PROFILE.hot_dispatches(share) == tuple(hot.split())


def test_what_may_gain_more_than_the_tuned_model_bears_is_hot_as_well() -> None:
    shares = tuple(
        Share(dispatch=name, calls=1, time_us=time_us, share=time_us / 1000, least_us=least_us, reason=reason)
        for name, time_us, least_us, reason in (
            ("scalar", 920.0, 20.0, ""),
            ("odd", 30.0, None, "it is odd"),
            ("slow", 25.0, 5.0, ""),
            ("small", 15.0, 5.0, ""),
            ("near", 10.0, 5.0, ""),
        )
    )
    profile = Profile(source="model", function="main", model_us=None, shares=shares, measured="the running model")
    # Once tuned the model takes 40 + 30 + 10 + 10 + 10 us, of which the gains of "slow" and "small" would be 20%.
    assert profile.hot_dispatches(0.9) == ("scalar", "slow", "small")
    assert profile.hot_dispatches(0.96) == ("scalar", "odd", "slow", "small")
    assert profile.hot_dispatches(0.5) == ("scalar", "slow")
    assert profile.hot_dispatches(0.2) == ("scalar",)


def test_times_are_told_by_dispatch() -> None:
    assert PROFILE.dispatches_us == pytest.approx(100.0)
    assert PROFILE.time_us("b") == pytest.approx(15.0)
    assert PROFILE.time_us("unheard of") == 0


def test_an_entry_point_belongs_to_the_executable_whose_name_it_begins_with() -> None:
    exports = {
        "f$async_dispatch_1_matmul_8x8_f32": Cost(time_us=3.0, calls=2),
        "f$async_dispatch_1_slow_memcpy": Cost(time_us=1.0, calls=1),
        "f$async_dispatch_10_matmul_8x8_f32": Cost(time_us=5.0, calls=1),
        "f$async_dispatch_2": Cost(time_us=7.0, calls=1),
        "unknown": Cost(time_us=9.0, calls=4),
    }
    symbols = [f"f$async_dispatch_{number}" for number in (1, 2, 10)]
    assert by_symbol(exports, symbols) == {
        symbols[0]: Cost(time_us=4.0, calls=3),
        symbols[2]: Cost(time_us=5.0, calls=1),
        symbols[1]: Cost(time_us=7.0, calls=1),
        "unknown": Cost(time_us=9.0, calls=4),
    }
