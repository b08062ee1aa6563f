"""Who goes to the final, and who wins it."""

from __future__ import annotations

import random

import pytest

from pytest_shark_tune.records.types import Finalist, Record, State
from pytest_shark_tune.records.winner import (
    FINALISTS,
    choose_finalists,
    declare_winner,
    final_threshold,
    provisional_winner,
)
from tests.factories import make_record


def record(
    identifier: str,
    ratio: float | None = None,
    low: float | None = None,
    high: float | None = None,
    *,
    state: State = State.MEASURED,
    knobs: int | None = 8,
) -> Record:
    given = {} if knobs is None else {"m": knobs}
    return make_record(identifier, knobs=given, state=state, ratio=ratio, ratio_low=low, ratio_high=high)


def finalist(identifier: str, ratio: float, low: float, high: float, state: State = State.MEASURED) -> Finalist:
    return Finalist(id=identifier, state=state, ratio=ratio, ratio_low=low, ratio_high=high)


def same(identifier: str) -> tuple[int, ...]:
    return (0,)


def test_the_fastest_go_to_the_final_fastest_first() -> None:
    records = [record(f"c{number}", 1 + number / 10, 1.0, 2.0) for number in range(8)]
    random.Random(0).shuffle(records)
    assert choose_finalists(records) == ("c7", "c6", "c5", "c4")
    assert len(choose_finalists(records)) == FINALISTS
    assert choose_finalists(records, count=2) == ("c7", "c6")


def test_equally_fast_ones_go_by_their_id() -> None:
    records = [record(name, 1.5, 1.4, 1.6) for name in ("d", "b", "a", "c", "e")]
    assert choose_finalists(records, count=3) == ("a", "b", "c")


@pytest.mark.parametrize(
    "loser",
    [
        record("x", 0.8, 0.7, 0.99),
        record("x", 0.9, 0.0, 1.0),
        record("default", 1.5, 1.4, 1.6, knobs=None),
        record("x", 1.5, 1.4, 1.6, state=State.DUPLICATE),
        record("x", state=State.WRONG_RESULT),
        record("x", state=State.COMPILE_FAILED),
        record("x", 1.5),
    ],
    ids=["surely-slower", "cut-short", "the-default", "duplicate", "wrong", "not-compiled", "without-interval"],
)
def test_who_cannot_win_stays_at_home(loser: Record) -> None:
    assert choose_finalists([loser, record("y", 0.99, 0.9, 1.01)]) == ("y",)
    assert choose_finalists([loser]) == ()


@pytest.mark.parametrize(
    ("lows", "bar"),
    [
        ([], 1.0),
        ([1.5, 1.6, 1.7], 1.0),
        ([1.5, 1.6, 1.7, 1.4], 1.4),
        ([1.5, 2.0, 1.6, 1.1, 1.7, 1.4], 1.5),
        ([0.5, 0.6, 1.7, 1.4], 1.0),
    ],
    ids=["nobody", "too-few", "four", "six", "slower-than-the-default"],
)
def test_the_bar_to_the_final_is_what_four_surely_have(lows: list[float], bar: float) -> None:
    assert final_threshold(lows) == bar


def test_whoever_stays_below_the_bar_was_no_finalist() -> None:
    four = [record(f"c{number}", 1.5, 1.4, 1.6) for number in range(4)]
    below = record("x", 1.3, 0.0, final_threshold([each.ratio_low or 0 for each in four]))
    assert "x" not in choose_finalists([below, *four])
    # Where those four are not on record after all, it may still get its chance.
    assert "x" in choose_finalists([below, *four[:3]])


def test_the_significantly_fastest_wins() -> None:
    finalists = [finalist("a", 1.2, 1.15, 1.25), finalist("b", 1.8, 1.7, 1.9), finalist("c", 1.5, 1.4, 1.6)]
    assert declare_winner(finalists, same) == ("b", "")
    assert declare_winner(finalists[::-1], same) == ("b", "")


def test_the_fastest_does_not_win_where_it_is_not_sure() -> None:
    finalists = [finalist("lucky", 3.0, 0.9, 9.0), finalist("sure", 1.2, 1.1, 1.3)]
    assert declare_winner(finalists, same) == ("sure", "")


@pytest.mark.parametrize(("low", "winner"), [(1.0, None), (1.02, None), (1.021, "a")])
def test_a_winner_clears_the_noise_floor(low: float, winner: str | None) -> None:
    assert declare_winner([finalist("a", 1.1, low, 1.2)], same)[0] == winner


def test_no_winner_has_a_reason_with_the_figures_of_the_best() -> None:
    finalists = [finalist("a", 1.01, 0.99, 1.03), finalist("b", 0.97, 0.95, 0.99)]
    winner, reason = declare_winner(finalists, same)
    assert winner is None
    assert reason == (
        "none is faster than the default by more than 2% for sure: the best, a, came to 1.010 times the default's "
        "speed (0.990 to 1.030)"
    )


@pytest.mark.parametrize(
    "finalists",
    [[], [finalist("a", 2.0, 1.9, 2.1, State.WRONG_RESULT)], [Finalist(id="a", state=State.MEASURED)]],
    ids=["nobody", "wrong", "without-a-ratio"],
)
def test_without_finalists_nobody_wins(finalists: list[Finalist]) -> None:
    winner, reason = declare_winner(finalists, same)
    assert winner is None
    assert reason == "no candidate that might be faster than the default was measured"


def test_among_equals_the_simplest_wins_then_the_first_id() -> None:
    equals = [finalist("b", 1.81, 1.7, 1.9), finalist("a", 1.80, 1.7, 1.9), finalist("c", 1.79, 1.7, 1.9)]
    slower = finalist("z", 1.5, 1.4, 1.6)
    assert declare_winner([*equals, slower], {"a": (2,), "b": (2,), "c": (1, 9), "z": (0,)}.__getitem__)[0] == "c"
    assert declare_winner([*equals, slower], same)[0] == "a"


def test_a_run_that_ended_early_has_a_provisional_winner() -> None:
    records = [
        record("default", 1.0, 0.99, 1.01, knobs=None),
        record("a", 1.3, 1.2, 1.4),
        record("b", 1.6, 1.5, 1.7),
        record("unsure", 2.0, 0.9, 4.0),
        record("wrong", state=State.WRONG_RESULT),
    ]
    best = provisional_winner(records)
    assert best is not None
    assert best.id == "b"
    assert provisional_winner(records[:1]) is None
    assert provisional_winner([]) is None


def test_the_winner_so_far_comes_to_the_final_unless_it_is_surely_slower() -> None:
    records = [record(f"c{number}", 1 + number / 10, 1.0, 2.0) for number in range(8)]
    assert choose_finalists(records, incumbent="c1") == ("c7", "c6", "c5", "c4", "c1")
    assert choose_finalists(records, incumbent="c6") == ("c7", "c6", "c5", "c4")
    assert choose_finalists([*records, record("slow", 0.5, 0.4, 0.6)], incumbent="slow") == ("c7", "c6", "c5", "c4")
    assert choose_finalists(records, incumbent="of another plan") == ("c7", "c6", "c5", "c4")
