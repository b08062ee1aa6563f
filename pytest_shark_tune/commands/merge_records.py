"""``shark-tune merge-records``: the measurements of several machines, joined into one result with a spec."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from pytest_shark_tune.commands.bundle_spec import tasks_of_bundle, try_spec
from pytest_shark_tune.commands.inputs import read_whole_spec
from pytest_shark_tune.commands.options import Command, flags_option, starter_option, trust_option
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.draft import spec_of
from pytest_shark_tune.records.types import SpecRecord
from pytest_shark_tune.report.summary_text import render
from pytest_shark_tune.results.merge_runs import merge_runs, read_run, write_merged
from pytest_shark_tune.tuning.bundle import read_bundle

__all__ = ["merge_records"]


@click.command(name="merge-records", cls=Command, short_help="Join the runs of several machines.")
@click.argument("outs", metavar="OUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The directory to write to.")
@click.option("--bundle", type=click.Path(path_type=Path), help="The bundle that the runs measured.")
@trust_option
@starter_option
@flags_option
def merge_records(
    outs: tuple[Path, ...], output: Path, bundle: Path | None, starter: Path | None, flags: tuple[str, ...]
) -> None:
    """Join the output directories of several runs of pytest --tune, declare the winners and write the spec.

    The runs must be of one target and of devices of one model. If a candidate was tried twice, the record with more
    samples stays. An entry that a run left out of its own spec is left out here, too. With --bundle the spec must apply
    to exactly the dispatches that it was made for, else an entry is left out. Repeat the flags of the bundle.

    The exit status is 1 if an entry is left out, or if the default of a dispatch could not be measured.
    """
    merged = merge_runs([read_run(directory) for directory in outs])
    text = read_whole_spec(starter) if starter is not None else None
    draft, tasks = spec_of(merged.recorded, text or ""), {}
    checks: list[SpecRecord] = []
    if bundle is not None:
        packed = read_bundle(bundle)
        tasks = tasks_of_bundle(packed)
        if unknown := sorted(set(merged.finals) - tasks.keys()):
            raise InputError(f"--bundle {bundle} has no dispatch {unknown[0]}: the runs measured something else")
        draft, checks = try_spec(packed, draft, flags)
    try:
        output.mkdir(parents=True, exist_ok=True)
        summary = write_merged(output, merged, draft, tasks=tasks, checks=checks)
    except OSError as error:
        raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    for note in merged.notes:
        click.echo(note)
    width = max(shutil.get_terminal_size().columns, 80)
    click.echo(render(summary, width=width, spec=output / "spec.mlir", snapshots=()), nl=False)
    if bundle is None:
        click.echo("the spec was not tried on the sources of the runs: give their --bundle to have it tried")
    if merged.failed_defaults or summary.dropped:
        sys.exit(1)
