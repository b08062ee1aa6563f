"""Print the search strategies side by side on recorded and on made-up landscapes: ``python benchmarks/search.py``.

Beside our own there are plain Bayesian optimisation, as scikit-optimize does it, and optuna's TPE. Optuna is no
dependency: ``python -m pip install "optuna>=4"`` adds it to the comparison.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec
import numpy as np

from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.results.replay import (
    BATCH,
    Landscape,
    LandscapeCandidate,
    Replay,
    read_landscape,
    replay_once,
    summarised,
)
from pytest_shark_tune.search import ConfigTable, ModelSearch, Outcome, PriorResult, ProblemFacts, Search, UniformSearch
from pytest_shark_tune.search.facts import gpu_processors

HERE = Path(__file__).parent
DIRECTORIES = (HERE / "landscapes", HERE / "results" / "landscapes")
RECORDS = HERE / "results"
_RUN = "run of "
_SPANS_S = (15, 30, 60, 120, 240)
"""How long the searches against time go on, in seconds of one compiler."""
_OVERHEAD_S = 0.1
"""What a candidate costs besides its compilation: to load, check and time it on a GPU."""

_GP_BUDGET = 160
"""Its time for each config grows with the square of those before."""


class Maker(Protocol):
    """Makes a search over a table."""

    def __call__(self, table: ConfigTable, seed: int) -> Search:
        """The search of that seed."""
        ...


class TpeSearch:
    """Optuna's TPE with its defaults over the pipeline and the knobs: what it suggests is moved to the nearest row.

    TPE knows no constraints, so most of what it suggests is no member of the space, and much was proposed already.
    """

    def __init__(self, table: ConfigTable, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._table = table
        self._left = np.ones(len(table), dtype=np.bool_)
        self._trials: dict[int, Any] = {}
        values = np.column_stack([table.pipelines, np.nan_to_num(table.values, nan=0.0)])
        self._levels = [np.unique(column) for column in values.T]
        self._ranks = np.column_stack(
            [np.searchsorted(levels, column) for levels, column in zip(self._levels, values.T, strict=True)]
        )

    def ask(self, count: int) -> list[int]:
        """The rows nearest to what TPE suggests, of those that are left."""
        chosen = []
        for _ in range(min(count, int(self._left.sum()))):
            trial = self._study.ask()
            wanted = [
                trial.suggest_int(f"knob_{column}", 0, len(levels) - 1) if len(levels) > 1 else 0
                for column, levels in enumerate(self._levels)
            ]
            distances = np.abs(self._ranks - wanted).sum(axis=1) + np.where(self._left, 0, 1 << 20)
            row = int(np.argmin(distances))
            self._left[row] = False
            self._trials[row] = trial
            chosen.append(row)
        return chosen

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Results of rows that were asked for."""
        for outcome in outcomes:
            trial = self._trials[outcome.index]
            if outcome.ratio is None:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(trial, math.log(outcome.ratio))

    @property
    def stop_reason(self) -> str:
        """That all were tried, once they were."""
        return "" if self._left.any() else "all were tried"

    @property
    def expected_gain(self) -> float:
        """Not known."""
        return math.nan


class GpSearch:
    """Bayesian optimisation by the book: a Gaussian process on knobs scaled to [0, 1], and expected improvement.

    As scikit-optimize has it: a Matern 5/2 kernel with a length for each dimension and noise, ten random configs to
    begin with, a lie (the worst seen) for what is still pending, and for what failed. The lengths are fitted anew once
    there is a tenth more to fit them to.
    """

    def __init__(self, table: ConfigTable, seed: int) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        random = np.random.default_rng(seed)
        columns = [(table.pipelines == code).astype(np.float64) for code in range(len(table.pipeline_names))]
        columns += list(np.log2(np.maximum(np.nan_to_num(table.values, nan=0.5), 0.5)).T)
        places = np.column_stack([column for column in columns if np.ptp(column)])
        self._places = (places - places.min(axis=0)) / np.ptp(places, axis=0)
        kernel = ConstantKernel() * Matern(np.ones(places.shape[1]), (1e-2, 1e2), nu=2.5) + WhiteKernel(0.01)
        self._process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
        self._left = np.ones(len(table), dtype=np.bool_)
        self._first = random.permutation(len(table))[:10].tolist()
        self._known: dict[int, float | None] = {}
        self._fitted = 0

    def ask(self, count: int) -> list[int]:
        """The rows of largest expected improvement, each chosen as if those before had failed."""
        chosen: list[int] = []
        while len(chosen) < count and self._left.any():
            row = self._first.pop(0) if self._first else self._best_row(chosen)
            self._left[row] = False
            chosen.append(row)
        return chosen

    def _best_row(self, pending: Sequence[int]) -> int:
        from scipy.stats import norm

        found = [value for value in self._known.values() if value is not None]
        lie = min(found, default=0.0)
        rows = [*self._known, *pending]
        values = [lie if value is None else value for value in (*self._known.values(), *[None] * len(pending))]
        if len(rows) < 1.1 * self._fitted:
            self._process.set_params(kernel=self._process.kernel_, optimizer=None)
        else:
            self._process.set_params(optimizer="fmin_l_bfgs_b")
            self._fitted = len(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A length at the end of its range is no news.
            self._process.fit(self._places[rows], values)
        left = np.flatnonzero(self._left)
        centre, spread = self._process.predict(self._places[left], return_std=True)
        better = (centre - max(values)) / np.maximum(spread, 1e-9)
        return int(left[np.argmax(spread * (better * norm.cdf(better) + norm.pdf(better)))])

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Results of rows that were asked for."""
        for outcome in outcomes:
            self._known[outcome.index] = None if outcome.ratio is None else math.log(outcome.ratio)

    @property
    def stop_reason(self) -> str:
        """That all were tried, once they were."""
        return "" if self._left.any() else "all were tried"

    @property
    def expected_gain(self) -> float:
        """Not known."""
        return math.nan


@click.command()
@click.option("--seeds", default=50, show_default=True, help="Searches by each strategy on each landscape.")
@click.option("--gp-seeds", default=10, show_default=True, help="As many by the Gaussian process, which takes long.")
@click.option("--made-up", "made_up", default=0, show_default=True, help="Also so many made-up landscapes of each op.")
@click.option("--most", default=1500, show_default=True, help="Most configs of a made-up landscape.")
@click.option("--time-configs", default=30_000, show_default=True, help="Time the search at this many configs; 0: not.")
def main(seeds: int, gp_seeds: int, made_up: int, most: int, time_configs: int) -> None:
    """Print, for each landscape and strategy, evaluations to within 5% and 1%, and the best so far."""
    landscapes = {
        path.stem: read_landscape(path) for directory in DIRECTORIES for path in sorted(directory.glob("*.json"))
    }
    landscapes |= {f"{_RUN}{path.parent.name}": from_records(path) for path in sorted(RECORDS.glob("*/records.jsonl"))}
    has_tpe = importlib.util.find_spec("optuna") is not None
    if not has_tpe:
        click.echo('without TPE: python -m pip install "optuna>=4" adds it')
    for name, landscape in landscapes.items():
        _compare(name, landscape, seeds, gp_seeds=gp_seeds, with_tpe=has_tpe)
    _warm_start(landscapes, seeds)
    click.echo("against time: the best so far by the best recorded, after seconds of one compiler")
    for name, landscape in landscapes.items():
        if any(each.compile_s for each in landscape.candidates):
            _race(name, landscape, seeds)
    if made_up:
        from synthetic import CASES, synthetic_landscape

        for target, device, op in CASES:
            for seed in range(made_up):
                landscape = synthetic_landscape(target, device, op, seed, most)
                _compare(f"{target} {landscape.dispatch}", landscape, max(1, seeds // 5), gp_seeds=0, with_tpe=False)
    if time_configs:
        _time_search(time_configs)


def from_records(path: Path) -> Landscape:
    """A landscape of the records of a tuning run: what it drew of the spaces, uniformly."""
    lines = [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]
    baseline, records = lines[0], lines[1:]
    return Landscape(
        dispatch=baseline.dispatch,
        device=baseline.device,
        target=baseline.target,
        iree=baseline.iree,
        baseline_samples_us=((1.0,),),
        candidates=tuple(
            LandscapeCandidate(
                pipeline=each.pipeline,
                space=each.knobs.get("use_igemm_idx", 0),
                knobs=each.knobs,
                state=each.state,
                compile_s=each.compile_s,
                samples_us=() if each.ratio is None else (1 / each.ratio,),
            )
            for each in records
        ),
    )


def _compare(name: str, landscape: Landscape, seeds: int, *, gp_seeds: int, with_tpe: bool) -> None:
    measured = sum(each.state is State.MEASURED for each in landscape.candidates)
    click.echo(f"{name}: {len(landscape.candidates)} configs, {measured} measured")
    facts = landscape.known_facts()
    makers: dict[str, Maker] = {
        "model": _model(facts),
        "random": lambda table, seed: UniformSearch(len(table), seed),
    }
    if with_tpe:
        makers["optuna TPE"] = TpeSearch
    for strategy, make in makers.items():
        _told(strategy, *_run(landscape, make, seeds))
    if gp_seeds:
        _told(f"GP, {gp_seeds} seeds", *_run(landscape, GpSearch, gp_seeds, budget=_GP_BUDGET))


def _run(landscape: Landscape, make: Maker, seeds: int, *, budget: int | None = None) -> tuple[Replay, float]:
    started = time.process_time()
    found = [replay_once(landscape, partial(make, seed=seed), budget=budget) for seed in range(seeds)]
    return summarised(found), (time.process_time() - started) / seeds


def _told(strategy: str, found: Replay, seconds: float) -> None:
    counts = "/".join(
        "-" if count is None else f"{count:g}" for count in (found.evals_to_5pct_median, found.evals_to_5pct_p90)
    )
    best = ", ".join(f"{ratio:.3f} at {count}" for count, ratio in found.best_ratio_at.items())
    one = "-" if found.evals_to_1pct_median is None else f"{found.evals_to_1pct_median:g}"
    click.echo(f"  {strategy:16} to 5%: {counts:12} to 1%: {one:6} best {best} ({seconds:.2f} s a seed)")


def _race(name: str, landscape: Landscape, seeds: int) -> None:
    """The model that counts configs, the one that counts seconds, and chance, for the same time."""
    facts = landscape.known_facts()
    makers: dict[str, Maker] = {
        "model by count": _model(facts),
        "model by time": lambda table, seed: ModelSearch(table, seed, facts=facts, by_time=True),
        "random": lambda table, seed: UniformSearch(len(table), seed),
    }
    click.echo(name)
    for strategy, make in makers.items():
        courses = [_course(landscape, make(landscape.table(), seed)) for seed in range(seeds)]
        told = []
        for span_s in _SPANS_S:
            reached = [
                max(((ratio, count) for at_s, ratio, count in each if at_s <= span_s), default=(0.0, 0))
                for each in courses
            ]
            best, tried = (statistics.median(values) for values in zip(*reached, strict=True))
            told.append(f"{best:.3f} at {span_s} s ({tried:g})")
        click.echo(f"  {strategy:16} {', '.join(told)}")


def _course(landscape: Landscape, search: Search) -> list[tuple[float, float, int]]:
    """For each config tried within the time: the seconds by then, the best so far by the best recorded, the count."""
    ratios = landscape.ratios()
    best = max(ratio for ratio in ratios if ratio is not None)
    course: list[tuple[float, float, int]] = []
    now_s, reached = 0.0, 0.0
    while now_s < _SPANS_S[-1] and (chosen := search.ask(BATCH)):
        for row in chosen:
            seconds = (landscape.candidates[row].compile_s or 0.0) + _OVERHEAD_S
            now_s, reached = now_s + seconds, max(reached, (ratios[row] or 0.0) / best)
            course.append((now_s, reached, len(course) + 1))
            search.tell([Outcome(row, ratios[row], seconds)])
    return course


def _warm_start(landscapes: dict[str, Landscape], seeds: int) -> None:
    """Each landscape with the results of all others on that device that share a pipeline, and without."""
    click.echo("with results of other dispatches on the same device:")
    for name, landscape in landscapes.items():
        problem = name.removeprefix(_RUN)
        prior = [
            result
            for other_name, other in landscapes.items()
            # A run's records of the very same problem would give the answer away.
            if other.device == landscape.device and other_name.removeprefix(_RUN) != problem
            for result in _prior(other)
        ]
        shared = {each.pipeline for each in prior} & set(landscape.table().pipeline_names)
        if not shared:
            continue
        click.echo(f"{name}: {len(prior)} prior results")
        facts = landscape.known_facts()
        _told("without", *_run(landscape, _model(facts), seeds))
        _told("with", *_run(landscape, _model(facts, prior), seeds))


def _model(facts: ProblemFacts, prior: Sequence[PriorResult] = ()) -> Maker:
    return lambda table, seed: ModelSearch(table, seed, facts=facts, prior=lambda: prior)


def _prior(landscape: Landscape) -> list[PriorResult]:
    table, facts = landscape.table(), landscape.known_facts()
    return [
        PriorResult(pipeline=table.pipeline(row), knobs=table.knobs(row), ratio=ratio, facts=facts)
        for row, ratio in enumerate(landscape.ratios())
    ]


def _time_search(count: int) -> None:
    """The processor time of the model for each proposal, up to 128 of them, at ``count`` configs."""
    random = np.random.default_rng(0)
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)
    knobs = random.choice(sizes, size=(3 * count, 7))
    names = ("wg_0", "wg_1", "red_2", "thr_0", "thr_1", "vec_0", "stages")
    rows = np.unique(knobs, axis=0)[:count]
    table = ConfigTable.of(("Made", dict(zip(names, row, strict=True))) for row in rows.tolist())
    facts = ProblemFacts(loops=(2048, 2048, 2048), reductions=(2,), processors=gpu_processors("H100"))
    # Loading scikit-learn takes a second, once.
    importlib.import_module("sklearn.tree")
    for batch in (1, 2, 4):
        started = time.process_time()
        search = ModelSearch(table, facts=facts)
        made = time.process_time() - started
        worst = 0.0
        started = time.process_time()
        for _ in range(128 // batch):
            asked = time.process_time()
            chosen = search.ask(batch)
            worst = max(worst, (time.process_time() - asked) / batch)
            search.tell(Outcome(row, None if row % 7 == 0 else float(np.exp(random.normal()))) for row in chosen)
        each = (time.process_time() - started) / 128
        click.echo(
            f"{len(table)} configs, {batch} at a time: {each * 1e3:.1f} ms a proposal over 128, at worst "
            f"{worst * 1e3:.1f} ms, and {made:.2f} s once"
        )


if __name__ == "__main__":
    main()
