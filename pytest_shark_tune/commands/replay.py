"""``shark-tune replay``: a search, run on recorded measurements."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command, json_option
from pytest_shark_tune.commands.output import print_json
from pytest_shark_tune.results.replay import BATCH, Replay, read_landscape, summarised
from pytest_shark_tune.results.replay import replay as replay_seeds
from pytest_shark_tune.search import STRATEGIES
from pytest_shark_tune.system.machine import processors

__all__ = ["replay"]

_MOST_SEEDS = 100_000
_MOST_CONFIGS = 1_000_000_000


@click.command(cls=Command)
@click.argument("landscape", type=click.Path(path_type=Path))
@click.option("--search", "strategy", type=click.Choice(STRATEGIES), default=STRATEGIES[0], show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1, _MOST_SEEDS), default=50, show_default=True, help="Searches, seeded from 0 on."
)
@click.option(
    "--budget", type=click.IntRange(1, _MOST_CONFIGS), help="Most evaluations of a search (default: until it succeeds)."
)
@click.option(
    "--batch",
    type=click.IntRange(1, _MOST_CONFIGS),
    default=BATCH,
    show_default=True,
    help="Configs asked for at once.",
)
@json_option
def replay(landscape: Path, strategy: str, seeds: int, budget: int | None, batch: int, as_json: bool) -> None:
    """Run a search on the recorded measurements of LANDSCAPE, a .json file, without a device.

    Every config that the search proposes is an evaluation, whether or not it could be measured. The report gives the
    evaluations that the search needs to come within 5% and 1% of the best recorded time, as the median and the 90th
    percentile over the seeds. It also gives the best recorded time divided by the best time so far, as the median.
    """
    recorded = read_landscape(landscape)
    found = summarised(replay_seeds(recorded, strategy, seeds, budget=budget, batch=batch, jobs=processors()))
    if as_json:
        print_json(found)
    else:
        _print_replay(found, f"{recorded.dispatch}: {strategy}, {seeds} seeds")


def _print_replay(found: Replay, title: str) -> None:
    def text(count: float | None) -> str:
        return "not reached" if count is None else f"{count:g}"

    click.echo(title)
    click.echo(
        f"evaluations to within 5% of the best: {text(found.evals_to_5pct_median)} (median), "
        f"{text(found.evals_to_5pct_p90)} (90th percentile); to within 1%: {text(found.evals_to_1pct_median)} (median)"
    )
    shares = ", ".join(f"{ratio:.3f} after {count}" for count, ratio in found.best_ratio_at.items())
    click.echo(f"best recorded time by the best so far (median): {shares}")
