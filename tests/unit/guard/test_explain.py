"""What explains a change: the shares of dispatches in it, and those that are named."""

from __future__ import annotations

import pytest

from pytest_shark_tune.guard.explain import Part, blamed, parts_of
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict


def verdict(name: str, other_us: float, us: float, outcome: CheckOutcome, calls: int = 0) -> Verdict:
    ratio = other_us / us
    metrics = {"ratio": ratio, "ratio_low": 0.9 * ratio, "ratio_high": 1.1 * ratio}
    return Verdict(
        entry=name,
        check=EntryCheck.AGAINST,
        outcome=outcome,
        calls={"model": calls} if calls else {},
        metrics=metrics | {"baseline_us": other_us, "tuned_us": us},
    )


def test_shares_count_calls_and_only_of_a_change_that_is_sure() -> None:
    model = verdict("model", 100, 200, CheckOutcome.FAILED)
    slow, other = verdict("slow", 10, 30, CheckOutcome.FAILED, 4), verdict("other", 5, 5, CheckOutcome.PASSED, 1)
    stranger = verdict("stranger", 1, 2, CheckOutcome.FAILED)
    whole, *parts = parts_of(model, [slow, other, stranger])
    assert (whole.name, whole.share, whole.is_slower) == ("model", None, True)
    assert [(part.name, part.calls, part.share) for part in parts] == [("slow", 4, 0.8), ("other", 1, 0.0)]
    unsure = verdict("model", 100, 101, CheckOutcome.UNDECIDED)
    assert [part.share for part in parts_of(unsure, [slow])[1:]] == [None]
    # Together the dispatches would take 120 us of 101: the machine was slower while they were timed.
    assert parts_of(unsure, [slow], changed=True)[1].share == pytest.approx(80 * 101 / 120)


def test_the_sure_ones_are_blamed_or_else_the_largest() -> None:
    sure = Part(name="sure", outcome="slower", share=0.05)
    large, small = Part(name="large", outcome="undecided", share=0.6), Part(name="small", share=0.05)
    assert blamed([large, sure, small]) == ("sure",)
    assert blamed([large, small]) == ("large",)
    assert blamed([small]) == ()
