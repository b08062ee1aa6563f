"""``shark-tune space``: the search spaces of a model's dispatches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from pytest_shark_tune.commands.inputs import read_model
from pytest_shark_tune.commands.knobs import explain_knob, explain_knobs
from pytest_shark_tune.commands.options import (
    Command,
    dim_option,
    flags_option,
    json_option,
    shape_option,
    target_option,
)
from pytest_shark_tune.commands.output import print_json, print_table, print_wrapped
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.driver.architecture import resolve_target
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.spaces import NO_SPACE, emitted_constraints, spaces_from, untunable_members
from pytest_shark_tune.search_space import SearchSpace, SpaceTooLarge
from pytest_shark_tune.search_space.registry import provided_spaces
from pytest_shark_tune.system.machine import processors

__all__ = ["space"]

_COLUMNS = ("dispatch", "kind", "pipeline", "loops", "configs", "knobs")


@click.command(cls=Command, short_help="Print the configs that a run can try.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@target_option
@shape_option
@dim_option
@flags_option
@json_option
def space(
    source: Path,
    tune_target: str,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the search spaces of the dispatches of INPUT, a .mlir, .mlirbc or .onnx file.

    Each kind of knob is explained below the table. A dispatch without a space is listed with the reason.

    The exit status is 0 if INPUT could be read, and 2 if not.
    """
    compiler = Compiler(resolve_target(tune_target), flags)
    compiler.check()
    extracted = extract_dispatches([read_model(source, shapes, dims)], compiler, processors())
    rows = []
    names: list[str] = []
    left_out = list(extracted.untunable)
    failures: list[tuple[str, str]] = []
    for dispatch in extracted.dispatches:
        compiling = time.perf_counter()
        try:
            provided = provided_spaces(dispatch.root, dispatch.target)
            report_failure = partial(_add_failure, failures, dispatch.name)
            constraints = emitted_constraints(dispatch, compiler, report_failure) if provided is None else ""
            started = time.perf_counter()
            spaces = spaces_from(dispatch, constraints) if provided is None else provided
        except NO_SPACE as reason:
            left_out += untunable_members(dispatch, reason)
            continue
        shared = (time.perf_counter() - started) / len(spaces)
        for found in spaces:
            started_listing = time.perf_counter()
            size = _size(found)
            seconds = shared + time.perf_counter() - started_listing
            names += found.names
            rows.append(
                {
                    "dispatch": dispatch.name,
                    "pipeline": found.pipeline,
                    "configs": size,
                    "seconds": round(seconds, 4),
                    "knobs": {knob.name: list(knob.domain) for knob in found.knobs},
                    "meanings": {knob.name: explain_knob(knob.name) for knob in found.knobs},
                    "kind": dispatch.root.kind,
                    "loops": list(dispatch.root.loops),
                    "compiler_seconds": round(started - compiling, 4),
                }
            )
    for name, failure in failures:
        print_wrapped(f"{name}: constraints made by the tuner: {failure}", to_stderr=True)
    for untunable in left_out:
        print_wrapped(f"{untunable.name}: {untunable.reason}", to_stderr=True)
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_wrapped(f"{source}: none of its dispatches can be tuned for {compiler.target}")
        return
    print_table(_COLUMNS, map(_cells, rows))
    for kind, meaning in explain_knobs(names):
        print_wrapped(f"{kind}: {meaning}")


def _add_failure(failures: list[tuple[str, str]], name: str, failure: str) -> None:
    failures.append((name, failure))


def _cells(row: Mapping[str, Any]) -> list[str]:
    """A space as a row of the table. Knobs have the numbers of loops in their names, so it shows the loops."""
    loops = "x".join(map(str, row["loops"]))
    configs = "too many to list" if row["configs"] is None else str(row["configs"])
    knobs = ", ".join(f"{name} ({len(domain)})" for name, domain in row["knobs"].items())
    return [row["dispatch"], row["kind"], row["pipeline"], loops, configs, knobs]


def _size(space: SearchSpace) -> int | None:
    """The number of a space's configs, or `None` if there are too many to list."""
    try:
        return len(space)
    except SpaceTooLarge:
        return None
