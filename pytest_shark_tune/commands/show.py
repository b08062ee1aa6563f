"""``shark-tune show``: the entries of a spec as a table."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.inputs import report_dropped
from pytest_shark_tune.commands.options import Command, json_option, trust_option
from pytest_shark_tune.commands.output import print_json, print_table
from pytest_shark_tune.records.diff import SpecEntryView, read_view
from pytest_shark_tune.records.snapshot import read_text

__all__ = ["show"]

_HEADINGS = ("entry", "op", "pipeline", "config", "speedup", "IREE", "device")


@click.command(cls=Command, short_help="Show the entries of a spec.")
@click.argument("spec", type=click.Path(path_type=Path))
@trust_option
@json_option
def show(spec: Path, as_json: bool) -> None:
    """Show the entries of SPEC in the order in which they are tried.

    Speedups and knobs come from the records beside the spec. Without records a config is shown as its attribute.
    """
    view = read_view(spec)
    if not view.problem:
        report_dropped(spec, read_text(spec))
    else:
        click.echo(f"{spec}: shown from its records, since {view.problem}", err=True)
    if as_json:
        print_json([_json_row(entry) for entry in view.entries])
        return
    rows = (
        (entry.row.matcher, entry.op, entry.row.pipeline, _config(entry), _speedup(entry), entry.iree, entry.device)
        for entry in view.entries
    )
    print_table(_HEADINGS, ([cell or "-" for cell in row] for row in rows))


def _config(entry: SpecEntryView) -> str:
    return f"{entry.config} (edited since it was measured)" if entry.is_edited else entry.config


def _speedup(entry: SpecEntryView) -> str:
    """The recorded ratio with its interval, or else the ratio in the spec itself; empty for another config."""
    record = entry.record
    if entry.is_edited:
        return ""
    if record is None or record.ratio is None:
        return str(entry.row.provenance.get("speedup", ""))
    interval = f" ({record.ratio_low:.3f} to {record.ratio_high:.3f})" if record.ratio_low and record.ratio_high else ""
    return f"{record.ratio:.3f}{interval}"


def _json_row(entry: SpecEntryView) -> dict[str, object]:
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
