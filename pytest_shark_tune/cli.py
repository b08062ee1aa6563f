"""The command line ``shark-tune``: what is no test."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from pytest_shark_tune import __version__
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan import extract, read_source, search_spaces
from pytest_shark_tune.stages.space import NoSpace
from pytest_shark_tune.tools.compiler import Compiler, Target
from pytest_shark_tune.tools.machine import processors

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shark-tune")
def main() -> None:
    """Look at what pytest --tune works with."""


@main.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def space(source: Path, tune_target: str, as_json: bool) -> None:
    """Print the search spaces of the dispatches of INPUT, a .mlir, .mlirbc or .onnx file."""
    try:
        compiler = Compiler(Target.parse(tune_target))
        extracted = extract([read_source(source, Path())], compiler, processors())
    except InputError as error:
        raise click.UsageError(str(error)) from error
    rows = []
    reasons = [(each.name, each.reason) for each in extracted.untunable]
    for dispatch in extracted.dispatches:
        started = time.perf_counter()
        try:
            spaces = search_spaces(dispatch, compiler)
        except NoSpace as reason:
            reasons.append((dispatch.name, str(reason)))
            continue
        for each in spaces:
            size = len(each)
            seconds = time.perf_counter() - started
            rows.append(
                {
                    "dispatch": dispatch.name,
                    "pipeline": each.pipeline,
                    "configs": size,
                    "seconds": round(seconds, 4),
                    "knobs": {knob.name: list(knob.domain) for knob in each.knobs},
                    "kind": dispatch.root.kind,
                    "loops": list(dispatch.root.loops),
                }
            )
            started = time.perf_counter()
    for name, why in reasons:
        click.echo(f"{name}: {why}", err=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    table = Table()
    for heading in ("dispatch", "kind", "pipeline", "configs", "seconds", "knobs"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        knobs = row["knobs"]
        assert isinstance(knobs, dict)
        shown = ", ".join(f"{name} ({len(domain)})" for name, domain in knobs.items())
        table.add_row(*(str(row[name]) for name in ("dispatch", "kind", "pipeline", "configs", "seconds")), shown)
    Console().print(table)
