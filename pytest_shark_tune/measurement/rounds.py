"""Rounds: measurements of one candidate in several fresh processes, joined to one with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from pytest_shark_tune.measurement import intervals
from pytest_shark_tune.measurement.timing import Measurement

__all__ = ["combine_rounds", "is_decided", "usual_spread"]

_NARROW = 0.1
_USUAL_FREEDOM = 4
"""The degrees of freedom of the usual spread: it counts as much as five rounds."""


def combine_rounds(rounds: Sequence[Measurement], *, alpha: float = 0.05, usual: float = 0.0) -> Measurement:
    """Join the measurements of one candidate in several fresh processes.

    Processes differ by more than the samples in them (memory layout, placement of threads), so the unit is the round.
    With x_r the log-ratio of a round, m their mean, s their standard deviation and R their number, the interval is
    ``exp(m +- t(R - 1, 1 - alpha/2) * s * sqrt(1 + 1/R))``, Student's prediction interval. With probability 1 -
    ``alpha`` it holds the ratio that one more fresh process will measure. As rounds may agree by luck, s is at least
    the mean standard error within them. A single round is returned as it is.

    Few rounds say little about s. With the usual spread u, ``(4 u^2 + (R - 1) s^2) / (R + 3)`` takes the place of
    ``s^2``, and t has R + 3 degrees of freedom: the moderated t of Smyth, 'Linear Models and Empirical Bayes Methods'
    (2004).

    Args:
        rounds: The measurements.
        alpha: The interval covers with probability 1 - ``alpha``.
        usual: The standard deviation of a round's log-ratio in other finals, see `usual_spread`; 0 if it is unknown.

    Raises:
        ValueError: there are no rounds, or one was stopped early, which is no basis for an interval.
    """
    if not rounds or any(part.cut_short for part in rounds):
        raise ValueError("rounds to combine must be at least one, and none cut short")
    count = len(rounds)
    if count == 1:
        return rounds[0]
    logs = np.log([part.ratio for part in rounds])
    within = math.sqrt(math.fsum(part.noise**2 / part.blocks for part in rounds) / count)
    between = float(np.std(logs, ddof=1))
    centre = float(np.mean(logs))
    freedom, spread = count - 1, between
    if usual > 0:
        spread = math.sqrt((_USUAL_FREEDOM * usual**2 + freedom * between**2) / (_USUAL_FREEDOM + freedom))
        freedom += _USUAL_FREEDOM
    half = intervals.student_quantile(freedom, alpha) * max(spread, within) * math.sqrt(1 + 1 / count)
    return Measurement(
        samples_us=tuple(sample for part in rounds for sample in part.samples_us),
        baseline_samples_us=tuple(sample for part in rounds for sample in part.baseline_samples_us),
        ratio=math.exp(centre),
        ratio_low=math.exp(centre - half),
        ratio_high=math.exp(centre + half),
        batch=rounds[0].batch,
        blocks=sum(part.blocks for part in rounds),
        noise=math.sqrt(math.fsum(part.noise**2 for part in rounds) / count),
        rounds=sum(part.rounds for part in rounds),
        process_noise=between,
        repeated=sum(part.repeated for part in rounds),
        note="; ".join(f"round {number}: {part.note}" for number, part in enumerate(rounds, 1) if part.note),
    )


def usual_spread(finals: Iterable[Sequence[Measurement]]) -> float:
    """Find the usual standard deviation of a round's log-ratio between processes, from the rounds of several finalists.

    It is the median of their variances, divided by the median of such a variance where the true one is 1: that of
    chi-squared by its degrees of freedom k, about ``(1 - 2 / (9 k))^3`` (Wilson and Hilferty, 1931).

    Returns:
        The standard deviation; 0 if fewer than five finalists have two rounds.
    """
    scaled = []
    for rounds in finals:
        if (freedom := len(rounds) - 1) > 0:
            variance = float(np.var(np.log([part.ratio for part in rounds]), ddof=1))
            scaled.append(variance / (1 - 2 / (9 * freedom)) ** 3)
    return math.sqrt(float(np.median(scaled))) if len(scaled) >= _USUAL_FREEDOM + 1 else 0.0


def is_decided(finalists: Iterable[Sequence[Measurement]]) -> bool:
    """Whether more rounds would not change the decision.

    Every finalist is surely slower than the default, or the lower half of its interval is narrower than 10%.

    Args:
        finalists: The rounds of every finalist.
    """
    joined = [combine_rounds(rounds) for rounds in finalists]
    return all(final.ratio_high < 1 or final.ratio - final.ratio_low < _NARROW * final.ratio for final in joined)
