"""``shark-tune bisect``: the release of IREE that made a model slower."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from pytest_shark_tune.commands import options
from pytest_shark_tune.commands.session import open_session
from pytest_shark_tune.commands.timing.explained import print_bisection
from pytest_shark_tune.commands.timing.releases import Releases
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import devices_for
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.system import process

__all__ = ["between", "bisect_model"]

_PACKAGE = "iree-base-compiler"
_INDEX_TIMEOUT_S = 120.0


@click.command(name="bisect", cls=options.Command, short_help="Find the release of IREE that made a model slower.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--good", required=True, metavar="VERSION", help="A release with which the model is fast.")
@click.option("--bad", required=True, metavar="VERSION", help="A release with which it is slow.")
@click.option("--versions", default="", metavar="V1,V2", help="The releases between (default: those that pip finds).")
@click.option("--out", default="bisect", type=click.Path(path_type=Path), help="The directory for the evidence.")
@options.target_option
@options.shape_option
@options.parameters_option
@options.device_option
@options.cache_option
@options.flags_option
@options.json_option
def bisect_model(
    model: Path,
    good: str,
    bad: str,
    versions: str,
    out: Path,
    tune_target: str,
    shapes: tuple[str, ...],
    parameters: tuple[str, ...],
    devices: tuple[str, ...],
    cache_directory: Path | None,
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the release of IREE from which on MODEL, a .mlir, .mlirbc or .onnx file, is slower.

    Each release compiles the model and runs it with its own runtime, in turns with the good one, in fresh processes,
    until a sequential test decides. If the good release is the later one, the one that made the model faster is found.
    Then the dispatches of the first bad release and of the last good one are timed in turns, to name those that explain
    the slowdown. The output directory gets their sources, configs and assembly with both releases, and a directory of
    all executables for each of the two. The exit status is 0 if a first bad release was found, 1 if noise left it open
    or nothing became slower, and 2 if something cannot be used.
    """
    target = Target.parse(tune_target)
    asked = ModelInput.parse(shapes, parameters=parameters)
    listed = between(good, bad, versions)
    with open_session(Compiler(target, flags), devices_for(target, devices), asked, cache_directory) as session:
        source = session.plan_of([model.absolute()], Path()).sources[0]
        if problem := asked.stray(session.planner.models):
            raise InputError(problem)
        if len(source.run_whole) != 1:
            raise InputError(
                f"{model}: {source.why_not_run or 'it has no single function whose inputs can be made up'}"
            )
        releases = Releases(session, source, target, flags)
        found = releases.bisect(listed)
        explanation, files = releases.explain(found, out)
    print_bisection(found, explanation, files, out, as_json=as_json)
    if not found.first_bad:
        sys.exit(1)


def between(good: str, bad: str, versions: str) -> list[str]:
    """Return the versions from good to bad: backwards if the good one is later, so that a slowdown was mended.

    Raises:
        InputError: pip knows no versions, or both are the same.
    """
    if _order(good) == _order(bad):
        raise InputError(f"--good {good} and --bad {bad} are the same release")
    known = [version.strip() for version in versions.split(",") if version.strip()] or _released()
    low, high = sorted((_order(good), _order(bad)))
    inner = {version for version in known if low < _order(version) < high}
    return [good, *sorted(inner, key=_order, reverse=_order(good) > _order(bad)), bad]


def _released() -> list[str]:
    """The versions of the compiler that pip finds."""
    try:
        done = process.run([sys.executable, "-m", "pip", "index", "versions", _PACKAGE], timeout_s=_INDEX_TIMEOUT_S)
    except CommandFailed as error:
        raise InputError(f"pip lists no versions of {_PACKAGE}: give --versions") from error
    found = re.search(r"Available versions: (.*)", done.stdout)
    return found[1].split(", ") if found else []


def _order(version: str) -> tuple[int, ...]:
    numbers = re.findall(r"\d+", version)
    if not numbers:
        raise InputError(f"{version!r} is no version of IREE, such as 3.12.0")
    return tuple(map(int, numbers))
