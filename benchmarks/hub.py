"""Compare the search with Kernel Tuner's and optuna's on complete landscapes: ``python benchmarks/hub.py DIRECTORY``.

The directory holds landscapes as the Auto-Tuning Association's benchmark hub has them: T4 results or cache files of
Kernel Tuner, also compressed by gzip. Kernel Tuner and optuna are no dependencies: ``python -m pip install
"kernel_tuner>=1.5" "optuna>=4"`` adds them to the comparison.

A proposal is a config of the complete space that a strategy evaluates for the first time, also one that fails. What a
strategy evaluates again costs it nothing. The regret is the time of the best found by the best time of the landscape.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import click
import msgspec
import numpy as np
import numpy.typing as npt
from search import TpeSearch

from pytest_shark_tune.results.interchange import read_any_landscape
from pytest_shark_tune.results.replay import best_so_far
from pytest_shark_tune.search import ConfigTable, ModelSearch, Search, UniformSearch

RESULTS = Path(__file__).parent / "results" / "hub"
BUDGETS = (16, 32, 64)
OURS = "model"
KERNEL_TUNER = ("hybrid_vndx", "adaptive_tabu_greywolf", "pso", "genetic_algorithm", "simulated_annealing")
"""The strategies of Kernel Tuner's release: the two of the newest paper, and the best of those before."""
_DRAWS = 4000
"""The bootstrap samples of an interval."""
_WITHIN = (2.5, 97.5)

Regrets: TypeAlias = npt.NDArray[np.float64]
"""The logarithms of regrets, an array of shape ``(seeds, budgets)``."""
Course: TypeAlias = Sequence[float]
"""The best ratio so far by the best of the landscape, after each proposal; 0 as long as nothing was measured."""


@dataclass(frozen=True, eq=False)
class Space:
    """A landscape as strategies see it."""

    table: ConfigTable
    ratios: tuple[float | None, ...]
    """The ratio to the best of each row, ``None`` for a config that failed."""

    @property
    def worst(self) -> float:
        """The ratio of the slowest config, which stands for what a search has before it measured anything."""
        return min(ratio for ratio in self.ratios if ratio is not None)


class Runs(msgspec.Struct, frozen=True):
    """The searches of one strategy on one landscape."""

    regrets: list[list[float]]
    """The regret at each budget, by seed."""
    seconds_per_proposal: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The file of raw results."""

    budgets: tuple[int, ...]
    seeds: int
    versions: dict[str, str]
    """The versions of the packages that strategies are of."""
    runs: dict[str, dict[str, Runs]]
    """The searches by landscape and strategy."""


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seeds", default=30, show_default=True, help="Searches of each strategy on each landscape.")
@click.option("--budget", "budgets", type=int, multiple=True, default=BUDGETS, help="Proposals; several times.")
@click.option("--strategy", "strategies", multiple=True, help="A strategy; several times. By default, all.")
@click.option("--only", multiple=True, help="A part of the names of landscapes; several times. By default, all.")
@click.option("--jobs", default=1, show_default=True, help="The number of processes.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS / "results.json")
@click.option("--again", multiple=True, help="A strategy whose results in the output are replaced; several times.")
def main(
    directory: Path,
    seeds: int,
    budgets: tuple[int, ...],
    strategies: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int,
    output: Path,
    again: tuple[str, ...],
) -> None:
    """Run the strategies on the landscapes of DIRECTORY, and print their regrets.

    Results that the output holds already are not run again.
    """
    known, missing = _strategies()
    for package, names in missing.items():
        click.echo(f"without {', '.join(names)}: {package} is not installed")
    if unknown := {*strategies, *again} - set(known):
        raise click.UsageError(f"no strategy {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    paths = {_name(path): path for path in sorted(directory.iterdir()) if _is_landscape(path, only)}
    if not paths:
        raise click.UsageError(f"no landscape in {directory}")
    runs = _read_runs(output, tuple(budgets), seeds)
    asked = [(name, strategy) for name in paths for strategy in strategies or known]
    todo = [(name, each) for name, each in asked if each in again or each not in runs.get(name, {})]
    for name, strategy, found in _run_all(todo, paths, seeds, budgets, jobs):
        runs.setdefault(name, {})[strategy] = found
        _write(output, Results(budgets=tuple(budgets), seeds=seeds, versions=_versions(), runs=runs))
    shown = strategies or tuple(known)
    for line in report({name: {each: runs[name][each] for each in shown} for name in paths}, budgets):
        click.echo(line)


def _run_all(
    todo: Iterable[tuple[str, str]], paths: Mapping[str, Path], seeds: int, budgets: Sequence[int], jobs: int
) -> Iterable[tuple[str, str, Runs]]:
    """Run pairs of a landscape and a strategy, and yield results as they come."""
    if jobs < 2:
        for name, strategy in todo:
            yield name, strategy, run(paths[name], strategy, seeds, budgets)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        started = {pool.submit(run, paths[name], each, seeds, budgets): (name, each) for name, each in todo}
        for future in as_completed(started):
            yield *started[future], future.result()


def run(path: Path, strategy: str, seeds: int, budgets: Sequence[int]) -> Runs:
    """Run a strategy on a landscape with the seeds 0 to ``seeds - 1``."""
    space = space_of(path)
    started = time.process_time()
    courses = [course_of(space, strategy, seed, max(budgets)) for seed in range(seeds)]
    seconds = (time.process_time() - started) / (seeds * max(budgets))
    regrets = [[round(1 / regret, 5) for regret in _at(course, budgets, space.worst)] for course in courses]
    return Runs(regrets, round(seconds, 5))


@cache
def space_of(path: Path) -> Space:
    """Read a landscape."""
    landscape = read_any_landscape(path)
    ratios = landscape.ratios()
    best = max(ratio for ratio in ratios if ratio is not None)
    return Space(landscape.table(), tuple(None if ratio is None else ratio / best for ratio in ratios))


def course_of(space: Space, strategy: str, seed: int, budget: int) -> Course:
    """Run one search, which learns each result before its next proposal."""
    if strategy in KERNEL_TUNER:
        rows = kernel_tuner_rows(space, strategy, seed, budget)
        return list(accumulate((space.ratios[row] or 0.0 for row in rows), max))
    makers: Mapping[str, Callable[[], Search]] = {
        OURS: lambda: ModelSearch(space.table, seed),
        "random": lambda: UniformSearch(len(space.table), seed),
        "optuna TPE": lambda: TpeSearch(space.table, seed),
    }
    return best_so_far(makers[strategy](), space.ratios, budget=budget, batch=1)


def kernel_tuner_rows(space: Space, strategy: str, seed: int, budget: int) -> list[int]:
    """Return the rows that a strategy of Kernel Tuner evaluates, in their order and without repetitions.

    The strategy has its default options, and knows the valid configs of the space. Kernel Tuner draws from the global
    generators.
    """
    from kernel_tuner.interface import Options, strategy_map
    from kernel_tuner.util import RuntimeFailedConfig, TuningBudget

    names = space.table.names
    options = Options(
        objective=["time"],
        objective_higher_is_better=[False],
        strategy_options=Options(max_fevals=budget),
        budget=TuningBudget(max_fevals=budget),
        verbose=False,
    )
    known = _searchspace(space)
    rows: dict[int, None] = {}

    class Recorder:
        """Kernel Tuner's runner, which answers from the table."""

        def run(self, configs: Iterable[Sequence[int]], tuning_options: Any) -> list[dict[str, Any] | None]:
            return [self._run_one(config, tuning_options) for config in configs]

        def _run_one(self, config: Sequence[int], tuning_options: Any) -> dict[str, Any] | None:
            if tuning_options.budget.is_done():
                return None
            row = int(known.get_param_config_index(tuple(config)))
            if row not in rows:
                rows[row] = None
                tuning_options.budget.add_evaluations(1)
            ratio = space.ratios[row]
            result: dict[str, Any] = dict(zip(names, config, strict=True))
            return result | ({"__error__": RuntimeFailedConfig()} if ratio is None else {"time": 1 / ratio})

        def add_strategy_time(self, _: float) -> None:
            pass

    random.seed(seed)
    np.random.seed(seed)
    strategy_map[strategy].tune(known, Recorder(), options)
    return list(rows)[:budget]


@cache
def _searchspace(space: Space) -> Any:
    """Return the space in Kernel Tuner's form, row by row."""
    from kernel_tuner.searchspace import Searchspace

    names = space.table.names
    values = space.table.values.astype(int)
    levels = {name: sorted({*column}) for name, column in zip(names, values.T.tolist(), strict=True)}
    configs = {str(row): dict(zip(names, config, strict=True)) for row, config in enumerate(values.tolist())}
    return Searchspace(None, None, None, from_cache={"tune_params": levels, "cache": configs})


def report(runs: Mapping[str, Mapping[str, Runs]], budgets: Sequence[int]) -> Iterable[str]:
    """Return the table of geometric means with their intervals, and who is ahead of ours by more than noise."""
    strategies = list(next(iter(runs.values())))
    logs = {strategy: [np.log(np.array(found[strategy].regrets)) for found in runs.values()] for strategy in strategies}
    yield f"{len(runs)} landscapes: {', '.join(runs)}"
    yield f"  {'strategy':24}" + "".join(f"{f'{budget} proposals':26}" for budget in budgets) + "ms a proposal"
    for strategy in strategies:
        means, low, high = _interval(logs[strategy])
        cells = "".join(f"{f'{means[at]:.3f} ({low[at]:.3f} to {high[at]:.3f})':26}" for at in range(len(budgets)))
        cost = np.mean([found[strategy].seconds_per_proposal for found in runs.values()]) * 1e3
        yield f"  {strategy:24}{cells}{cost:.1f}"
    if OURS in strategies:
        ahead = [line for each in strategies if each != OURS for line in _ahead(each, logs[each], logs[OURS], budgets)]
        yield from ahead or [f"no strategy is ahead of {OURS} by more than noise"]


def _ahead(name: str, theirs: list[Regrets], ours: list[Regrets], budgets: Sequence[int]) -> Iterable[str]:
    for landscapes_too in (True, False):
        ratio, _, high = _interval(theirs, ours, landscapes_too=landscapes_too)
        drawn = "seeds and landscapes" if landscapes_too else "seeds on just these landscapes"
        counts = [f"{budget} ({ratio[at]:.3f} times ours)" for at, budget in enumerate(budgets) if high[at] < 1]
        if counts:
            yield f"{name} is ahead of {OURS} by more than the noise of {drawn} at {', '.join(counts)}"


def _interval(
    logs: list[Regrets], others: list[Regrets] | None = None, *, landscapes_too: bool = True
) -> tuple[Regrets, Regrets, Regrets]:
    """Return the geometric mean of regrets, or its ratio to that of ``others``, and a bootstrap interval.

    A sample draws landscapes, and seeds on each of them. The same landscapes are drawn for both sides.
    """
    generator = np.random.default_rng(0)

    def drawn_means(each: Regrets) -> Regrets:
        rows = generator.integers(len(each), size=(_DRAWS, len(each)))
        return np.asarray(each[rows].mean(axis=1))

    means = np.stack([drawn_means(each) for each in logs])
    centre = np.mean([each.mean(axis=0) for each in logs], axis=0)
    if others is not None:
        means -= np.stack([drawn_means(each) for each in others])
        centre = centre - np.mean([each.mean(axis=0) for each in others], axis=0)
    if landscapes_too:
        chosen = generator.integers(len(means), size=(len(means), _DRAWS))
        means = means[chosen, np.arange(_DRAWS)]
    low, high = np.percentile(means.mean(axis=0), _WITHIN, axis=0)
    return np.exp(centre), np.exp(low), np.exp(high)


def _at(course: Course, budgets: Iterable[int], worst: float) -> list[float]:
    """Return the best ratio at each budget. A search that ended before keeps its last."""
    return [max(course[min(budget, len(course)) - 1] if len(course) else 0.0, worst) for budget in budgets]


def _strategies() -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Return the strategies that can run, and those that cannot by the package that is missing."""
    optional = {"kernel_tuner": KERNEL_TUNER, "optuna": ("optuna TPE",)}
    missing = {package: names for package, names in optional.items() if importlib.util.find_spec(package) is None}
    absent = {name for names in missing.values() for name in names}
    return [name for name in (OURS, "random", *KERNEL_TUNER, "optuna TPE") if name not in absent], missing


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("kernel_tuner", "optuna"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _is_landscape(path: Path, only: Sequence[str]) -> bool:
    return path.name.endswith((".json", ".json.gz")) and (not only or any(part in _name(path) for part in only))


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _read_runs(path: Path, budgets: tuple[int, ...], seeds: int) -> dict[str, dict[str, Runs]]:
    """Return the runs of an earlier call; none if it had other budgets or seeds."""
    if not path.exists():
        return {}
    found = msgspec.json.decode(path.read_bytes(), type=Results)
    if (found.budgets, found.seeds) != (budgets, seeds):
        raise click.UsageError(f"{path} has the budgets {found.budgets} and {found.seeds} seeds: name another --output")
    return found.runs


def _write(path: Path, results: Results) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(results) + b"\n")


if __name__ == "__main__":
    main()
