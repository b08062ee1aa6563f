"""``shark-tune diff``: what differs between two specs, in words."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.output import print_json
from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.diff import diff, read_side, words
from pytest_shark_tune.records.snapshot import read_text

__all__ = ["diff_specs"]


@click.command(name="diff")
@click.argument("old", metavar="A", type=click.Path(path_type=Path))
@click.argument("new", metavar="B", type=click.Path(path_type=Path))
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff_specs(old: Path, new: Path, as_json: bool) -> None:
    """Say what differs from spec A to spec B, entry by entry.

    Entries are the same that ask the same of an op, whatever they are called; knobs and times come from the records
    beside the specs. The exit status is 1 if the specs differ.
    """
    try:
        sides = read_side(old), read_side(new)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    for side in sides:
        if side.problem:
            click.echo(f"{side.name}: known from its records alone, since {side.problem}", err=True)
        else:
            tell_dropped(side.name, read_text(Path(side.name)))
    changes = diff(*sides)
    if as_json:
        print_json(changes)
    else:
        for change in changes:
            click.echo(words(change))
    if changes:
        raise SystemExit(1)
