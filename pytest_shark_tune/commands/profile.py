"""``shark-tune profile``: where the time of a model goes, dispatch by dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from pytest_shark_tune.commands.model_options import shape_option
from pytest_shark_tune.commands.output import print_json, print_table, tell
from pytest_shark_tune.compiler.compiler import MODEL_TIMEOUT_S, Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import FoundDevices, devices_for
from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.plan.model_input import ModelInput
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plugin.options import default_cache
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.system.units import format_us
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["profile_model"]

_HEADINGS = ("dispatch", "calls", "time", "share", "in all", "default pipeline", "tunable")
_NUMBERS = ("calls", "time", "share", "in all")


@click.command(name="profile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@shape_option
@click.option(
    "--tune-input",
    "data",
    multiple=True,
    metavar="NAME=FILE",
    help="What an input is: x=FILE.npy or, by its number, 0=FILE.npy; random without. Repeatable.",
)
@click.option("--tune-device", default="", help="IREE device URIs, comma-separated; the first that is free is taken.")
@click.option("--tune-function", default="", help="The function to run, where the model has several.")
@click.option("--tune-cache", "folder", type=click.Path(path_type=Path), help="As pytest's option of that name.")
@click.option("--tune-fresh", is_flag=True, help="Measure again what was measured before.")
@click.option(
    "--iree-compile-flag", "flags", multiple=True, metavar="FLAG", help="A flag for iree-compile; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def profile_model(
    model: Path,
    tune_target: str,
    shapes: tuple[str, ...],
    data: tuple[str, ...],
    tune_device: str,
    tune_function: str,
    folder: Path | None,
    tune_fresh: bool,
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show where the time of MODEL goes, a .mlir, .mlirbc or .onnx file, dispatch by dispatch.

    What takes longest comes first. Times are those of all calls in one call of the model, measured in the running
    model where the driver tells, and else each dispatch's own benchmark times its calls.
    """
    try:
        target = Target.parse(tune_target)
        compiler = Compiler(target, flags, timeout_s=MODEL_TIMEOUT_S)
        compiler.check()
        devices = devices_for(target, [each.strip() for each in tune_device.split(",") if each.strip()])
        asked = ModelInput.parse(shapes, data, tune_function)
        settings = _settings(devices, cleanup.new_folder("profile"), asked, fresh=tune_fresh)
        session = Session(settings, compiler, Cache(folder or default_cache(), tell), tell=tell)
        try:
            _, plan = session.plan([model.absolute()], Path())
            if problem := asked.stray(session.models):
                raise InputError(problem)
            found = session.profile(plan, plan.sources[0])
        finally:
            session.close()
            cleanup.clear()
    except InputError as error:
        raise click.UsageError(str(error)) from error
    except SharkTuneError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        content = {**msgspec.to_builtins(found), "dispatches_us": found.dispatches_us}
        print_json(content)
        return
    print_table(_HEADINGS, _rows(found), numbers=_NUMBERS)
    for line in _conclusion(found):
        click.echo(line)


def _settings(devices: FoundDevices, folder: Path, models: ModelInput, *, fresh: bool) -> RunSettings:
    settings = RunSettings.in_folder(folder, devices["uris"], devices["name"], jobs=processors())
    return replace(settings, fresh=fresh, models=models)


def _rows(found: Profile) -> Iterator[tuple[str, ...]]:
    so_far = 0.0
    for each in found.shares:
        so_far += each.share
        yield (
            f"{each.dispatch} ({each.op})" if each.reason and each.op else each.dispatch,
            str(each.calls),
            format_us(each.time_us),
            f"{each.share:.1%}",
            f"{so_far:.1%}",
            each.pipeline,
            f"no: {each.reason}" if each.reason else "yes",
        )


def _conclusion(found: Profile) -> list[str]:
    """The time of the whole, what part of it the dispatches are, and what nobody could tell."""
    lines = [
        f"a call of {found.function!r}: {format_us(found.model_us)}" if found.model_us else "the model was not run"
    ]
    if found.model_us:
        part = found.dispatches_us / found.model_us
        lines[0] += f"; its dispatches: {format_us(found.dispatches_us)}, {part:.0%} of that"
    lines.append(f"measured: {found.measured}")
    untunable = [each for each in found.shares if each.reason]
    if untunable:
        lines.append(
            f"not tunable: {len(untunable)} dispatches, {sum(each.share for each in untunable):.1%} of the time"
        )
    lines += [f"not measured: {name}: {reason}" for name, reason in found.unknown.items()]
    return lines
