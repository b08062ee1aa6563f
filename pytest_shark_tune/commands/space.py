"""``shark-tune space``: the search spaces of a model's dispatches."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pytest_shark_tune.commands.model_options import read_model, shape_option
from pytest_shark_tune.commands.output import print_json, print_table
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.spaces import emitted_constraints, spaces_from
from pytest_shark_tune.search_space import NoSpace, SearchSpace, SpaceTooLarge
from pytest_shark_tune.system.machine import processors

__all__ = ["space"]

_FIGURES = ("dispatch", "kind", "pipeline", "configs", "seconds")


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@shape_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def space(source: Path, tune_target: str, shapes: tuple[str, ...], as_json: bool) -> None:
    """Print the search spaces of the dispatches of INPUT, a .mlir, .mlirbc or .onnx file."""
    try:
        compiler = Compiler(Target.parse(tune_target))
        extracted = extract_dispatches([read_model(source, shapes)], compiler, processors())
    except InputError as error:
        raise click.UsageError(str(error)) from error
    rows = []
    reasons = [(each.name, each.reason) for each in extracted.untunable]
    for dispatch in extracted.dispatches:
        compiling = time.perf_counter()
        try:
            constraints = emitted_constraints(dispatch, compiler)
            started = time.perf_counter()
            spaces = spaces_from(dispatch, constraints)
        except (CommandFailed, NoSpace) as reason:
            reasons.append((dispatch.name, str(reason)))
            continue
        shared = (time.perf_counter() - started) / len(spaces)
        for each in spaces:
            started_listing = time.perf_counter()
            size = _size(each)
            seconds = shared + time.perf_counter() - started_listing
            rows.append(
                {
                    "dispatch": dispatch.name,
                    "pipeline": each.pipeline,
                    "configs": size,
                    "seconds": round(seconds, 4),
                    "knobs": {knob.name: list(knob.domain) for knob in each.knobs},
                    "kind": dispatch.root.kind,
                    "loops": list(dispatch.root.loops),
                    "compiler_seconds": round(started - compiling, 4),
                }
            )
    for name, why in reasons:
        click.echo(f"{name}: {why}", err=True)
    if as_json:
        print_json(rows)
        return
    print_table((*_FIGURES, "knobs"), ([*(str(row[name]) for name in _FIGURES), _knobs(row["knobs"])] for row in rows))


def _knobs(domains: object) -> str:
    assert isinstance(domains, dict)
    return ", ".join(f"{name} ({len(domain)})" for name, domain in domains.items())


def _size(space: SearchSpace) -> int | None:
    """The number of a space's configs, or None where there are too many to list."""
    try:
        return len(space)
    except SpaceTooLarge:
        return None
