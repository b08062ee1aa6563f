"""Confidence and prediction intervals of ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "largest_half_width",
    "log_ratio",
    "standard_error",
    "student_quantile",
    "trimmed_difference",
    "trimmed_interval",
]

_TRIM = 0.2


def log_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The logarithm of the ratio of two geometric means, positive if ``ours`` is smaller."""
    return math.fsum(map(math.log, theirs)) / len(theirs) - math.fsum(map(math.log, ours)) / len(ours)


def largest_half_width(all_logs: Iterable[Sequence[float]], alpha: float) -> float:
    """The largest half-width of the intervals of ``all_logs``."""
    intervals = (trimmed_interval(logs, alpha) for logs in all_logs)
    return max((high - centre for centre, _, high in intervals), default=0.0)


def trimmed_interval(logs: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """The trimmed mean of block log-ratios, and its t-interval.

    From five blocks on, a fifth is trimmed at each end, because the scheduler's hiccups have a heavy tail. Fewer
    blocks give the plain mean. Tukey and McLaughlin, 'Less vulnerable confidence and significance procedures for
    location based on a single sample' (Sankhya A 25, 1963): h - 1 degrees of freedom for h remaining values.

    Returns:
        The centre and both bounds, which are infinite for fewer than two values.
    """
    centre, freedom = _trimmed_mean(logs)
    if freedom < 1:
        return centre, -math.inf, math.inf
    half = student_quantile(freedom, alpha) * standard_error(logs)
    return centre, centre - half, centre + half


def trimmed_difference(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """How far the baseline's logarithms lie above the candidate's.

    Returns:
        The difference of the trimmed means, its standard error and its degrees of freedom, by Welch. Error and freedom
        are 0 if either side has fewer than two samples.
    """
    sides = [np.log(np.asarray(side, dtype=np.float64)) for side in (samples, baseline)]
    (ours, our_freedom), (theirs, their_freedom) = map(_trimmed_mean, sides)
    squares = [standard_error(side) ** 2 for side in sides]
    freedoms = (our_freedom, their_freedom)
    total = math.fsum(squares)
    if min(freedoms) < 1:
        return theirs - ours, 0.0, 0.0
    weighted = math.fsum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
    return theirs - ours, math.sqrt(total), total**2 / weighted if weighted else float(min(freedoms))


def standard_error(logs: Sequence[float] | NDArray[Any]) -> float:
    """The standard error of the trimmed mean: the winsorized deviation / ((1 - 2 * trim) * sqrt(n))."""
    ordered = np.sort(np.asarray(logs, dtype=np.float64))
    count = len(ordered)
    if count < 2:
        return 0.0
    cut = int(_TRIM * count)
    winsorized = np.clip(ordered, ordered[cut], ordered[count - 1 - cut])
    return float(np.std(winsorized, ddof=1)) / ((1 - 2 * cut / count) * math.sqrt(count))


def student_quantile(freedom: float, alpha: float) -> float:
    """The quantile of Student's t that its absolute value exceeds with probability ``alpha``."""
    from scipy.special import stdtrit  # Imported late: the device child needs the checks, not the intervals.

    return float(stdtrit(freedom, 1 - alpha / 2))


def _trimmed_mean(logs: Sequence[float] | NDArray[Any]) -> tuple[float, int]:
    """The trimmed mean and its degrees of freedom."""
    ordered = np.sort(np.asarray(logs, dtype=np.float64))
    cut = int(_TRIM * len(ordered))
    return float(np.mean(ordered[cut : len(ordered) - cut])), len(ordered) - 2 * cut - 1
