"""``shark-tune report``: the results of runs as one page of HTML, or as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command
from pytest_shark_tune.commands.output import check_output_path
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.results.merge_runs import read_run
from pytest_shark_tune.system import journal

__all__ = ["report_runs"]


@click.command(name="report", cls=Command, short_help="Write the results of runs as a page of HTML, or as Markdown.")
@click.argument("runs", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write; .md for Markdown.",
)
def report_runs(runs: tuple[Path, ...], output: Path) -> None:
    """Write the results of the runs of pytest --tune in DIR... as one page of HTML.

    DIR is the --tune-out of a run. The page has tables and figures, needs no network and loads no other file. With
    several runs it also compares them.

    With -o FILE.md, one run becomes a few sentences and a table. Two runs, BASE and HEAD, become a comparison of at
    most 15 lines, for a comment on a pull request: one line if nothing changed. Runs that guarded are compared by
    their files of --junitxml, which end in .xml.
    """
    check_output_path(output)
    text = _markdown(runs) if output.suffix == ".md" else _page(runs)
    try:
        journal.replace_file(output, text.encode())
    except OSError as error:
        raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    click.echo(f"report: {output}")


def _page(runs: Sequence[Path]) -> str:
    from pytest_shark_tune.report.html.page import tuning_page

    if guarded := next(filter(_is_guarded, runs), None):
        raise InputError(f"{guarded} is of a run that guarded: compare two of these with -o FILE.md")
    return tuning_page([read_run(directory) for directory in dict.fromkeys(runs)])


def _markdown(runs: Sequence[Path]) -> str:
    from pytest_shark_tune.report.compare.comparison_markdown import comparison_markdown
    from pytest_shark_tune.report.compare.guarded import compare_guarded, read_guarded
    from pytest_shark_tune.report.compare.tuned import compare_tuned
    from pytest_shark_tune.report.summary_markdown import summary_markdown

    guarded = sum(map(_is_guarded, runs))
    if len(runs) > 2:
        raise InputError(f"Markdown is of one run, or compares two: {len(runs)} are too many")
    if guarded not in (0, 2):
        raise InputError("name two files of --junitxml, those of base and head, or directories only")
    if len(runs) == 1:
        return summary_markdown(read_run(runs[0]).summary)
    base, head = runs
    if guarded:
        return comparison_markdown(compare_guarded(read_guarded(base), read_guarded(head)))
    return comparison_markdown(compare_tuned(read_run(base), read_run(head)))


def _is_guarded(run: Path) -> bool:
    return run.suffix == ".xml"
