"""``shark-tune cache``: what is kept between runs."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import CACHE_SIZE, default_cache
from pytest_shark_tune.plugin.parse import parse_size
from pytest_shark_tune.system.cache import KINDS, Cache, Kind

__all__ = ["cache"]


@click.command()
@click.argument("kinds", metavar="[KIND]...", nargs=-1, type=click.Choice(KINDS))
@click.option("--clear", is_flag=True, help="Remove what is kept, of these kinds or of all.")
@click.option(
    "--tune-cache",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="As pytest's option of that name (default: your cache folder).",
)
@click.option(
    "--tune-cache-size", default=CACHE_SIZE, metavar="SIZE", show_default=True, help="As pytest's option of that name."
)
def cache(kinds: tuple[Kind, ...], clear: bool, folder: Path | None, tune_cache_size: str) -> None:
    """Show what is kept between runs, or remove it.

    A KIND is plans, artifacts (compiled candidates), models (whole ones, compiled), records, finals, checks (of specs),
    profiles (where the time of models goes), limits (of devices) or yardsticks. The limit holds after each run: what
    was not used for longest is removed, but nothing that was used within an hour.
    """
    try:
        limit = parse_size("--tune-cache-size", tune_cache_size)
        kept = Cache(folder or default_cache())
    except (pytest.UsageError, InputError) as error:
        raise click.UsageError(str(error)) from error
    if clear:
        removed = kept.clear(kinds or KINDS)
        click.echo(f"{kept.folder}: {removed.number} removed, {_bytes_text(removed.bytes)}")
        if removed.busy:
            click.echo(f"{removed.busy} stay: they are being made, or are another user's", err=True)
            raise SystemExit(1)
        return
    usage = kept.usage()
    click.echo(kept.folder)
    click.echo(f"{'kind':<12}{'number':>9}{'size':>9}  {'oldest use':<18}newest use")
    for each in usage:
        if not kinds or each.kind in kinds:
            oldest, newest = _time_text(each.oldest_s), _time_text(each.newest_s)
            click.echo(f"{each.kind:<12}{each.number:>9}{_bytes_text(each.bytes):>9}  {oldest:<18}{newest}")
    number, size = sum(each.number for each in usage), sum(each.bytes for each in usage)
    click.echo(f"{'all kinds':<12}{number:>9}{_bytes_text(size):>9}  of {_bytes_text(limit)} at most after a run")


def _bytes_text(size: int) -> str:
    """A size in powers of 1024, as ``--tune-cache-size`` takes them."""
    exponent = min(max(size.bit_length() - 1, 0) // 10, 3)
    shown = size / (1 << 10 * exponent)
    return f"{shown:.{1 if exponent and shown < 10 else 0}f}{'BKMG'[exponent]}"


def _time_text(time_s: float | None) -> str:
    return "-" if time_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
