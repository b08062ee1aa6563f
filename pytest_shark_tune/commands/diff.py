"""``shark-tune diff``: the differences between two specs."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.inputs import report_dropped
from pytest_shark_tune.commands.options import Command, json_option, trust_option
from pytest_shark_tune.commands.output import print_json, terminal_width
from pytest_shark_tune.records.diff import describe_change, diff, read_view
from pytest_shark_tune.records.snapshot import read_text
from pytest_shark_tune.report.tables import wrapped
from pytest_shark_tune.system.terminal import escaped

__all__ = ["diff_specs"]


@click.command(name="diff", cls=Command, short_help="List the differences between two specs.")
@click.argument("old", metavar="A", type=click.Path(path_type=Path))
@click.argument("new", metavar="B", type=click.Path(path_type=Path))
@trust_option
@json_option
def diff_specs(old: Path, new: Path, as_json: bool) -> None:
    """List the differences between spec A and spec B, entry by entry.

    Two entries are the same if they match the same ops; their names do not matter. Knobs and times come from the
    records beside the specs. The exit status is 1 if the specs differ.
    """
    views = read_view(old), read_view(new)
    for view in views:
        if view.problem:
            click.echo(f"{view.name}: read from its records alone, since {view.problem}", err=True)
        else:
            report_dropped(view.name, read_text(Path(view.name)))
    changes = diff(*views)
    if as_json:
        print_json(changes)
    else:
        for change in changes:
            for line in wrapped(escaped(describe_change(change)), terminal_width()):
                click.echo(line)
    if changes:
        raise SystemExit(1)
