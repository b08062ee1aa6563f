"""Changes in a series of runs: steps, slow drifts, and the spread between runs.

A run gives one number, the logarithm of a time or of a ratio. Runs are looked at again and again while a series grows,
so both tests ask for far more than one look would need; docs/guard.md has their simulated error rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drift", "Spread", "Step", "find_drift", "find_steps", "spread_between"]

_FEWEST_FOR_STEPS, _FEWEST_FOR_DRIFT = 8, 10
_SHORTEST = 3
"""The fewest runs on either side of a step."""
_PENALTY = 4.0
_DEVIATIONS = 5.0
_P_VALUE = 1e-4
_LEAST = 0.01
"""The smallest change that is told: layout alone moves code by as much."""
_MEDIAN_OF_DIFFERENCES = 0.9539
"""The median of the absolute difference of two standard normal values."""
_OF_A_MEDIAN = 1.2533
_SMALLEST_DEVIATION = 1e-4


class Step(NamedTuple):
    """A lasting change from one run to the next."""

    position: int
    """The first run after it."""
    change: float
    """The median after it less the median before."""


class Drift(NamedTuple):
    """A slow change."""

    change: float
    """The change over the whole series, by the median slope."""
    start: int
    """The first run from which on all later ones together lie beyond the noise of the runs before."""


class Spread(NamedTuple):
    """The spread between runs, beyond the noise within them."""

    deviation: float
    freedom: int
    """The number of runs that it is known from, less one for each series."""


def find_steps(values: Sequence[float]) -> list[Step]:
    """Find the steps in a series.

    The candidates are the change points of PELT with the cost of absolute deviations (Killick, Fearnhead and Eckley,
    'Optimal Detection of Changepoints With a Linear Computational Cost', 2012). A candidate is a step if the medians of
    its two sides differ by five standard errors and by 1%, and the test of Mann and Whitney finds the sides unlike.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < _FEWEST_FOR_STEPS:
        return []
    import ruptures
    from scipy.stats import mannwhitneyu

    deviation = _deviation(series)
    signal = ((series - np.median(series)) / deviation).reshape(-1, 1)
    found = ruptures.Pelt(model="l1", min_size=_SHORTEST, jump=1).fit(signal)
    ends = [int(end) for end in found.predict(pen=_PENALTY * math.log(len(series)))]
    steps = []
    for start, position, end in zip([0, *ends], ends, ends[1:], strict=False):
        before, after = series[start:position], series[position:end]
        change = float(np.median(after) - np.median(before))
        error = _OF_A_MEDIAN * deviation * math.sqrt(1 / len(before) + 1 / len(after))
        is_large = abs(change) > max(_LEAST, _DEVIATIONS * error)
        if is_large and float(mannwhitneyu(before, after).pvalue) < _P_VALUE:
            steps.append(Step(position, change))
    return steps


def find_drift(values: Sequence[float]) -> Drift | None:
    """Find a drift in a series without steps; ``None`` if there is none.

    The trend is tested by Mann and Kendall, and its size is the slope of Theil and Sen.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < _FEWEST_FOR_DRIFT:
        return None
    from scipy.stats import kendalltau, theilslopes

    places = np.arange(len(series))
    if not float(kendalltau(places, series).pvalue) < _P_VALUE:
        return None
    slope, intercept, *_ = theilslopes(series, places)
    change = float(slope) * (len(series) - 1)
    if abs(change) <= _LEAST:
        return None
    noise = _deviation(series - (slope * places + intercept))
    # The line has left its beginning by two deviations, so that most runs from here on show it.
    start = min(len(series) - 1, math.ceil(2 * noise / abs(slope)))
    return Drift(change, start)


def spread_between(series: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Spread:
    """Estimate the spread between runs from several series that do not change.

    Args:
        series: the values of each series, and the standard error of each value within its run.

    Returns:
        The spread, as the root of the pooled variance of the values less the mean variance within runs.
    """
    squares, within, freedom = 0.0, [0.0], 0
    for values, errors in series:
        if len(values) < 2:
            continue
        squares += float(np.var(values)) * len(values)
        freedom += len(values) - 1
        within += [error**2 for error in errors]
    if not freedom:
        return Spread(0.0, 0)
    variance = squares / freedom - math.fsum(within) / (len(within) - 1)
    return Spread(math.sqrt(max(0.0, variance)), freedom)


def _deviation(series: NDArray[np.float64]) -> float:
    """The standard deviation of a series by the differences of neighbours, which a few steps do not move."""
    return max(_SMALLEST_DEVIATION, float(np.median(np.abs(np.diff(series)))) / _MEDIAN_OF_DIFFERENCES)
