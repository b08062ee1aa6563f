"""``shark-tune show``: the entries of a spec as a table."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.output import print_json, print_table
from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.diff import SideEntry, read_side
from pytest_shark_tune.records.snapshot import read_text

__all__ = ["show"]

_HEADINGS = ("entry", "op", "pipeline", "config", "speedup", "IREE", "device")


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(spec: Path, as_json: bool) -> None:
    """Show the entries of SPEC in the order in which they are tried.

    Speedups come from the records beside the spec, configs as knobs too; without records a config is its attribute.
    """
    try:
        side = read_side(spec)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    if not side.problem:
        tell_dropped(spec, read_text(spec))
    else:
        click.echo(f"{spec}: shown from its records, since {side.problem}", err=True)
    if as_json:
        print_json([_plain(each) for each in side.entries])
        return
    print_table(_HEADINGS, ([cell or "-" for cell in _row(entry)] for entry in side.entries))


def _row(entry: SideEntry) -> tuple[str, ...]:
    return (
        entry.row.matcher,
        entry.op,
        entry.row.pipeline,
        entry.config,
        _speedup(entry),
        entry.iree,
        entry.device,
    )


def _speedup(entry: SideEntry) -> str:
    """The recorded ratio with its interval, else the ratio that stands in the spec itself."""
    record = entry.record
    if record is None or record.ratio is None:
        return str(entry.row.provenance.get("speedup", ""))
    interval = f" ({record.ratio_low:.3f} to {record.ratio_high:.3f})" if record.ratio_low and record.ratio_high else ""
    return f"{record.ratio:.3f}{interval}"


def _plain(entry: SideEntry) -> dict[str, object]:
    record = entry.record
    return {
        "matcher": entry.row.matcher,
        "dispatch": entry.name,
        "op": entry.op,
        "pipeline": entry.row.pipeline,
        "config": entry.row.config,
        "knobs": record.knobs if record else {},
        "time_us": entry.time_us,
        "speedup": record.ratio if record else None,
        "speedup_low": record.ratio_low if record else None,
        "speedup_high": record.ratio_high if record else None,
        "iree": entry.iree,
        "device": entry.device,
    }
