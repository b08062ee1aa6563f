"""Measurements: the time of a candidate beside its baseline.

Everything works over callables that run a batch and return the seconds that it took. Users of another kernel compiler
need nothing else of this package but `measurement.correctness`. docs/measurement.md gives the reasons for the numbers.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from pytest_shark_tune.measurement import intervals
from pytest_shark_tune.measurement.calibration import Run, calibrate, time_limit_s
from pytest_shark_tune.measurement.drift import DriftDetector

__all__ = [
    "FINAL",
    "FINAL_ROUNDS",
    "GUARD_ROUND",
    "MEASUREMENT_VERSION",
    "MOST_ROUNDS",
    "NOISE_FLOOR",
    "SCREENING",
    "AtSize",
    "Measurement",
    "Policy",
    "Run",
    "SizedMeasurement",
    "calibrate",
    "compare",
    "compare_finalists",
    "time_limit_s",
]

MEASUREMENT_VERSION: Final = 1
"""The version of the timing, and of the way from samples to a ratio with its interval.

Raise it with a change that takes other times, or makes another ratio of the same times. Everything is then measured
again.
"""

NOISE_FLOOR = 0.02
"""A ratio counts if it exceeds 1 by more than this: differences of code layout alone reach 1% to 2%."""

FINAL_ROUNDS = 5
"""The number of fresh processes in a final. With fewer, a machine that has two speeds often shows only one of them."""

MOST_ROUNDS = 10
"""The number of rounds in a final that the first rounds do not decide."""

_QUICK_REJECT = 2.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a comparison may take, and the confidence of its interval."""

    sample_s: float
    """The seconds that a batch of the baseline runs."""
    blocks: int
    """The most ABBA blocks."""
    min_blocks: int
    """The fewest blocks."""
    budget_s: float
    """After ``min_blocks``, only blocks that fit into this time are run."""
    width: float = 0.0
    """The half-width of the interval that ends the comparison (0.01 reads as 1%)."""
    cutoff: float = math.inf
    """A candidate that takes more than this many times its allowed time is stopped after the first block.

    One that takes more than twice that is stopped after three single dispatches.
    """
    alpha: float = 0.05
    """The interval covers with probability 1 - ``alpha``."""
    batch_cap: int = 4096
    """The most dispatches in a batch."""


SCREENING = Policy(sample_s=0.005, blocks=6, min_blocks=3, budget_s=0.11, width=0.01, cutoff=2.0)
"""The policy for every candidate: at most about 0.1 s for a dispatch of 1 to 3 ms."""

FINAL = Policy(sample_s=0.010, blocks=8, min_blocks=3, budget_s=1.5, width=0.005)
"""The policy for one round of finalists, in one fresh process."""

GUARD_ROUND = Policy(sample_s=0.010, blocks=4, min_blocks=3, budget_s=0.5, width=0.005)
"""The policy for one round of guarding: fewer samples than in a final, since the rounds make the decision."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's times beside its baseline's, and their ratio with its interval."""

    samples_us: tuple[float, ...]
    """The samples in the order taken, in microseconds per dispatch."""
    baseline_samples_us: tuple[float, ...]
    """The same for the baseline."""
    ratio: float
    """Baseline / candidate: above 1 the candidate is faster."""
    ratio_low: float
    """The lower bound of the ratio.

    The bounds of a single round say nothing about other processes. Those of several rounds bound the ratio that one
    more fresh process will measure.
    """
    ratio_high: float
    """The upper bound of the ratio."""
    batch: int
    """The number of dispatches in a sample."""
    blocks: int
    """The number of ABBA blocks in all rounds."""
    noise: float
    """The standard deviation of a block's log-ratio within a process (0.01 reads as 1%)."""
    rounds: int = 1
    process_noise: float = 0.0
    """The standard deviation of a round's log-ratio between processes; 0 for a single round."""
    cut_short: bool = False
    """The candidate was far slower from the start.

    The bounds then only say that its ratio is less than ``ratio_high``: 1, or the ``best`` that it was compared with.
    """
    repeated: int = 0
    """The number of blocks that were run again, because the machine changed its speed meanwhile."""
    note: str = ""
    """A message about such blocks, also about those that were not run again."""

    @classmethod
    def of_samples(
        cls, samples_us: Sequence[float], baseline_samples_us: Sequence[float], *, alpha: float = 0.05
    ) -> Measurement:
        """Make a measurement of the samples of another timer.

        With L the difference of the trimmed means of the logarithms and e_1, e_2 their standard errors, the interval is
        ``exp(L +- t(f, 1 - alpha/2) * sqrt(e_1^2 + e_2^2))``, f by Welch: Yuen, 'The two-sample trimmed t for unequal
        population variances' (Biometrika 61, 1974). With fewer than two samples on a side it is (0, infinity).

        The interval takes samples as independent, so it does not cover differences between processes. Time in several
        processes, and join their measurements with `combine_rounds`.

        Args:
            samples_us: The candidate's samples, in microseconds per dispatch.
            baseline_samples_us: The baseline's samples. They need not be as many.
            alpha: The interval covers with probability 1 - ``alpha``.

        Raises:
            ValueError: there are no samples, or one is not a positive, finite number.
        """
        if not (
            samples_us and baseline_samples_us and all(0 < t < math.inf for t in [*samples_us, *baseline_samples_us])
        ):
            raise ValueError("a measurement is made of positive, finite samples of the candidate and of its baseline")
        centre, error, freedom = intervals.trimmed_difference(samples_us, baseline_samples_us)
        half = intervals.student_quantile(freedom, alpha) * error if freedom > 0 else math.inf
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


class AtSize(msgspec.Struct, frozen=True):
    """The measurement of a candidate for a dispatch with open sizes, at one choice of them."""

    weight: int
    measurement: Measurement


class SizedMeasurement(Measurement, frozen=True, kw_only=True):
    """The measurement of a candidate for a dispatch with open sizes, at all the sizes that are given."""

    sizes: dict[str, AtSize]
    """The measurement at each size, which `join_sizes` joined."""


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

    A block runs baseline, candidate, candidate, baseline, and the next one the other way around, so that a linear drift
    of the clock cancels. The comparison ends once the interval's half-width is below ``policy.width``. From the second
    block on it also ends if the whole interval lies below 1 or below ``best``. Up to two blocks in which the machine
    changed its speed are run again (see `DriftDetector`).

    Args:
        candidate: Runs a batch of the candidate. It must have run once before, as the first run does more.
        baseline: Runs a batch of the baseline. It must have run once before.
        policy: The time and the confidence.
        batch: The result of `calibrate` for the baseline, which is calibrated first if it is not given.
        best: The ratio that a candidate has to reach to be of interest.
        earlier: Samples of the same baseline in the same batch, in microseconds per dispatch and in pairs, as in a
            `Measurement`. They show how steady the machine is.
    """
    if batch is None:
        batch = calibrate(baseline, policy.sample_s, cap=policy.batch_cap)
    rejected = _quick_reject(candidate, baseline, policy.cutoff)
    if rejected is not None:
        return rejected
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
            return _stopped_early(ours, theirs, batch, wanted)
        if not drift_detector.accepts(theirs, [ours]):
            continue
        samples += ours
        baseline_samples += theirs
        logs.append(intervals.log_ratio(ours, theirs))
        now = time.perf_counter()
        centre, _, high = intervals.trimmed_interval(logs, policy.alpha)
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
    """Measure all finalists beside the baseline in one round, interleaved, in this process.

    A block runs the baseline and all finalists in a fresh random order, then once more in the reverse order, so that a
    linear drift cancels for all of them. Blocks in which the machine changed its speed are run again, as by `compare`.
    The round ends once every half-width is below ``policy.width``. No finalist is stopped early. Join the rounds of
    several fresh processes with `combine_rounds`.

    Args:
        runs: For every finalist, by name, a callable that runs a batch.
        baseline: Runs a batch of the baseline.
        policy: The time and the confidence.
        seed: The seed of the order, different for every round.
        batch: The result of `calibrate` for the baseline, which is calibrated first if it is not given.

    Returns:
        The measurements by name.
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
            logs[name].append(intervals.log_ratio(block[name], block[None]))
        now = time.perf_counter()
        is_late = 2 * now - started - block_started > policy.budget_s
        if done >= policy.min_blocks and (
            is_late or intervals.largest_half_width(logs.values(), policy.alpha) < policy.width
        ):
            break
    return {
        name: _measurement(samples[name], samples[None], logs[name], batch, policy.alpha, drift_detector)
        for name in runs
    }


def _quick_reject(candidate: Run, baseline: Run, cutoff: float) -> Measurement | None:
    """Measure single dispatches; ``None`` unless they show that the candidate is far slower.

    Single runs are at times twice as slow as they should be, even twice in a row (seen on an H100). So the candidate
    has to be slower by twice the cutoff in the best of three.
    """
    if math.isinf(cutoff):
        return None
    theirs = [baseline(1)]
    ours: list[float] = []
    for _ in range(3):
        ours.append(candidate(1))
        if ours[-1] <= _QUICK_REJECT * cutoff * theirs[0]:
            return None
    theirs.append(baseline(1))
    if min(ours) <= _QUICK_REJECT * cutoff * max(theirs):
        return None
    return _stopped_early([seconds * 1e6 for seconds in ours], [seconds * 1e6 for seconds in theirs], 1, 1.0)


def _block(candidate: Run, baseline: Run, batch: int, *, flip: bool) -> tuple[list[float], list[float]]:
    """Run one ABBA block (BAAB with ``flip``).

    Returns:
        The two samples of the candidate and those of the baseline, in microseconds per dispatch.
    """
    outer, inner = (candidate, baseline) if flip else (baseline, candidate)
    first = outer(batch)
    middle = [inner(batch), inner(batch)]
    ends = [first, outer(batch)]
    ours, theirs = (ends, middle) if flip else (middle, ends)
    scale = 1e6 / batch
    return [seconds * scale for seconds in ours], [seconds * scale for seconds in theirs]


def _stopped_early(samples: Sequence[float], baseline_samples: Sequence[float], batch: int, high: float) -> Measurement:
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(intervals.log_ratio(samples, baseline_samples)),
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
    centre, low, high = intervals.trimmed_interval(logs, alpha)
    return Measurement(
        samples_us=tuple(samples),
        baseline_samples_us=tuple(baseline_samples),
        ratio=math.exp(centre),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        batch=batch,
        blocks=len(logs),
        noise=intervals.standard_error(logs) * math.sqrt(len(logs)),
        repeated=drift_detector.repeated,
        note=drift_detector.note,
    )
