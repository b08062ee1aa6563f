"""Rounds: measurements of one candidate in several fresh processes, joined to one with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.measurement import intervals
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, AtSize, Measurement, SizedMeasurement

__all__ = ["combine_rounds", "is_decided", "join_sizes", "usual_spread"]

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
    sized = [part for part in rounds if isinstance(part, SizedMeasurement)]
    if len(sized) == len(rounds):
        of_size = {name: [part.sizes[name].measurement for part in sized] for name in sized[0].sizes}
        joined = {name: combine_rounds(parts, alpha=alpha, usual=usual) for name, parts in of_size.items()}
        return join_sizes({name: AtSize(sized[0].sizes[name].weight, found) for name, found in joined.items()})
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


def join_sizes(sizes: Mapping[str, AtSize], *, one_process: bool = False) -> Measurement:
    """Join the measurements of one candidate at several sizes of its dispatch.

    The ratio is the weighted mean of the ratios, and so are the samples. The half-widths of the interval are those of a
    weighted mean of independent ratios. A candidate that is slower than the default by more than the noise floor at
    some size is as good as it is at the worst one: no gain at another size makes up for that.

    Args:
        sizes: The measurements by size. A single one is returned as it is if its size has no name; those of a dispatch
            with fixed sizes have none.
        one_process: Whether one process measured them. A candidate then has to be slower for sure, since one process
            alone shows many a size slower than it is.
    """
    if list(sizes) == [""]:
        return sizes[""].measurement
    parts = list(sizes.values())
    measured = [part.measurement for part in parts]
    weights = np.array([part.weight for part in parts], float) / sum(part.weight for part in parts)
    worst = min(sizes, key=lambda name: sizes[name].measurement.ratio)
    slowest = sizes[worst].measurement
    ratio = math.fsum(weights * [part.ratio for part in measured])
    below = math.hypot(*(weights * [part.ratio - part.ratio_low for part in measured]))
    above = math.hypot(*(weights * [part.ratio_high - part.ratio for part in measured]))
    low, high = ratio - below, ratio + above
    notes = [f"at {name}: {part.measurement.note}" for name, part in sizes.items() if part.measurement.note]
    if (slowest.ratio_high if one_process else slowest.ratio) < 1 - NOISE_FLOOR:
        ratio, low, high = slowest.ratio, slowest.ratio_low, slowest.ratio_high
        notes.insert(0, f"at {worst} it comes to {ratio:.3f} times the default's speed")
    return SizedMeasurement(
        samples_us=_mean_samples([part.samples_us for part in measured], weights),
        baseline_samples_us=_mean_samples([part.baseline_samples_us for part in measured], weights),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        batch=measured[0].batch,
        blocks=sum(part.blocks for part in measured),
        noise=math.fsum(weights * [part.noise for part in measured]),
        rounds=max(part.rounds for part in measured),
        process_noise=math.fsum(weights * [part.process_noise for part in measured]),
        repeated=sum(part.repeated for part in measured),
        note="; ".join(notes),
        sizes=dict(sizes),
    )


def _mean_samples(samples: Sequence[Sequence[float]], weights: NDArray[np.float64]) -> tuple[float, ...]:
    """The weighted means of samples at several sizes, as many as there are at all of them."""
    count = min(map(len, samples))
    return tuple(float(mean) for mean in weights @ np.array([part[:count] for part in samples]))


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
