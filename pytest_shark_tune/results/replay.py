"""Searches run against recorded measurements, to judge them without a device.

A landscape is the measured results of a large sample of one dispatch's configs, uniform over its spaces. A search
learns from it just as much as from a device: the results of configs that it did not propose stay hidden.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.dispatch_text import facts_of_text
from pytest_shark_tune.search import ConfigTable, Outcome, ProblemFacts, Search, make_search
from pytest_shark_tune.search.facts import device_class, gpu_processors
from pytest_shark_tune.search.prior import Prior
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.files import decode_json, read_packed

__all__ = [
    "BATCH",
    "CHECKPOINTS",
    "Landscape",
    "LandscapeCandidate",
    "Replay",
    "Replayed",
    "best_so_far",
    "read_landscape",
    "replay",
    "replay_once",
    "summarised",
    "write_landscape",
]

BATCH: Final = 2
"""Configs that a search proposes at a time: one worker measures one and prepares the next."""

CHECKPOINTS: Final = (16, 32, 64, 128)
"""The numbers of evaluations at which the best ratio so far is reported."""

_NEAR = 0.05
_NEAREST = 0.01


class LandscapeCandidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One config of a landscape."""

    pipeline: str
    space: int = 0
    """The position of the config's space, which tells spaces of the same pipeline apart."""
    knobs: dict[str, int]
    state: State
    reason: str = ""
    compile_s: float | None = None
    samples_us: tuple[float, ...] = ()
    """Microseconds of one dispatch. A duplicate has the samples of the config that has the same binary."""


class Landscape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one dispatch on one device."""

    dispatch: str
    device: str
    target: str
    iree: str
    note: str = ""
    vector_bytes: int = 0
    """The width of a CPU's vectors, if it was recorded."""
    facts: ProblemFacts | None = None
    """The facts that the search of a real run knows of the problem, if they were recorded."""
    baseline_samples_us: tuple[tuple[float, ...], ...]
    """The samples of the default's measurements, in the order taken."""
    candidates: tuple[LandscapeCandidate, ...]

    def table(self) -> ConfigTable:
        """Return the configs in their order."""
        return ConfigTable.of((f"{config.pipeline} {config.space}", config.knobs) for config in self.candidates)

    def ratios(self) -> tuple[float | None, ...]:
        """Return the median baseline time by each config's median time, ``None`` for a config that failed."""
        baseline = statistics.median(statistics.median(samples) for samples in self.baseline_samples_us)
        return tuple(
            baseline / statistics.median(config.samples_us) if config.samples_us else None for config in self.candidates
        )

    @property
    def device_class(self) -> str:
        """The class of devices that results are compared within."""
        return device_class(self.device, self.vector_bytes)

    def known_facts(self) -> ProblemFacts:
        """Return the recorded facts, or else those in the descriptions of the dispatch and the device."""
        return self.facts or facts_of_text(self.dispatch, gpu_processors(self.device))


class Replayed(msgspec.Struct, frozen=True):
    """The search of one seed."""

    evals_to_5pct: int | None
    """The evaluations to within 5% of the best recorded; ``None`` if the search ended before."""
    evals_to_1pct: int | None
    """The evaluations to within 1% of the best recorded; ``None`` if the search ended before."""
    best_ratios: tuple[float, ...]
    """The best ratio so far by the best recorded, at each of `CHECKPOINTS`; 0 if nothing was measured yet."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The searches of all seeds of one strategy. An evaluation is a proposed config, measured or failed.

    Numbers of evaluations are ``None`` if so many seeds ended before.
    """

    evals_to_5pct_median: float | None
    evals_to_5pct_p90: float | None
    evals_to_1pct_median: float | None
    best_ratio_at: dict[str, float]
    """The median over seeds of the best recorded time by the best time so far, by `CHECKPOINTS`: 1 is the best."""


def read_landscape(path: Path) -> Landscape:
    """Read a landscape.

    Raises:
        InputError: the file cannot be read, is no landscape, or holds no measurement.
    """
    try:
        landscape = decode_json(read_packed(path), Landscape)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path} is no landscape: {error}") from error
    if not landscape.baseline_samples_us or not all(landscape.baseline_samples_us):
        raise InputError(f"{path}: baseline_samples_us is empty, so there is nothing to compare with")
    for position, config in enumerate(landscape.candidates):
        if config.state is not State.DUPLICATE and (config.state is State.MEASURED) != bool(config.samples_us):
            raise InputError(f"{path}: candidate {position} is {config.state} with {len(config.samples_us)} samples")
    times = [time for config in landscape.candidates for time in config.samples_us]
    if not times:
        raise InputError(f"{path}: no candidate was measured, so there is nothing to find")
    if not all(0 < time < math.inf for time in [*times, *sum(landscape.baseline_samples_us, ())]):
        raise InputError(f"{path}: times must be positive numbers of microseconds")
    try:
        landscape.table()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return landscape


def write_landscape(landscape: Landscape, path: Path) -> None:
    """Write a landscape for `read_landscape`.

    Raises:
        OSError: it cannot be written; an older file is then whole.
    """
    journal.replace_file(path, msgspec.json.encode(landscape) + b"\n")


def replay(
    landscape: Landscape,
    strategy: str,
    seeds: int,
    *,
    budget: int | None = None,
    batch: int = BATCH,
    jobs: int = 1,
    prior: Prior | None = None,
) -> tuple[Replayed, ...]:
    """Run a strategy with the seeds 0 to ``seeds - 1``.

    Args:
        landscape: the recorded measurements.
        strategy: the name of the search.
        seeds: the number of seeds.
        budget: the most evaluations of a seed. Without one a search goes on to the best recorded config.
        batch: the configs that a search proposes at a time.
        jobs: the most processes.
        prior: the prior that guides searches with a model, if any.
    """
    run = partial(_one_seed, landscape, strategy, budget, batch, prior)
    if jobs < 2 or seeds < 2:
        return tuple(map(run, range(seeds)))
    # A child started afresh holds no copy of whatever threads this process runs.
    with ProcessPoolExecutor(min(jobs, seeds), mp_context=get_context("spawn")) as pool:
        return tuple(pool.map(run, range(seeds)))


def _one_seed(
    landscape: Landscape, strategy: str, budget: int | None, batch: int, prior: Prior | None, seed: int
) -> Replayed:
    def make(table: ConfigTable) -> Search:
        return make_search(strategy, table, seed=seed, facts=landscape.known_facts(), budget=budget, guide=prior)

    return replay_once(landscape, make, budget=budget, batch=batch)


def replay_once(
    landscape: Landscape, make: Callable[[ConfigTable], Search], *, budget: int | None = None, batch: int = BATCH
) -> Replayed:
    """Run one search until it is within 1% of the best and past the last checkpoint, or the budget is spent.

    Args:
        landscape: the recorded measurements.
        make: returns the search over a table of configs.
        budget: the most evaluations.
        batch: the configs that the search proposes at a time.
    """
    ratios = landscape.ratios()
    best = max(ratio for ratio in ratios if ratio is not None)

    def is_done(course: Sequence[float]) -> bool:
        return len(course) >= CHECKPOINTS[-1] and course[-1] >= best / (1 + _NEAREST)

    course = best_so_far(make(landscape.table()), ratios, budget=budget, batch=batch, is_done=is_done)
    return Replayed(
        _evaluations_to(course, best / (1 + _NEAR)),
        _evaluations_to(course, best / (1 + _NEAREST)),
        tuple((course[min(count, len(course)) - 1] if course else 0.0) / best for count in CHECKPOINTS),
    )


def best_so_far(
    search: Search,
    ratios: Sequence[float | None],
    *,
    budget: int | None = None,
    batch: int = BATCH,
    is_done: Callable[[Sequence[float]], bool] = lambda _: False,
) -> list[float]:
    """Run a search on the recorded ratios of its rows, and return the best ratio after each evaluation.

    Args:
        search: the search.
        ratios: the ratio of each row, ``None`` for a config that failed.
        budget: the most evaluations.
        batch: the configs that the search proposes at a time.
        is_done: whether a course ends the search.

    Returns:
        The course: 0 as long as nothing was measured.
    """
    most = len(ratios) if budget is None else min(len(ratios), budget)
    course: list[float] = []
    while len(course) < most and not is_done(course):
        chosen = search.ask(min(batch, most - len(course)))
        if not chosen:
            break
        for index in chosen:
            course.append(max(course[-1] if course else 0.0, ratios[index] or 0.0))
        search.tell(Outcome(index, ratios[index]) for index in chosen)
    return course


def summarised(seeds: Sequence[Replayed]) -> Replay:
    """Return medians and 90th percentiles over the seeds of one strategy."""
    near = [seed.evals_to_5pct for seed in seeds]
    return Replay(
        evals_to_5pct_median=_percentile(near, 50),
        evals_to_5pct_p90=_percentile(near, 90),
        evals_to_1pct_median=_percentile([seed.evals_to_1pct for seed in seeds], 50),
        best_ratio_at={
            str(count): round(statistics.median(seed.best_ratios[position] for seed in seeds), 4)
            for position, count in enumerate(CHECKPOINTS)
        },
    )


def _evaluations_to(course: Sequence[float], goal: float) -> int | None:
    return next((position for position, ratio in enumerate(course, 1) if ratio >= goal), None)


def _percentile(counts: Sequence[int | None], percent: float) -> float | None:
    """Return a percentile of numbers of evaluations; ``None`` if it falls among the searches that never got there."""
    ordered = sorted(math.inf if count is None else float(count) for count in counts)
    position = (len(ordered) - 1) * percent / 100
    below, part = ordered[int(position)], position % 1
    # Between a number and infinity there is only infinity.
    value = below + part * (ordered[int(position) + 1] - below) if part and math.isfinite(below) else below
    return round(value, 1) if math.isfinite(value) else None
