"""``shark-tune merge``: several specs made into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pytest_shark_tune.commands.generalize import describe_families, generalized
from pytest_shark_tune.commands.inputs import read_whole_spec
from pytest_shark_tune.commands.options import (
    Command,
    cache_option,
    device_option,
    flags_option,
    json_option,
    starter_option,
    trust_option,
)
from pytest_shark_tune.commands.output import check_spec_output, print_json, writing
from pytest_shark_tune.records.merge import MergeInput, merge
from pytest_shark_tune.records.snapshot import locked, read_records, write_text

__all__ = ["merge_files"]


@click.command(name="merge", cls=Command, short_help="Make one spec of several.")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The spec to write.")
@click.option(
    "--prefer", type=click.Choice(["faster"]), help="Prefer the entry of the higher recorded speedup to the first one."
)
@starter_option
@click.option(
    "--generalize",
    is_flag=True,
    help="Measure which entries that differ in one size can become one for a range of sizes. It takes a device.",
)
@click.option("--dry-run", is_flag=True, help="With --generalize: print what would be measured, and write nothing.")
@device_option
@cache_option
@flags_option
@trust_option
@json_option
def merge_files(
    specs: tuple[Path, ...],
    output: Path,
    prefer: str | None,
    starter: Path | None,
    generalize: bool,
    dry_run: bool,
    devices: tuple[str, ...],
    cache_directory: Path | None,
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make one spec of several.

    An op takes the config of the first entry that matches it. The entries of an earlier SPEC come first, or with
    --prefer faster those of the higher recorded speedup. Entries that may match the same ops are listed with the
    decision about them: an entry is dropped if one before it matches all of its ops. The records of the entries go
    beside the new spec.

    With --generalize entries of a contraction that differ in one size become the fewest entries for ranges of sizes
    with which no size is slower than with the best known config by 3% or more. Their configs are measured at all of
    the sizes, and each new entry is tried at sizes between.
    """
    if dry_run and not generalize:
        raise click.UsageError("--dry-run has an effect only with --generalize")
    if not dry_run:
        check_spec_output(output)
    # The output may be one of the specs, and a run that tunes may be about to write it.
    if dry_run:
        inputs = [_read_input(path, is_starter=False) for path in specs]
        for line in describe_families(merge(inputs, prefer_faster=prefer == "faster").records):
            click.echo(line)
        return
    notes: Sequence[str] = ()
    with writing(output), locked(output):
        inputs = [_read_input(path, is_starter=False) for path in specs]
        if starter is not None:
            inputs.append(_read_input(starter, is_starter=True))
        merged = merge(inputs, prefer_faster=prefer == "faster")
        if generalize:
            merged, notes = generalized(merged, str(output), devices, cache_directory, flags)
        write_text(output, merged.text, merged.records)
    for note in notes:
        click.echo(note, err=as_json)
    for warning in merged.warnings:
        click.echo(warning, err=True)
    if as_json:
        print_json({"entries": merged.entries, "findings": merged.conflicts, "warnings": merged.warnings})
        return
    for conflict in merged.conflicts:
        click.echo(str(conflict))
    dropped = sum(conflict.outcome == "dropped" for conflict in merged.conflicts)
    click.echo(f"{output}: {merged.entries} {'entry' if merged.entries == 1 else 'entries'}, {dropped} dropped")


def _read_input(path: Path, *, is_starter: bool) -> MergeInput:
    text = read_whole_spec(path)
    return MergeInput(name=str(path), text=text, records=read_records(path), is_starter=is_starter)
