"""Where a command writes: the file that ``-o`` names, looked at before anything is done, and the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.snapshot import records_path

__all__ = ["check_output", "check_spec_output", "tell"]


def check_output(output: Path) -> None:
    """Refuse what no file can be written as.

    Raises:
        InputError: it is a folder, or in none that is there.
    """
    if output.is_dir():
        raise InputError(f"-o {output}: this is a folder, name a file in it")
    if not output.absolute().parent.is_dir():
        raise InputError(f"-o {output}: there is no folder {output.parent}")


def check_spec_output(output: Path) -> None:
    """Refuse what no spec, with its records beside it, can be written as.

    Raises:
        InputError: as `check_output`, or its records would take its place.
    """
    check_output(output)
    if records_path(output) == output:
        raise InputError(f"-o {output}: the records of a spec go there, name the spec {output.with_suffix('.mlir')}")


def tell(message: str) -> None:
    """Say what a command is doing, where its output is not mixed with it."""
    click.echo(message, err=True)
