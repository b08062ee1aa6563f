"""Where a command writes: the file that ``-o`` names, looked at before anything is done, and the terminal.

On its way to the terminal all text is escaped (see `cli`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.snapshot import records_path
from pytest_shark_tune.system.terminal import escaped, escaped_json

__all__ = ["check_output", "check_spec_output", "print_json", "print_table", "tell", "writing"]


def check_output(output: Path) -> None:
    """Refuse what no file can be written as.

    Raises:
        InputError: it is a folder, or in none that is there and can be written to.
    """
    folder = output.absolute().parent
    try:
        if output.is_dir():
            raise InputError(f"-o {output}: this is a folder, name a file in it")
        if not folder.is_dir():
            raise InputError(f"-o {output}: there is no folder {output.parent}")
    except OSError as error:  # A name too long, for one.
        raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"-o {output}: the folder {folder} cannot be written to")


def check_spec_output(output: Path) -> None:
    """Refuse what no spec, with its records beside it, can be written as.

    Raises:
        InputError: as `check_output`, or its records would take its place.
    """
    check_output(output)
    if records_path(output) == output:
        raise InputError(f"-o {output}: the records of a spec go there, name the spec {output.with_suffix('.mlir')}")


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Within it a spec, and its records beside it, are written.

    Raises:
        InputError: one of the two cannot be, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        if Path(str(error.filename)).name not in (output.name, records_path(output).name):  # A draft is called so, too.
            raise
        raise InputError(f"-o {output}: {error.filename} cannot be written: {error.strerror}") from error


def tell(message: str) -> None:
    """Say what a command is doing, where its output is not mixed with it."""
    click.echo(message, err=True)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(escaped_json(msgspec.json.format(msgspec.json.encode(value)).decode()))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table as wide as the terminal; columns whose heading is among ``numbers`` are aligned to the right."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in numbers else "left")
    for row in rows:
        # As `Text` it is no markup, and escaped here its width is the one that the table gives room to.
        table.add_row(*(Text(escaped(cell)) for cell in row))
    Console(color_system=None, force_terminal=False, highlight=False).print(table)
