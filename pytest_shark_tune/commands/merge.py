"""``shark-tune merge``: several specs made into one."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.output import check_spec_output, print_json, writing
from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.merge import MergeInput, merge
from pytest_shark_tune.records.snapshot import locked, read_records, read_spec_file, write_text

__all__ = ["merge_files"]


@click.command(name="merge")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The spec to write.")
@click.option(
    "--prefer", type=click.Choice(["faster"]), help="What wins instead of the spec that is named first: recorded speed."
)
@click.option("--starter", type=click.Path(path_type=Path), help="A spec whose entries stand behind all others.")
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def merge_files(specs: tuple[Path, ...], output: Path, prefer: str | None, starter: Path | None, as_json: bool) -> None:
    """Make one spec of several.

    An op takes the config of the first entry that matches it: those of specs that are named earlier, or with --prefer
    faster those with the higher recorded speedup. Entries that may match the same ops are listed, with what was done
    about them: one that another one in front covers is dropped. The records of the entries go beside the new spec.
    """
    try:
        check_spec_output(output)
        # The output may be one of the specs, which a run that tunes may be about to write.
        with writing(output), locked(output):
            inputs = [_read(path, is_starter=False) for path in specs]
            if starter is not None:
                inputs.append(_read(starter, is_starter=True))
            merged = merge(inputs, prefer_faster=prefer == "faster")
            write_text(output, merged.text, merged.records)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    for warning in merged.warnings:
        click.echo(warning, err=True)
    if as_json:
        shown = {"entries": merged.entries, "findings": merged.findings, "warnings": merged.warnings}
        print_json(shown)
        return
    for finding in merged.findings:
        click.echo(str(finding))
    dropped = sum(finding.outcome == "dropped" for finding in merged.findings)
    click.echo(f"{output}: {merged.entries} {'entry' if merged.entries == 1 else 'entries'}, {dropped} dropped")


def _read(path: Path, *, is_starter: bool) -> MergeInput:
    text = read_spec_file(path)
    tell_dropped(path, text)
    return MergeInput(name=str(path), text=text, records=read_records(path), is_starter=is_starter)
