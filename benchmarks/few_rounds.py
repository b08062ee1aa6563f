"""Simulates finals that ended early: how often intervals hold what a fresh process measures, and how wide they are.

``python benchmarks/few_rounds.py``

A final has its own spread between processes: 5%, times exp(d z) with z normal. Each row compares the interval of a
final's own rounds with the one that takes in the usual spread of all finals (docs/measurement.md, "Finals").
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import click
import numpy as np
from scipy import stats

from pytest_shark_tune.measurement.rounds import combine_rounds, usual_spread
from pytest_shark_tune.measurement.timing import Measurement

_SPREAD, _DISPATCHES, _FINALISTS, _RUNS = 0.05, 25, 2, 200
_HEAVY = 3


def main() -> None:
    """Print the table."""
    click.echo("rounds     d  tails   covered  half-width   with the usual spread: covered  half-width")
    for rounds in (2, 3, 4):
        for differ, is_heavy in ((0.0, False), (0.5, False), (1.0, False), (0.5, True)):
            own, usual = _simulate(rounds, differ, is_heavy)
            tails = "heavy" if is_heavy else "normal"
            click.echo(
                f"{rounds:6d} {differ:5.1f} {tails:>6} {own[0]:9.1%} {own[1]:11.1%} {usual[0]:32.1%} {usual[1]:11.1%}"
            )


def _simulate(rounds: int, differ: float, is_heavy: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """The part of intervals that cover the next process, and the median of their half-widths, without and with it."""
    random = np.random.default_rng(rounds)
    covered: list[list[bool]] = [[], []]
    widths: list[list[float]] = [[], []]
    for _ in range(_RUNS):
        finals = list(_finals(random, rounds + 1, differ, is_heavy))
        played = [[_round(ratio) for ratio in final[:-1]] for final in finals]
        for kind, usual in enumerate((0.0, usual_spread(played))):
            for final, measured in zip(finals, played, strict=True):
                joined = combine_rounds(measured, usual=usual)
                covered[kind].append(joined.ratio_low <= final[-1] <= joined.ratio_high)
                widths[kind].append(math.log(joined.ratio_high / joined.ratio))
    own, usual_too = ((float(np.mean(covered[kind])), float(np.median(widths[kind]))) for kind in range(2))
    return own, usual_too


def _finals(random: np.random.Generator, rounds: int, differ: float, is_heavy: bool) -> Iterator[list[float]]:
    """The ratios of the rounds of each finalist, around 1."""
    for _ in range(_DISPATCHES):
        spread = _SPREAD * math.exp(differ * random.standard_normal())
        for _ in range(_FINALISTS):
            if is_heavy:  # As wide as the normal ones.
                drawn = stats.t.rvs(_HEAVY, size=rounds, random_state=random) / math.sqrt(_HEAVY / (_HEAVY - 2))
            else:
                drawn = random.standard_normal(rounds)
            yield [math.exp(spread * float(value)) for value in drawn]


def _round(ratio: float) -> Measurement:
    return Measurement(
        samples_us=(1 / ratio,),
        baseline_samples_us=(1.0,),
        ratio=ratio,
        ratio_low=ratio,
        ratio_high=ratio,
        batch=1,
        blocks=1,
        noise=0.0,
    )


if __name__ == "__main__":
    main()
