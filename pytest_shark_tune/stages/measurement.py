"""Measurements: how long a candidate takes beside its baseline.

Works over callables that run a batch and return the seconds it took: whoever brings a kernel compiler of
their own needs nothing else of this package but `stages.check`. docs/measurement.md says why each number
is made as it is.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

__all__ = [
    "FINAL",
    "FINAL_ROUNDS",
    "NOISE_FLOOR",
    "SCREENING",
    "Measurement",
    "Policy",
    "Run",
    "calibrate",
    "combine_rounds",
    "compare",
    "compare_finalists",
    "is_winner",
]

Run: TypeAlias = Callable[[int], float]
"""Runs a batch of n dispatches and returns the seconds they took together."""

NOISE_FLOOR = 0.02
"""By how much a ratio must exceed 1 before it counts: differences of code layout alone reach 1% to 2%."""

FINAL_ROUNDS = 5
"""Fresh processes per final: with fewer, a machine of two speeds too often shows only one of them."""

_TRIM = 0.2
_LASTS = 0.8
_GLANCE = 2.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How much time a comparison may take, and how sure its interval is.

    ``sample_s`` is how long a batch of the baseline runs, ``batch_cap`` the most dispatches in one. Between
    ``min_blocks`` and ``blocks`` ABBA blocks are run, as many as fit into ``budget_s`` seconds. A candidate
    that takes more than ``cutoff`` times as long as the baseline is cut short after the first block, one that
    takes more than twice that after three single dispatches. The interval covers with probability 1 - ``alpha``.
    """

    sample_s: float
    blocks: int
    min_blocks: int
    budget_s: float
    cutoff: float = math.inf
    alpha: float = 0.05
    batch_cap: int = 4096


SCREENING = Policy(sample_s=0.005, blocks=4, min_blocks=3, budget_s=0.11, cutoff=2.0)
"""For every candidate: about 0.1 s for a dispatch of 1 to 3 ms."""

FINAL = Policy(sample_s=0.010, blocks=8, min_blocks=3, budget_s=1.5)
"""For one round of finalists, in one fresh process."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's times beside its baseline's, and their ratio with its interval.

    ``samples_us`` and ``baseline_samples_us`` are microseconds per dispatch, one figure per sample, in the
    order taken. ``ratio`` is baseline / candidate: above 1 the candidate is faster. ``ratio_low`` and
    ``ratio_high`` bound it; for one process they say nothing of other processes, for several ``rounds``
    they bound what one more fresh process will measure. A sample ran ``batch`` dispatches; ``blocks`` ABBA
    blocks were run in all.

    ``noise`` is the standard deviation of a block's log-ratio within a process, ``process_noise`` that of a
    round's log-ratio between processes (0 for a single round); 0.01 reads as 1%. With ``cut_short`` the
    candidate was far slower at first sight, and the bounds 0 and 1 only say that it is not faster.
    """

    samples_us: tuple[float, ...]
    baseline_samples_us: tuple[float, ...]
    ratio: float
    ratio_low: float
    ratio_high: float
    batch: int
    blocks: int
    noise: float
    rounds: int = 1
    process_noise: float = 0.0
    cut_short: bool = False

    @property
    def median_us(self) -> float:
        """The candidate's median sample, in microseconds per dispatch."""
        return float(np.median(self.samples_us))

    @property
    def baseline_median_us(self) -> float:
        """The baseline's median sample, in microseconds per dispatch."""
        return float(np.median(self.baseline_samples_us))


def calibrate(run: Run, target_s: float, *, cap: int = 4096) -> int:
    """The smallest batch found whose run takes about ``target_s`` seconds, at least 1 and at most ``cap``.

    The first run warms up and is not timed. Grows until a batch lasts in the faster of two runs, because a
    hiccup would otherwise pass for a slow dispatch. Takes three to four times ``target_s``, or three
    dispatches where those take longer.
    """
    run(1)
    batch = 1
    while True:
        seconds = min(run(batch), run(batch))
        if seconds >= _LASTS * target_s or batch >= cap:
            return batch
        wanted = math.ceil(batch * target_s / seconds) if seconds > 0 else cap
        batch = min(wanted, 64 * batch, cap)


def compare(candidate: Run, baseline: Run, policy: Policy = SCREENING, *, batch: int | None = None) -> Measurement:
    """Measure ``candidate`` in ABBA blocks with ``baseline``, in this process.

    ``batch`` is what `calibrate` gave for the baseline; without it the baseline is calibrated first. A
    block runs baseline, candidate, candidate, baseline (the next one the other way around), so that a
    linear drift of the clock cancels. It stops early, after ``policy.min_blocks``, where the whole interval
    lies below 1. Both callables must have run once before, so that what only happens the first time is over.
    """
    if batch is None:
        batch = calibrate(baseline, policy.sample_s, cap=policy.batch_cap)
    glance = _glance(candidate, baseline, policy.cutoff)
    if glance is not None:
        return glance
    samples: list[float] = []
    baseline_samples: list[float] = []
    logs: list[float] = []
    started = time.perf_counter()
    while len(logs) < policy.blocks:
        block_started = time.perf_counter()
        ours, theirs = _block(candidate, baseline, batch, flip=len(logs) % 2 == 1)
        samples += ours
        baseline_samples += theirs
        logs.append(_log_ratio(ours, theirs))
        if len(logs) == 1 and min(ours) > policy.cutoff * max(theirs):
            return _cut_short(samples, baseline_samples, batch)
        now = time.perf_counter()
        if len(logs) >= policy.min_blocks:
            spent = now - started
            if spent + (now - block_started) > policy.budget_s or _interval(logs, policy.alpha)[2] < 0:
                break
    return _measurement(samples, baseline_samples, logs, batch, policy.alpha)


def compare_finalists(
    runs: Mapping[str, Run],
    baseline: Run,
    policy: Policy = FINAL,
    *,
    seed: int = 0,
    batch: int | None = None,
) -> dict[str, Measurement]:
    """One round: measure every finalist of ``runs`` beside ``baseline``, all interleaved, in this process.

    A block runs the baseline and all finalists in a fresh random order made from ``seed``, then once more
    in the reverse order, so that a linear drift cancels for each of them. Give each round its own ``seed``
    and its own fresh process, then join the rounds with `combine_rounds`. None is cut short.
    """
    if batch is None:
        batch = calibrate(baseline, policy.sample_s, cap=policy.batch_cap)
    order = random.Random(seed)
    everyone: dict[str | None, Run] = {None: baseline}
    everyone.update(runs.items())
    samples: dict[str | None, list[float]] = {name: [] for name in everyone}
    logs: dict[str, list[float]] = {name: [] for name in runs}
    started = time.perf_counter()
    for done in range(1, policy.blocks + 1):
        block_started = time.perf_counter()
        names = list(everyone)
        order.shuffle(names)
        for name in (*names, *reversed(names)):
            samples[name].append(everyone[name](batch) * 1e6 / batch)
        for name in runs:
            logs[name].append(_log_ratio(samples[name][-2:], samples[None][-2:]))
        now = time.perf_counter()
        if done >= policy.min_blocks and 2 * now - started - block_started > policy.budget_s:
            break
    return {name: _measurement(samples[name], samples[None], logs[name], batch, policy.alpha) for name in runs}


def combine_rounds(rounds: Sequence[Measurement], *, alpha: float = 0.05) -> Measurement:
    """Join what fresh processes measured of one candidate into one measurement.

    Processes differ by more than the samples in them (memory layout, placement of threads), so the unit is
    the round: with x_r the round's log-ratio, m their mean, s their standard deviation and R their number,
    the interval is ``exp(m +- t(R - 1, 1 - alpha/2) * s * sqrt(1 + 1/R))``, Student's prediction interval:
    it holds what one more fresh process will measure with probability 1 - ``alpha``. Where rounds agree by
    luck, s is not taken smaller than the mean standard error within them. A single round is returned as it is.
    Rounds that were cut short are no basis for an interval and raise ValueError, as does an empty sequence.
    """
    if not rounds or any(each.cut_short for each in rounds):
        raise ValueError("rounds to combine must be at least one, and none cut short")
    count = len(rounds)
    if count == 1:
        return rounds[0]
    logs = np.log([each.ratio for each in rounds])
    within = math.sqrt(math.fsum(each.noise**2 / each.blocks for each in rounds) / count)
    between = float(np.std(logs, ddof=1))
    centre = float(np.mean(logs))
    half = _student(count - 1, alpha) * max(between, within) * math.sqrt(1 + 1 / count)
    return Measurement(
        samples_us=tuple(sample for each in rounds for sample in each.samples_us),
        baseline_samples_us=tuple(sample for each in rounds for sample in each.baseline_samples_us),
        ratio=math.exp(centre),
        ratio_low=math.exp(centre - half),
        ratio_high=math.exp(centre + half),
        batch=rounds[0].batch,
        blocks=sum(each.blocks for each in rounds),
        noise=math.sqrt(math.fsum(each.noise**2 for each in rounds) / count),
        rounds=sum(each.rounds for each in rounds),
        process_noise=between,
    )


def is_winner(measurement: Measurement, noise_floor: float = NOISE_FLOOR) -> bool:
    """Whether the whole interval lies above 1 by more than ``noise_floor``."""
    return not measurement.cut_short and measurement.ratio_low > 1 + noise_floor


def _glance(candidate: Run, baseline: Run, cutoff: float) -> Measurement | None:
    """A measurement of single dispatches where they show the candidate far slower, else None.

    Single runs are at times twice as slow as they should be, twice in a row too (seen on an H100), so the
    candidate has to be slower by twice the cutoff in the best of three.
    """
    if math.isinf(cutoff):
        return None
    theirs = [baseline(1)]
    ours: list[float] = []
    for _ in range(3):
        ours.append(candidate(1))
        if ours[-1] <= _GLANCE * cutoff * theirs[0]:
            return None
    theirs.append(baseline(1))
    if min(ours) <= _GLANCE * cutoff * max(theirs):
        return None
    return _cut_short([each * 1e6 for each in ours], [each * 1e6 for each in theirs], 1)


def _block(candidate: Run, baseline: Run, batch: int, *, flip: bool) -> tuple[list[float], list[float]]:
    """One ABBA block (BAAB with ``flip``): the candidate's and the baseline's two samples, microseconds."""
    outer, inner = (candidate, baseline) if flip else (baseline, candidate)
    first = outer(batch)
    middle = [inner(batch), inner(batch)]
    ends = [first, outer(batch)]
    ours, theirs = (ends, middle) if flip else (middle, ends)
    scale = 1e6 / batch
    return [each * scale for each in ours], [each * scale for each in theirs]


def _log_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return math.fsum(map(math.log, theirs)) / len(theirs) - math.fsum(map(math.log, ours)) / len(ours)


def _cut_short(samples: Sequence[float], baseline_samples: Sequence[float], batch: int) -> Measurement:
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(_log_ratio(samples, baseline_samples)),
        ratio_low=0.0,
        ratio_high=1.0,
        batch=batch,
        blocks=0,
        noise=0.0,
        cut_short=True,
    )


def _measurement(
    samples: Sequence[float],
    baseline_samples: Sequence[float],
    logs: Sequence[float],
    batch: int,
    alpha: float,
) -> Measurement:
    centre, low, high = _interval(logs, alpha)
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(centre),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        batch=batch,
        blocks=len(logs),
        noise=_standard_error(logs) * math.sqrt(len(logs)),
    )


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
    half = _student(freedom, alpha) * _standard_error(logs)
    return centre, centre - half, centre + half


def _standard_error(logs: Sequence[float]) -> float:
    """The standard error of the trimmed mean: the winsorized deviation / ((1 - 2 * trim) * sqrt(n))."""
    ordered = np.sort(np.asarray(logs, dtype=np.float64))
    count = len(ordered)
    if count < 2:
        return 0.0
    cut = int(_TRIM * count)
    winsorized = np.clip(ordered, ordered[cut], ordered[count - 1 - cut])
    return float(np.std(winsorized, ddof=1)) / ((1 - 2 * cut / count) * math.sqrt(count))


def _student(freedom: int, alpha: float) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # Imported late: the device child needs the checks, not the intervals.

    return float(stdtrit(freedom, 1 - alpha / 2))
