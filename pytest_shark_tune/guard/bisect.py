"""Bisection over releases: a sequential test at every step, so that noise leaves it undecided, and never wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial

import msgspec

from pytest_shark_tune.guard.speed import log_e_value

__all__ = ["Bisection", "Judgement", "Step", "find_first_bad", "judge_side"]

_WRONG = 0.01
"""The probability that a bisection names the wrong version."""
_MOST_ROUNDS = 80
_STAKES = (0.6, 0.75, 0.95)
"""The shares of rounds on one side that are bet on. What all bets have together is one e-value, too."""
_LEAST = math.log(1.01)


class Judgement(StrEnum):
    """The judgement on a version."""

    GOOD = "good"
    BAD = "bad"
    UNDECIDED = "undecided"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was compared with the good one."""

    version: str
    judgement: Judgement
    ratio: float = 0.0
    """The good version's time by this version's: the mean over the rounds; 0 if nothing was measured."""
    rounds: int = 0


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a bisection."""

    steps: tuple[Step, ...]
    """The comparisons, in their order: the bad version comes first."""
    first_bad: str = ""
    """The first bad version; empty if noise or a version that does not compile left that open."""
    last_good: str = ""
    """The version before it."""
    reason: str = ""
    """Why there is no first bad version."""


def judge_side(play: Callable[[int], float], border: float, alpha: float) -> tuple[Judgement, list[float]]:
    """Decide on which side of a border the median of rounds lies, by two sequential tests of signs.

    A wrong answer has a probability of ``alpha`` at most, whatever the distribution of the rounds (see `guard.speed`).

    Args:
        play: plays the round of a number, and returns the logarithm of its ratio.
        border: a round below it speaks for bad.
        alpha: the probability of a wrong answer.

    Returns:
        The judgement and the rounds.
    """
    rounds: list[float] = []
    enough = -math.log(alpha)
    while len(rounds) < _MOST_ROUNDS:
        rounds.append(play(len(rounds)))
        if _log_e_value([value - border for value in rounds]) >= enough:
            return Judgement.BAD, rounds
        if _log_e_value([border - value for value in rounds]) >= enough:
            return Judgement.GOOD, rounds
    return Judgement.UNDECIDED, rounds


def _log_e_value(margins: Sequence[float]) -> float:
    """Return the logarithm of the mean e-value of bets with several stakes, since nobody knows how noisy rounds are."""
    bets = [log_e_value(margins, stake) for stake in _STAKES]
    most = max(bets)
    return most + math.log(sum(math.exp(bet - most) for bet in bets) / len(bets))


def find_first_bad(versions: Sequence[str], play: Callable[[str, int], float]) -> Bisection:
    """Find the first bad version, given that the first one is good.

    The last version is compared with the first, and has to be slower by 1% for sure. Half of its slowdown is the border
    between good and bad for the versions between. If one of those is undecided, the bisection is.

    Args:
        versions: the versions in their order: the good one, those between, and the bad one.
        play: plays a round of a version against the good one, and returns the logarithm of the good version's time by
            its own.
    """
    alpha = _WRONG / (1 + math.ceil(math.log2(max(2, len(versions) - 1))))
    first, last = versions[0], versions[-1]
    judgement, rounds = judge_side(partial(play, last), -_LEAST, alpha)
    steps = [_step(last, judgement, rounds)]
    if judgement is not Judgement.BAD:
        what = "is not slower" if judgement is Judgement.GOOD else "may or may not be slower"
        return Bisection(steps=tuple(steps), reason=f"{last} {what} than {first}: there is nothing to bisect")
    border = statistics.median(rounds) / 2
    good, bad = 0, len(versions) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        judgement, rounds = judge_side(partial(play, versions[middle]), border, alpha)
        steps.append(_step(versions[middle], judgement, rounds))
        if judgement is Judgement.UNDECIDED:
            reason = (
                f"undecided: {versions[middle]} is neither good nor bad for sure, so the change lies between "
                f"{versions[good]} and {versions[bad]}"
            )
            return Bisection(steps=tuple(steps), reason=reason)
        good, bad = (middle, bad) if judgement is Judgement.GOOD else (good, middle)
    return Bisection(steps=tuple(steps), first_bad=versions[bad], last_good=versions[good])


def _step(version: str, judgement: Judgement, rounds: Sequence[float]) -> Step:
    ratio = math.exp(sum(rounds) / len(rounds)) if rounds else 0.0
    return Step(version=version, judgement=judgement, ratio=round(ratio, 5), rounds=len(rounds))
