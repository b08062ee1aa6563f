"""``shark-tune prior``: results of recorded landscapes, for searches on other shapes to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.landscapes.replay import evaluations_text
from pytest_shark_tune.commands.options import Command
from pytest_shark_tune.commands.output import check_output_path, print_table, report, writing
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.results.prior_training import train_prior, write_prior
from pytest_shark_tune.results.replay import read_landscape
from pytest_shark_tune.search import Prior
from pytest_shark_tune.system.machine import processors

__all__ = ["prior"]

_HEADINGS = ("left out", "configs", "with the others", "without")


@click.group(short_help="Make a prior of recorded measurements.")
def prior() -> None:
    """Make priors, which `pytest --tune --tune-prior FILE` and `shark-tune replay --tune-prior FILE` begin with."""


@prior.command(cls=Command)
@click.argument("landscapes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "output", required=True, type=click.Path(path_type=Path), help="The file of the prior.")
@click.option(
    "--seeds",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Searches for each landscape in the test; 0 for no test.",
)
def train(landscapes: tuple[Path, ...], output: Path, seeds: int) -> None:
    """Make a prior of LANDSCAPES, the .json files that `--tune-record-landscape` writes, and test it.

    They are of devices of one class and of one release of IREE. In the test a prior of all other shapes guides the
    search on each landscape. The table gives the evaluations to within 5% of the best recorded time, as the median over
    seeds, with and without the prior.
    """
    check_output_path(output)
    read = [read_landscape(path) for path in landscapes]
    try:
        made = train_prior(read, seeds=seeds, jobs=processors())
    except InputError as error:  # About how the landscapes go together.
        raise InputError(f"{', '.join(map(str, landscapes))}: {error}") from error
    with writing(output):
        write_prior(made, output)
    report(f"{output}: {len(made.shapes)} shapes on {made.device_class}, IREE {made.iree}")
    _print_test(made)


def _print_test(made: Prior) -> None:
    text = evaluations_text
    if made.test:
        rows = (
            (left.dispatch, str(left.configs), text(left.evals_to_5pct_median), text(left.without))
            for left in made.test
        )
        print_table(_HEADINGS, rows, numbers=_HEADINGS[1:])
