"""``shark-tune space``: the search spaces of a model's dispatches."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pytest_shark_tune.commands.inputs import read_model
from pytest_shark_tune.commands.options import Command, dim_option, json_option, shape_option, target_option
from pytest_shark_tune.commands.output import print_json, print_table
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.spaces import emitted_constraints, spaces_from
from pytest_shark_tune.search_space import NoSpace, SearchSpace, SpaceTooLarge
from pytest_shark_tune.system.machine import processors

__all__ = ["space"]

_COLUMNS = ("dispatch", "kind", "pipeline", "configs", "seconds")


@click.command(cls=Command)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@target_option
@shape_option
@dim_option
@json_option
def space(source: Path, tune_target: str, shapes: tuple[str, ...], dims: tuple[str, ...], as_json: bool) -> None:
    """Print the search spaces of the dispatches of INPUT, a .mlir, .mlirbc or .onnx file."""
    compiler = Compiler(Target.parse(tune_target))
    extracted = extract_dispatches([read_model(source, shapes, dims)], compiler, processors())
    rows = []
    reasons = [(left.name, left.reason) for left in extracted.untunable]
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
        for found in spaces:
            started_listing = time.perf_counter()
            size = _size(found)
            seconds = shared + time.perf_counter() - started_listing
            rows.append(
                {
                    "dispatch": dispatch.name,
                    "pipeline": found.pipeline,
                    "configs": size,
                    "seconds": round(seconds, 4),
                    "knobs": {knob.name: list(knob.domain) for knob in found.knobs},
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
    print_table(
        (*_COLUMNS, "knobs"), ([*(str(row[name]) for name in _COLUMNS), _knobs_text(row["knobs"])] for row in rows)
    )


def _knobs_text(domains: object) -> str:
    assert isinstance(domains, dict)
    return ", ".join(f"{name} ({len(domain)})" for name, domain in domains.items())


def _size(space: SearchSpace) -> int | None:
    """The number of a space's configs, or `None` if there are too many to list."""
    try:
        return len(space)
    except SpaceTooLarge:
        return None
