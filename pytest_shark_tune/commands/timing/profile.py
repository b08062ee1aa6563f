"""``shark-tune profile``: where the time of a model goes, dispatch by dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from pytest_shark_tune.commands import options
from pytest_shark_tune.commands.output import print_json, terminal_width
from pytest_shark_tune.commands.session import open_session
from pytest_shark_tune.compiler.compiler import MODEL_TIMEOUT_S, Compiler
from pytest_shark_tune.device.discovery import devices_for
from pytest_shark_tune.device.driver.architecture import resolve_target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.report.tables import named_rows, wrapped
from pytest_shark_tune.system.units import format_us

__all__ = ["profile_model"]

_HEADINGS = ("calls", "time", "share", "in all", "tunable", "pipeline")
_OUTSIDE = "(outside of them)"
"""The row of the time of a call that is none of its dispatches'."""


@click.command(name="profile", cls=options.Command, short_help="Show where the time of a model goes.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.shape_option
@click.option(
    "--tune-input",
    "data",
    multiple=True,
    metavar="NAME=FILE",
    help="The data of an input, by name (x=FILE.npy) or number (0=FILE.npy); random by default. Repeatable.",
)
@options.dim_option
@options.parameters_option
@options.device_option
@click.option("--tune-function", default="", help="The function to run, if the model has several.")
@options.cache_option
@click.option("--tune-fresh", is_flag=True, help="Measure again, even if the cache has a result.")
@options.flags_option
@options.json_option
def profile_model(
    model: Path,
    tune_target: str,
    shapes: tuple[str, ...],
    data: tuple[str, ...],
    dims: tuple[str, ...],
    parameters: tuple[str, ...],
    devices: tuple[str, ...],
    tune_function: str,
    cache_directory: Path | None,
    tune_fresh: bool,
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show where the time of MODEL, a .mlir, .mlirbc or .onnx file, goes, dispatch by dispatch.

    The dispatch that takes longest comes first. Its time is that of all its calls in one call of the model. It is
    measured in the running model if the driver keeps statistics. Otherwise it is the time of the dispatch's own
    benchmark, times its calls. All dispatches are listed, with the reason if they cannot be tuned, and the rest of the
    call comes last, so that the shares add up to the call's time. A model that cannot be run whole is profiled by the
    benchmarks of its dispatches. The exit status is 0 if MODEL could be read, and 2 if not.
    """
    target = resolve_target(tune_target)
    compiler = Compiler(target, flags, timeout_s=MODEL_TIMEOUT_S)
    compiler.check()
    found_devices = devices_for(target, devices)
    asked = ModelInput.parse(shapes, data, tune_function, parameters, dims)
    with open_session(compiler, found_devices, asked, cache_directory, fresh=tune_fresh) as session:
        _, plan = session.planner.plan([model.absolute()], Path())
        if problem := asked.stray(session.planner.models):
            raise InputError(problem)
        source = plan.sources[0]
        if len(source.functions) > 1 and not source.function:
            functions = ", ".join(map(repr, source.functions))
            why = f"it has several functions, {functions}: choose one with --tune-function"
            found = session.planner.profile_benchmarks(plan, source, why)
        else:
            found = session.planner.profile(plan, source)
    if as_json:
        print_json({**msgspec.to_builtins(found), "dispatches_us": found.dispatches_us, "outside_us": found.outside_us})
        return
    reasons: dict[str, int] = {}
    rows = list(_rows(found, reasons))
    names, cells, pipelines = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    width = terminal_width()
    table = named_rows(names, _HEADINGS, cells, [()] * len(rows), width, tails=pipelines)
    notes = [line for reason, number in reasons.items() for line in wrapped(f"({number}) {reason}", width)]
    for line in (*table, *notes):
        click.echo(line)
    for line in _conclusion(found):
        click.echo(line)


def _rows(found: Profile, reasons: dict[str, int]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield name, cells and pipeline of each row, and number in ``reasons`` why dispatches cannot be tuned."""

    def tunable(reason: str) -> str:
        return f"no ({reasons.setdefault(reason, len(reasons) + 1)})" if reason else "yes"

    so_far = 0.0
    whole_us = _whole_us(found)
    for part in found.shares:
        share = part.time_us / whole_us
        so_far += share
        yield (
            f"{_within(part.dispatch)} ({part.op})" if part.reason and part.op else part.dispatch,
            (str(part.calls), format_us(part.time_us), f"{share:.1%}", f"{so_far:.1%}", tunable(part.reason)),
            part.pipeline,
        )
    for name, reason in found.unknown.items():
        yield _within(name), ("", "?", "?", "", tunable(reason)), ""
    if found.outside_us:
        share = found.outside_us / whole_us
        yield _OUTSIDE, ("", format_us(found.outside_us), f"{share:.1%}", f"{so_far + share:.1%}", ""), ""


def _whole_us(found: Profile) -> float:
    """The time of a call, of which the shares in the table are parts."""
    return (found.dispatches_us + found.outside_us) or 1.0


def _within(name: str) -> str:
    """The name of an executable without that of its model: ``async_dispatch_13``."""
    return name.rpartition("$")[2]


def _conclusion(found: Profile) -> list[str]:
    """The time of the model, and the dispatches' part of it."""
    lines = [
        f"a call of {found.function!r}: {format_us(found.model_us)}" if found.model_us else "the model was not run"
    ]
    if found.model_us:
        part = found.dispatches_us / found.model_us
        lines[0] += f"; its dispatches: {format_us(found.dispatches_us)}, {part:.0%} of that"
    lines.append(f"measured: {found.measured}")
    if untunable := [part.time_us for part in found.shares if part.reason]:
        count = f"{len(untunable)} {'dispatch' if len(untunable) == 1 else 'dispatches'}"
        lines.append(f"not tunable: {count}, {sum(untunable) / _whole_us(found):.1%} of the time")
    return lines
