"""Print the search strategies side by side on recorded and on made-up landscapes: ``python benchmarks/search.py``.

Optuna's TPE is no dependency: ``python -m pip install "optuna>=4"`` adds it to the comparison.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from pytest_shark_tune.replay import Landscape, LandscapeCandidate, Replay, read_landscape, replay_once, summarised
from pytest_shark_tune.stages.record import Record, State
from pytest_shark_tune.stages.search import (
    ConfigTable,
    ModelSearch,
    Outcome,
    PriorResult,
    ProblemFacts,
    Search,
    UniformSearch,
)
from pytest_shark_tune.stages.search.facts import gpu_processors

HERE = Path(__file__).parent
FOLDERS = (HERE / "landscapes", HERE / "results" / "landscapes")
RECORDS = HERE / "results"
_RUN = "run of "

Maker = Callable[[ConfigTable, int], Search]


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


@click.command()
@click.option("--seeds", default=50, show_default=True, help="Searches by each strategy on each landscape.")
@click.option("--made-up", "made_up", default=0, show_default=True, help="Also so many made-up landscapes of each op.")
@click.option("--most", default=1500, show_default=True, help="Most configs of a made-up landscape.")
@click.option("--time-configs", default=30_000, show_default=True, help="Time the search at this many configs; 0: not.")
def main(seeds: int, made_up: int, most: int, time_configs: int) -> None:
    """Print, for each landscape and strategy, evaluations to within 5% and 1%, and the best so far."""
    landscapes = {path.stem: read_landscape(path) for folder in FOLDERS for path in sorted(folder.glob("*.json"))}
    landscapes |= {f"{_RUN}{path.parent.name}": from_records(path) for path in sorted(RECORDS.glob("*/records.jsonl"))}
    has_tpe = importlib.util.find_spec("optuna") is not None
    if not has_tpe:
        click.echo('without TPE: python -m pip install "optuna>=4" adds it')
    for name, landscape in landscapes.items():
        _compare(name, landscape, seeds, with_tpe=has_tpe)
    _warm_start(landscapes, seeds)
    if made_up:
        from synthetic import CASES, synthetic_landscape

        for target, device, op in CASES:
            for seed in range(made_up):
                landscape = synthetic_landscape(target, device, op, seed, most)
                _compare(f"{target} {landscape.dispatch}", landscape, max(1, seeds // 5), with_tpe=False)
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
                samples_us=() if each.ratio is None else (1 / each.ratio,),
            )
            for each in records
        ),
    )


def _compare(name: str, landscape: Landscape, seeds: int, *, with_tpe: bool) -> None:
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


def _run(landscape: Landscape, make: Maker, seeds: int) -> tuple[Replay, float]:
    started = time.process_time()
    found = [replay_once(landscape, lambda table, seed=seed: make(table, seed)) for seed in range(seeds)]  # type: ignore[misc]
    return summarised(found), (time.process_time() - started) / seeds


def _told(strategy: str, found: Replay, seconds: float) -> None:
    counts = "/".join(
        "-" if count is None else f"{count:g}" for count in (found.evals_to_5pct_median, found.evals_to_5pct_p90)
    )
    best = ", ".join(f"{ratio:.3f} at {count}" for count, ratio in found.best_ratio_at.items())
    one = "-" if found.evals_to_1pct_median is None else f"{found.evals_to_1pct_median:g}"
    click.echo(f"  {strategy:16} to 5%: {counts:12} to 1%: {one:6} best {best} ({seconds:.2f} s a seed)")


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
