"""``shark-tune bisect``: the release of IREE that made a model slower."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import click
import msgspec

from pytest_shark_tune.commands import options
from pytest_shark_tune.commands.output import print_json, print_table, report
from pytest_shark_tune.commands.session import open_session
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version, first_error
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import OtherCompiler, find_installation
from pytest_shark_tune.device.discovery import devices_for
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.against import compiled_model, load_models, play_in_turns
from pytest_shark_tune.guard.bisect import Bisection, find_first_bad
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plan.source import ModelInput, Source
from pytest_shark_tune.system import process

__all__ = ["bisect_model"]

_PACKAGE = "iree-base-compiler"
_INDEX_TIMEOUT_S = 120.0
_RELEASES = "releases"


@click.command(name="bisect", cls=options.Command, short_help="Find the release of IREE that made a model slower.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--good", required=True, metavar="VERSION", help="A release with which the model is fast.")
@click.option("--bad", required=True, metavar="VERSION", help="A later release with which it is slow.")
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
    until a sequential test decides. The first bad release and the last good one leave their executables in the output
    directory: sources, configs and assembly. The exit status is 0 if a first bad release was found, 1 if noise left it
    open or nothing became slower, and 2 if something cannot be used.
    """
    target = Target.parse(tune_target)
    asked = ModelInput.parse(shapes, parameters=parameters)
    listed = _between(good, bad, versions)
    with open_session(Compiler(target, flags), devices_for(target, devices), asked, cache_directory) as session:
        source = session.plan_of([model.absolute()], Path()).sources[0]
        if problem := asked.stray(session.planner.models):
            raise InputError(problem)
        if len(source.run_whole) != 1:
            raise InputError(
                f"{model}: {source.why_not_run or 'it has no single function whose inputs can be made up'}"
            )
        releases = _Releases(session, source, target, flags)
        found = releases.bisect(listed)
        if found.first_bad:
            for version in (found.last_good, found.first_bad):
                releases.leave_evidence(version, out)
    _print(found, out, as_json=as_json)
    if not found.first_bad:
        sys.exit(1)


class _Releases:
    """The releases that compile a model."""

    def __init__(self, session: GuardSession, source: Source, target: Target, flags: Sequence[str]) -> None:
        self._session = session
        self._source = source

        @cache
        def compiler(version: str) -> OtherCompiler:
            given = sys.executable if version == compiler_version() else f"iree=={version}"
            return OtherCompiler(find_installation(given, session.cache.directory / _RELEASES), target, flags)

        self._compiler = compiler

    def bisect(self, versions: Sequence[str]) -> Bisection:
        """Bisect over versions. One that does not compile or run the model ends that."""
        busy = [versions[0]]

        def play(version: str, number: int) -> float:
            busy[0] = version
            pair = [self._compiler(name) for name in (version, versions[0])]
            paths = [compiled_model(self._session, compiler, self._source) for compiler in pair]
            report(f"{version} against {versions[0]}, round {number + 1}")
            installed = [compiler.installation for compiler in pair]
            measured = play_in_turns(self._session, installed, load_models(self._source, paths), number)
            return math.log(measured.ratio)

        try:
            return find_first_bad(versions, play)
        except (CandidateFailed, CommandFailed) as error:
            why = first_error(error) if isinstance(error, CommandFailed) else str(error)
            return Bisection(steps=(), reason=f"{busy[0]}, or {versions[0]}, does not compile or run the model: {why}")

    def leave_evidence(self, version: str, out: Path) -> None:
        """Write the executables of a release: their sources, their configs, benchmarks and assembly."""
        compiler, directory = self._compiler(version), out / version
        directory.mkdir(parents=True, exist_ok=True)
        kinds = ("sources", "configurations", "benchmarks", "intermediates", "binaries")
        dumps = [f"--iree-hal-dump-executable-{kind}-to={directory.absolute()}" for kind in kinds]
        with self._session.processor():
            whole = compiler.with_flags(dumps).for_models
            assert isinstance(whole, OtherCompiler)
            whole.compile_model(self._source.text, directory / f"{self._source.name}.vmfb", self._source.name)


def _between(good: str, bad: str, versions: str) -> list[str]:
    """The versions from good to bad, oldest first.

    Raises:
        InputError: pip knows no versions, or the good one is not older than the bad one.
    """
    if _order(good) >= _order(bad):
        raise InputError(f"--good {good} is not older than --bad {bad}")
    known = [version.strip() for version in versions.split(",") if version.strip()] or _released()
    inner = {version for version in known if _order(good) < _order(version) < _order(bad)}
    return [good, *sorted(inner, key=_order), bad]


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


def _print(found: Bisection, out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        (step.version, step.judgement, f"{step.ratio:.3f}" if step.ratio else "", str(step.rounds))
        for step in found.steps
    ]
    print_table(("version", "judgement", "ratio", "rounds"), rows, numbers=("ratio", "rounds"))
    if found.first_bad:
        click.echo(f"first bad: {found.first_bad}, last good: {found.last_good}; evidence: {out}")
    else:
        click.echo(found.reason)
