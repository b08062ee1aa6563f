"""The releases of IREE that compile a model: bisection over them, and the dispatches that explain its result."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pytest_shark_tune.commands.output import report
from pytest_shark_tune.commands.timing.evidence import leave_dispatch
from pytest_shark_tune.compiler.compiler import compiler_version, first_error
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import OtherCompiler, find_installation
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.against import compiled_model, load_models, play_in_turns
from pytest_shark_tune.guard.bisect import Bisection, find_first_bad
from pytest_shark_tune.guard.explain import Explanation, explain
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.system.cache import RELEASES

__all__ = ["Releases"]


class Releases:
    """The releases that compile a model.

    Args:
        session: leases the device, and has the cache, below which releases are installed.
        source: the model.
        target: the target of all releases.
        flags: the user's flags for iree-compile.
    """

    def __init__(self, session: GuardSession, source: Source, target: Target, flags: Sequence[str]) -> None:
        self._session = session
        self._source = source

        @cache
        def compiler(version: str) -> OtherCompiler:
            given = sys.executable if version == compiler_version() else f"iree=={version}"
            return OtherCompiler(find_installation(given, session.cache.directory / RELEASES), target, flags)

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

    def explain(self, found: Bisection, out: Path) -> tuple[Explanation | None, tuple[Path, ...]]:
        """Find the dispatches that explain a slowdown, and write their files and the executables of both releases.

        Returns:
            The explanation, and the files of the dispatches. ``None`` if nothing became slower, or if the dispatches
            cannot be found.
        """
        if not found.first_bad:
            return None, ()
        for version in (found.last_good, found.first_bad):
            self._leave_executables(version, out)
        good, bad = self._compiler(found.last_good), self._compiler(found.first_bad)
        try:
            explanation, tasks = explain(self._session, good, bad, self._source, report)
        except InputError as error:
            report(f"the dispatches cannot be compared: {error}")
            return None, ()
        files: list[Path] = []
        with self._session.processor():
            for name, pair in tasks.items():
                for compiler, task in zip((good, bad), pair, strict=True):
                    if task is not None:
                        files += leave_dispatch(name, task, compiler, out)
        return explanation, tuple(files)

    def _leave_executables(self, version: str, out: Path) -> None:
        """Write the executables of a release: their sources, their configs, benchmarks and assembly."""
        compiler, directory = self._compiler(version), out / version
        directory.mkdir(parents=True, exist_ok=True)
        kinds = ("sources", "configurations", "benchmarks", "intermediates", "binaries")
        dumps = [f"--iree-hal-dump-executable-{kind}-to={directory.absolute()}" for kind in kinds]
        with self._session.processor():
            whole = compiler.with_flags(dumps).for_models
            assert isinstance(whole, OtherCompiler)
            whole.compile_model(self._source.text, directory / f"{self._source.name}.vmfb", self._source.name)
