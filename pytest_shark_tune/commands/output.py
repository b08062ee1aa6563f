"""The outputs of a command: the file of ``-o``, which is checked before any work, and the terminal.

`cli` escapes all text on its way to the terminal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.snapshot import records_path
from pytest_shark_tune.report.tables import INDENT, wrapped
from pytest_shark_tune.system.journal import check_replaceable
from pytest_shark_tune.system.terminal import escaped, escaped_json

__all__ = [
    "check_output_path",
    "check_spec_output",
    "print_json",
    "print_table",
    "print_wrapped",
    "report",
    "terminal_width",
    "writing",
]

_ANY_WIDTH = 10_000
_NARROWEST = 80


def check_output_path(output: Path, *, replaces: bool = True) -> None:
    """Check that a file can be written to ``output``.

    Args:
        output: The path.
        replaces: Whether the file is put in the place of an older one. The compiler writes into it instead.

    Raises:
        InputError: it is a directory, a pipe or a device, or its directory is absent or cannot be written to.
    """
    directory = output.absolute().parent
    try:
        if output.is_dir():
            raise InputError(f"-o {output}: this is a directory, name a file in it")
        if not directory.is_dir():
            raise InputError(f"-o {output}: there is no directory {output.parent}")
        if replaces:
            check_replaceable(output)
    except OSError as error:  # For example a name that is too long.
        raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"-o {output}: the directory {directory} cannot be written to")


def check_spec_output(output: Path) -> None:
    """Check that a spec, with its records beside it, can be written to ``output``.

    Raises:
        InputError: as `check_output`, or the path is that of the spec's own records.
    """
    check_output_path(output)
    if records_path(output) == output:
        raise InputError(
            f"-o {output}: a spec's records are written there, name the spec {output.with_suffix('.mlir')}"
        )


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Report an error of writing a spec, or its records, in the body of the ``with`` statement.

    Raises:
        InputError: one of the two cannot be written, for example on a full disk.
    """
    try:
        yield
    except OSError as error:
        if Path(str(error.filename)).name not in (output.name, records_path(output).name):  # A draft has one, too.
            raise
        raise InputError(f"-o {output}: {error.filename} cannot be written: {error.strerror}") from error


def report(message: str) -> None:
    """Print a message about the work of a command to stderr, apart from its output."""
    click.echo(message, err=True)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(escaped_json(msgspec.json.format(msgspec.json.encode(value)).decode()))


def terminal_width() -> int:
    """Return the columns to fit lines into: at least 80, since a narrower terminal breaks lines itself."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def print_wrapped(sentence: str, *, to_stderr: bool = False) -> None:
    """Print a sentence in lines as wide as the terminal."""
    click.echo("\n".join(wrapped(sentence, terminal_width())), err=to_stderr)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table as wide as the terminal.

    The columns with a heading in ``numbers`` are aligned to the right and never folded. A wider table without any is
    printed as a paragraph for each row.
    """
    rows = list(rows)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        is_number = heading in numbers
        table.add_column(heading, overflow="fold", justify="right" if is_number else "left", no_wrap=is_number)
    for row in rows:
        # A `Text` is not parsed as markup. It is escaped here, so that the table knows its width.
        table.add_row(*(Text(escaped(cell)) for cell in row))
    console = Console(color_system=None, force_terminal=False, highlight=False)
    width = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).maximum
    if width <= console.width or numbers:
        console.print(table)
        return
    for row in rows:
        click.echo("\n".join(_paragraph(headings, row, console.width)))


def _paragraph(headings: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    """A row as lines: its first cell, and the others with their headings."""
    yield from wrapped(escaped(row[0]), width)
    for heading, cell in zip(headings[1:], row[1:], strict=True):
        if cell not in ("", "-"):
            yield from wrapped(f"{heading}: {escaped(cell)}" if heading else escaped(cell), width, indent=INDENT)
