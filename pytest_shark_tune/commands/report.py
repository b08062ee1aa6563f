"""``shark-tune report``: the results of runs as one page of HTML."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command
from pytest_shark_tune.commands.output import check_output_path
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.results.merge_runs import read_run
from pytest_shark_tune.system import journal

__all__ = ["report_runs"]


@click.command(name="report", cls=Command, short_help="Write the results of runs as one page of HTML.")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write.",
)
def report_runs(directories: tuple[Path, ...], output: Path) -> None:
    """Write the results of the runs of pytest --tune in DIR... as one page of HTML.

    DIR is the --tune-out of a run. The page has tables and figures, needs no network and loads no other file. With
    several runs it also compares them.
    """
    from pytest_shark_tune.report.html.page import tuning_page

    check_output_path(output)
    page = tuning_page([read_run(directory) for directory in dict.fromkeys(directories)])
    try:
        journal.replace_file(output, page.encode())
    except OSError as error:
        raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    click.echo(f"report: {output}")
