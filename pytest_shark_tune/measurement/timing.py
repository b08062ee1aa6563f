"""Measurements: how long a candidate takes beside its baseline.

Works over callables that run a batch and return the seconds it took: whoever brings a kernel compiler of
their own needs nothing else of this package but `stages.check`. docs/measurement.md says why each number
is made as it is.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Final, TypeAlias

import msgspec
import numpy as np

from pytest_shark_tune.measurement.drift import DriftDetector
from pytest_shark_tune.measurement.intervals import (
    largest_half_width,
    log_ratio,
    standard_error,
    student_quantile,
    trimmed_difference,
    trimmed_interval,
)

__all__ = [
    "FINAL",
    "FINAL_ROUNDS",
    "MEASUREMENT_VERSION",
    "MOST_ROUNDS",
    "NOISE_FLOOR",
    "SCREENING",
    "Measurement",
    "Policy",
    "Run",
    "calibrate",
    "combine_rounds",
    "compare",
    "compare_finalists",
    "is_decided",
    "time_limit_s",
]

MEASUREMENT_VERSION: Final = 1
"""How candidates and models are timed, and how samples become a ratio with its interval.

Raise it where the same times would give other figures, or other times are taken: all is then measured anew.
"""

Run: TypeAlias = Callable[[int], float]
"""Runs a batch of n dispatches and returns the seconds they took together."""

NOISE_FLOOR = 0.02
"""By how much a ratio must exceed 1 before it counts: differences of code layout alone reach 1% to 2%."""

FINAL_ROUNDS = 5
"""Fresh processes per final: with fewer, a machine of two speeds too often shows only one of them."""

MOST_ROUNDS = 10
"""Where the first rounds of a final tell too little, it goes on for as many as this."""

_NARROW = 0.1
_LASTS = 0.8
_GLANCE = 2.0
_TICKS = 1000
_OVERHEAD = 0.01
_STRETCH = 4
_SHORTEST_LIMIT_S = 2.0
_SLOWEST = 20.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How much time a comparison may take, and how sure its interval is.

    ``sample_s`` is how long a batch of the baseline runs, ``batch_cap`` the most dispatches in one. ABBA blocks are
    run until the interval's half-width is below ``width`` (0.01 reads as 1%), at least ``min_blocks`` and at most
    ``blocks``, and after ``min_blocks`` only as many as fit into ``budget_s`` seconds. A candidate that takes more
    than ``cutoff`` times as long as it may is cut short after the first block, one that takes more than twice that
    after three single dispatches. The interval covers with probability 1 - ``alpha``.
    """

    sample_s: float
    blocks: int
    min_blocks: int
    budget_s: float
    width: float = 0.0
    cutoff: float = math.inf
    alpha: float = 0.05
    batch_cap: int = 4096


SCREENING = Policy(sample_s=0.005, blocks=6, min_blocks=3, budget_s=0.11, width=0.01, cutoff=2.0)
"""For every candidate: at most about 0.1 s for a dispatch of 1 to 3 ms."""

FINAL = Policy(sample_s=0.010, blocks=8, min_blocks=3, budget_s=1.5, width=0.005)
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
    candidate was far slower at first sight, and the bounds only say that its ratio is less than ``ratio_high``:
    1, or the ``best`` that it was compared with.

    ``repeated`` blocks were thrown away and run again, because the machine changed its speed meanwhile; ``note`` says
    so in words, and also where that did not help.
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
    repeated: int = 0
    note: str = ""

    @classmethod
    def of_samples(
        cls, samples_us: Sequence[float], baseline_samples_us: Sequence[float], *, alpha: float = 0.05
    ) -> Measurement:
        """The measurement of a candidate that another timer timed: microseconds per dispatch, each sample by itself.

        The samples need not be pairs, nor as many. With L the difference of the trimmed means of their logarithms and
        e_1, e_2 the standard errors of these, the interval is ``exp(L +- t(f, 1 - alpha/2) * sqrt(e_1^2 + e_2^2))``,
        f by Welch: Yuen, 'The two-sample trimmed t for unequal population variances' (Biometrika 61, 1974). It takes
        samples for independent, so it says nothing of what differs from process to process: time in several, and join
        what each gives with `combine_rounds`. With fewer than two samples on a side it is (0, infinity).

        Raises:
            ValueError: there are no samples, or one is not positive.
        """
        if not samples_us or not baseline_samples_us or min(*samples_us, *baseline_samples_us) <= 0:
            raise ValueError("a measurement is made of positive samples of the candidate and of its baseline")
        centre, error, freedom = trimmed_difference(samples_us, baseline_samples_us)
        half = student_quantile(freedom, alpha) * error if freedom > 0 else math.inf
        blocks = min(len(samples_us), len(baseline_samples_us))
        return cls(
            samples_us=tuple(samples_us),
            baseline_samples_us=tuple(baseline_samples_us),
            ratio=math.exp(centre),
            ratio_low=math.exp(centre - half),
            ratio_high=math.exp(centre + half),
            batch=1,
            blocks=blocks,
            noise=error * math.sqrt(blocks),
        )

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

    A sample lasts longer than that where the clock's step would be more than a thousandth of it, or where what a
    batch costs beside its dispatches (recording, submitting, waiting) would be more than a hundredth: up to four
    times ``target_s``. That cost is read off single dispatches.

    The first run warms up and is not timed. Grows until a batch lasts in the faster of two runs, because a
    hiccup would otherwise pass for a slow dispatch. Takes three to five times ``target_s``, or three
    dispatches where those take longer.
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
    overhead_s = (batch * min(run(1) for _ in range(3)) - seconds) / (batch - 1)
    if overhead_s <= _OVERHEAD * seconds:
        return batch
    dispatch_s = max((seconds - overhead_s) / batch, 0.0)
    lasting_s = min(overhead_s / _OVERHEAD, _STRETCH * target_s) - overhead_s
    return min(max(batch, math.ceil(lasting_s / dispatch_s)) if dispatch_s else cap, cap)


def time_limit_s(baseline_s: float) -> float:
    """How long a candidate may take, in seconds, for what took the baseline ``baseline_s``.

    Twenty times as long: who is slower cannot win. And two seconds for what has nothing to do with it: a machine that
    is busy, pages that are touched for the first time.
    """
    return _SHORTEST_LIMIT_S + _SLOWEST * baseline_s


def compare(
    candidate: Run,
    baseline: Run,
    policy: Policy = SCREENING,
    *,
    batch: int | None = None,
    best: float = 1.0,
    earlier: Sequence[float] = (),
) -> Measurement:
    """Measure ``candidate`` in ABBA blocks with ``baseline``, in this process.

    ``batch`` is what `calibrate` gave for the baseline; without it the baseline is calibrated first. A
    block runs baseline, candidate, candidate, baseline (the next one the other way around), so that a
    linear drift of the clock cancels. It ends once the interval's half-width is below ``policy.width``, and from the
    second block on where the whole interval lies below 1 or below ``best``, the ratio that a candidate has to reach
    to be of interest. Both callables must have run once before, so that what only happens the first time is over.

    ``earlier`` are samples of the same baseline in the same batch, in microseconds per dispatch and in pairs as a
    `Measurement` has them: they tell how steady the machine is. A block in which it changed its speed is run again,
    up to two of them, see `DriftDetector`.
    """
    if batch is None:
        batch = calibrate(baseline, policy.sample_s, cap=policy.batch_cap)
    glance = _glance(candidate, baseline, policy.cutoff)
    if glance is not None:
        return glance
    wanted = max(1.0, best)
    samples: list[float] = []
    baseline_samples: list[float] = []
    logs: list[float] = []
    drift_detector = DriftDetector(earlier)
    started = time.perf_counter()
    while len(logs) < policy.blocks:
        block_started = time.perf_counter()
        ours, theirs = _block(candidate, baseline, batch, flip=len(logs) % 2 == 1)
        if not logs and min(ours) * wanted > policy.cutoff * max(theirs):
            return _cut_short(ours, theirs, batch, wanted)
        if not drift_detector.accepts(theirs, [ours]):
            continue
        samples += ours
        baseline_samples += theirs
        logs.append(log_ratio(ours, theirs))
        now = time.perf_counter()
        centre, _, high = trimmed_interval(logs, policy.alpha)
        if high < math.log(wanted):
            break
        is_late = (now - started) + (now - block_started) > policy.budget_s
        if len(logs) >= policy.min_blocks and (is_late or high - centre < policy.width):
            break
    return _measurement(samples, baseline_samples, logs, batch, policy.alpha, drift_detector)


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
    in the reverse order, so that a linear drift cancels for each of them. Blocks in which the machine changed its
    speed are run again as by `compare`. It ends once every half-width is below ``policy.width``. Give each round
    its own ``seed`` and its own fresh process, then join the rounds with `combine_rounds`. None is cut short.
    """
    if batch is None:
        batch = calibrate(baseline, policy.sample_s, cap=policy.batch_cap)
    order = random.Random(seed)
    everyone: dict[str | None, Run] = {None: baseline}
    everyone.update(runs.items())
    samples: dict[str | None, list[float]] = {name: [] for name in everyone}
    logs: dict[str, list[float]] = {name: [] for name in runs}
    drift_detector = DriftDetector()
    done = 0
    started = time.perf_counter()
    while done < policy.blocks:
        block_started = time.perf_counter()
        names = list(everyone)
        order.shuffle(names)
        block: dict[str | None, list[float]] = {name: [] for name in everyone}
        for name in (*names, *reversed(names)):
            block[name].append(everyone[name](batch) * 1e6 / batch)
        if not drift_detector.accepts(block[None], [block[name] for name in runs]):
            continue
        done += 1
        for name, pair in block.items():
            samples[name] += pair
        for name in runs:
            logs[name].append(log_ratio(block[name], block[None]))
        now = time.perf_counter()
        is_late = 2 * now - started - block_started > policy.budget_s
        if done >= policy.min_blocks and (is_late or largest_half_width(logs.values(), policy.alpha) < policy.width):
            break
    return {
        name: _measurement(samples[name], samples[None], logs[name], batch, policy.alpha, drift_detector)
        for name in runs
    }


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
    half = student_quantile(count - 1, alpha) * max(between, within) * math.sqrt(1 + 1 / count)
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
        repeated=sum(each.repeated for each in rounds),
        note="; ".join(f"round {number}: {each.note}" for number, each in enumerate(rounds, 1) if each.note),
    )


def is_decided(finalists: Iterable[Sequence[Measurement]]) -> bool:
    """Whether more rounds than those of each of ``finalists`` would tell no more.

    So it is where each finalist is surely slower than the default, or its interval's lower half narrower than 10%.
    """
    joined = [combine_rounds(rounds) for rounds in finalists]
    return all(each.ratio_high < 1 or each.ratio - each.ratio_low < _NARROW * each.ratio for each in joined)


@cache
def _clock_step_s() -> float:
    """The smallest step of this process's clock that was seen."""
    steps = []
    for _ in range(100):
        started = now = time.perf_counter()
        while now == started:
            now = time.perf_counter()
        steps.append(now - started)
    return min(steps)


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
    return _cut_short([each * 1e6 for each in ours], [each * 1e6 for each in theirs], 1, 1.0)


def _block(candidate: Run, baseline: Run, batch: int, *, flip: bool) -> tuple[list[float], list[float]]:
    """One ABBA block (BAAB with ``flip``): the candidate's and the baseline's two samples, microseconds."""
    outer, inner = (candidate, baseline) if flip else (baseline, candidate)
    first = outer(batch)
    middle = [inner(batch), inner(batch)]
    ends = [first, outer(batch)]
    ours, theirs = (ends, middle) if flip else (middle, ends)
    scale = 1e6 / batch
    return [each * scale for each in ours], [each * scale for each in theirs]


def _cut_short(samples: Sequence[float], baseline_samples: Sequence[float], batch: int, high: float) -> Measurement:
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(log_ratio(samples, baseline_samples)),
        ratio_low=0.0,
        ratio_high=high,
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
    drift_detector: DriftDetector,
) -> Measurement:
    centre, low, high = trimmed_interval(logs, alpha)
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(centre),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        batch=batch,
        blocks=len(logs),
        noise=standard_error(logs) * math.sqrt(len(logs)),
        repeated=drift_detector.repeated,
        note=drift_detector.note,
    )
