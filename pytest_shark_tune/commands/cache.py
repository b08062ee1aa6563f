"""``shark-tune cache``: the cache between runs."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest

from pytest_shark_tune.commands.options import Command, cache_option
from pytest_shark_tune.plugin.option_table import CACHE_SIZE
from pytest_shark_tune.plugin.options import default_cache
from pytest_shark_tune.plugin.parse import parse_size
from pytest_shark_tune.system.cache import KINDS, Cache, Kind

__all__ = ["cache"]


@click.command(cls=Command, short_help="Show or clear the cache between runs.")
@click.argument("kinds", metavar="[KIND]...", nargs=-1, type=click.Choice(KINDS))
@click.option("--clear", is_flag=True, help="Remove the entries of these kinds, or of all kinds.")
@cache_option
@click.option("--tune-cache-size", default=CACHE_SIZE, metavar="SIZE", show_default=True, help="As pytest's option.")
def cache(kinds: tuple[Kind, ...], clear: bool, cache_directory: Path | None, tune_cache_size: str) -> None:
    """Show the cache that pytest --tune keeps between runs, or clear it.

    A KIND is plans, artifacts (compiled candidates), models (compiled whole models), records, finals, checks (of
    specs and compilers), profiles (where the time of models goes), forms (of models), limits (of devices),
    yardsticks or releases (other releases of IREE). The size limit applies after every run: the entries that have not
    been used for longest are removed, but none that was used in the last hour, and no release that a process uses.
    """
    try:
        limit = parse_size("--tune-cache-size", tune_cache_size)
    except pytest.UsageError as error:
        raise click.UsageError(str(error)) from error
    kept = Cache(cache_directory or default_cache())
    if clear:
        removed = kept.clear(kinds or KINDS)
        click.echo(f"{kept.directory}: {removed.number} removed, {_bytes_text(removed.bytes)}")
        if removed.busy:
            click.echo(f"{removed.busy} stay: they are in use, or another user owns them", err=True)
            raise SystemExit(1)
        return
    usage = kept.usage()
    click.echo(kept.directory)
    click.echo(f"{'kind':<12}{'number':>9}{'size':>9}  {'oldest use':<18}newest use")
    for row in usage:
        if not kinds or row.kind in kinds:
            oldest, newest = _time_text(row.oldest_s), _time_text(row.newest_s)
            click.echo(f"{row.kind:<12}{row.number:>9}{_bytes_text(row.bytes):>9}  {oldest:<18}{newest}")
    number, size = sum(row.number for row in usage), sum(row.bytes for row in usage)
    click.echo(f"{'all kinds':<12}{number:>9}{_bytes_text(size):>9}  of {_bytes_text(limit)} at most after a run")


def _bytes_text(size: int) -> str:
    """A size in powers of 1024, as ``--tune-cache-size`` takes them."""
    exponent = min(max(size.bit_length() - 1, 0) // 10, 3)
    shown = size / (1 << 10 * exponent)
    return f"{shown:.{1 if exponent and shown < 10 else 0}f}{'BKMG'[exponent]}"


def _time_text(time_s: float | None) -> str:
    return "-" if time_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
