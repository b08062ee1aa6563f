"""Where a command writes: the file that ``-o`` names, looked at before anything is done, and the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.snapshot import records_path

__all__ = ["check_output", "check_spec_output", "tell", "writing"]


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
