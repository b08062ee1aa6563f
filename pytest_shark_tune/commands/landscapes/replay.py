"""``shark-tune replay``: a search, run on recorded measurements."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command, json_option
from pytest_shark_tune.commands.output import print_json, report
from pytest_shark_tune.results.interchange import read_any_landscape
from pytest_shark_tune.results.prior_training import NO_PRIOR, load_prior
from pytest_shark_tune.results.replay import BATCH, Landscape, Replay, summarised
from pytest_shark_tune.results.replay import replay as replay_seeds
from pytest_shark_tune.search import STRATEGIES, Prior
from pytest_shark_tune.system.machine import processors

__all__ = ["evaluations_text", "replay"]

_MOST_SEEDS = 100_000
_MOST_CONFIGS = 1_000_000_000


@click.command(cls=Command, short_help="Run a search on recorded measurements.")
@click.argument("landscape", type=click.Path(path_type=Path))
@click.option("--strategy", type=click.Choice(STRATEGIES), default=STRATEGIES[0], show_default=True)
@click.option(
    "--search", "old_strategy", type=click.Choice(STRATEGIES), hidden=True, help="The old name of --strategy."
)
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
@click.option(
    "--tune-prior",
    "prior_name",
    metavar="FILE",
    default=NO_PRIOR,
    show_default=True,
    help="Results of other shapes that `model` begins with: a file, or `default` for those in this package.",
)
@json_option
def replay(
    landscape: Path,
    strategy: str,
    old_strategy: str | None,
    seeds: int,
    budget: int | None,
    batch: int,
    prior_name: str,
    as_json: bool,
) -> None:
    """Run a search on the recorded measurements of LANDSCAPE, a .json file, without a device.

    LANDSCAPE is a file of ours, T4 results, or a cache file of Kernel Tuner.

    Every config that the search proposes is an evaluation, whether or not it could be measured. The report gives the
    evaluations that the search needs to come within 5% and 1% of the best recorded time, as the median and the 90th
    percentile over the seeds. It also gives the best recorded time divided by the best time so far, as the median.
    """
    strategy = old_strategy or strategy
    recorded = read_any_landscape(landscape)
    prior = _fitting_prior(recorded, prior_name)
    results = replay_seeds(recorded, strategy, seeds, budget=budget, batch=batch, jobs=processors(), prior=prior)
    found = summarised(results)
    if as_json:
        print_json(found)
    else:
        _print_replay(found, f"{recorded.dispatch}: {strategy}, {seeds} seeds")


def _fitting_prior(recorded: Landscape, name: str) -> Prior | None:
    """Read a prior; one that does not fit the landscape is ignored with a line."""
    prior = load_prior(name, recorded.device_class)
    if prior is None:
        if name != NO_PRIOR:
            report(f"--tune-prior {name}: there is none for {recorded.device_class}")
        return None
    misfit = prior.misfit(recorded.device_class, recorded.iree)
    if not misfit and not prior.fitting_rows(recorded.table(), recorded.known_facts()).any():
        misfit = "it has no results of the landscape's pipelines"
    if misfit:
        report(f"--tune-prior {name}: ignored, since {misfit}")
    return None if misfit else prior


def evaluations_text(count: float | None) -> str:
    """Return a number of evaluations as text; ``None`` stands for searches that ended before."""
    return "not reached" if count is None else f"{count:g}"


def _print_replay(found: Replay, title: str) -> None:
    text = evaluations_text
    click.echo(title)
    click.echo(
        f"evaluations to within 5% of the best: {text(found.evals_to_5pct_median)} (median), "
        f"{text(found.evals_to_5pct_p90)} (90th percentile); to within 1%: {text(found.evals_to_1pct_median)} (median)"
    )
    shares = ", ".join(f"{ratio:.3f} after {count}" for count, ratio in found.best_ratio_at.items())
    click.echo(f"best recorded time by the best so far (median): {shares}")
