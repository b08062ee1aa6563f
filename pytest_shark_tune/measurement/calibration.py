"""Batches: how many dispatches make a sample that is long enough for the clock, and how long one may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

__all__ = ["Run", "calibrate", "time_limit_s"]

Run: TypeAlias = Callable[[int], float]
"""Runs a batch of n dispatches and returns the seconds they took together."""

_LASTS = 0.8
_TICKS = 1000
_OVERHEAD = 0.01
_LONGEST_SAMPLE = 4
_GROWTH = 2
_SHORTEST_LIMIT_S = 2.0
_SLOWEST = 20.0


def calibrate(run: Run, target_s: float, *, cap: int = 4096) -> int:
    """Find the smallest batch that runs for about ``target_s`` seconds.

    A batch runs longer if the clock's step would be more than a thousandth of that time, or the overhead of a batch
    (recording, submitting, waiting) more than a hundredth: up to four times ``target_s``. The overhead is found from
    single dispatches.

    The first run warms up and is not timed. The batch grows until the faster of two runs is long enough, because a
    hiccup would otherwise pass for a slow dispatch. All this takes three to five times ``target_s``, or the time of
    three dispatches if that is longer. With a large overhead it takes up to 30 times ``target_s``.

    Args:
        run: Runs a batch.
        target_s: The seconds that a batch should take.
        cap: The largest batch.

    Returns:
        The number of dispatches, at least 1.
    """
    target_s = max(target_s, _TICKS * _clock_step_s())
    run(1)
    batch = 1
    while True:
        seconds = min(run(batch), run(batch))
        if seconds >= _LASTS * target_s or batch >= cap:
            break
        wanted = math.ceil(batch * target_s / seconds) if seconds > 0 else cap
        batch = min(wanted, 64 * batch, cap)
    if batch == 1 or seconds <= 0:
        return batch
    single_s = min(run(1) for _ in range(3))
    # On a busy machine single dispatches seem slow, and the overhead large: each larger batch is timed.
    while batch < cap:
        overhead_s = (batch * single_s - seconds) / (batch - 1)
        lasting_s = min(overhead_s / _OVERHEAD, _LONGEST_SAMPLE * target_s)
        if seconds >= lasting_s:
            break
        dispatch_s = (seconds - overhead_s) / batch
        wanted = math.ceil((lasting_s - overhead_s) / dispatch_s) if dispatch_s > 0 else cap
        grown = min(wanted, _GROWTH * batch, cap)
        if grown <= batch:
            break
        batch = grown
        seconds = min(run(batch), run(batch))
    return batch


def time_limit_s(baseline_s: float) -> float:
    """The seconds that a candidate may take for the work that takes the baseline ``baseline_s``.

    It is twenty times as long, as a slower candidate cannot win, and two seconds more for a busy machine and pages that
    are touched for the first time.
    """
    return _SHORTEST_LIMIT_S + _SLOWEST * baseline_s


@cache
def _clock_step_s() -> float:
    """The smallest observed step of this process's clock."""
    steps = []
    for _ in range(100):
        started = now = time.perf_counter()
        while now == started:
            now = time.perf_counter()
        steps.append(now - started)
    return min(steps)
