"""Confidence and prediction intervals of ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["student_quantile"]


_TRIM = 0.2


def _log_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return math.fsum(map(math.log, theirs)) / len(theirs) - math.fsum(map(math.log, ours)) / len(ours)


def _half_width(all_logs: Iterable[Sequence[float]], alpha: float) -> float:
    """The largest half-width of the intervals of ``all_logs``."""
    intervals = (_interval(logs, alpha) for logs in all_logs)
    return max((high - centre for centre, _, high in intervals), default=0.0)


def _interval(logs: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Centre and bounds of the mean of block log-ratios: the trimmed mean and its t-interval.

    A fifth is trimmed at each end from five blocks on, because the scheduler's hiccups have a heavy tail;
    fewer give the plain mean. Tukey and McLaughlin, 'Less vulnerable confidence and significance
    procedures for location based on a single sample' (Sankhya A 25, 1963): h - 1 degrees of freedom for h
    figures left.
    """
    ordered = np.sort(np.asarray(logs, dtype=np.float64))
    cut = int(_TRIM * len(ordered))
    centre = float(np.mean(ordered[cut : len(ordered) - cut]))
    freedom = len(ordered) - 2 * cut - 1
    if freedom < 1:
        return centre, -math.inf, math.inf
    half = student_quantile(freedom, alpha) * _standard_error(logs)
    return centre, centre - half, centre + half


def _difference(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """By how much the baseline's logarithms lie above the candidate's, the standard error, and its degrees of freedom.

    The last is 0 where a side has fewer than two samples, so that there is no telling.
    """
    means, squares, freedoms = [], [], []
    for side in (samples, baseline):
        ordered = np.sort(np.log(np.asarray(side, dtype=np.float64)))
        cut = int(_TRIM * len(ordered))
        means.append(float(np.mean(ordered[cut : len(ordered) - cut])))
        squares.append(_standard_error(ordered.tolist()) ** 2)
        freedoms.append(len(ordered) - 2 * cut - 1)
    total = math.fsum(squares)
    if min(freedoms) < 1:
        return means[1] - means[0], 0.0, 0.0
    weighted = math.fsum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
    return means[1] - means[0], math.sqrt(total), total**2 / weighted if weighted else float(min(freedoms))


def _standard_error(logs: Sequence[float]) -> float:
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
