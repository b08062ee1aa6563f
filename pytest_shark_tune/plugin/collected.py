"""The tests that were collected, as they were generated: before anything shortens the list of those that run."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from pathlib import Path

import pytest

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import Trial
from pytest_shark_tune.results.coverage import Collected, Coverage
from pytest_shark_tune.tuning.manifest import whole_suites

__all__ = ["CollectionWatch"]


class CollectionWatch:
    """Takes note of every test that tunes when it is generated; a pytest plugin.

    The list of items says less: ``--lf``, ``-k`` and hooks of other plugins shorten it, and so do reports on collecting
    a file, with or without a word to anybody.
    """

    def __init__(self) -> None:
        self._read: set[Path] = set()
        self._left_out: set[Path] = set()
        self._trials: dict[Path, list[Trial]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self, collector: pytest.Collector, obj: object) -> Generator[None, object, object]:
        """Note that a file's tests are made from it: a plugin may skip files whose report says that they passed.

        An option or a plugin may leave out some of its functions, too.
        """
        self._read.add(collector.path)
        made = yield
        if not made and any(mark.name == "tune" for mark in getattr(obj, "pytestmark", ())):
            self._left_out.add(collector.path)
        return made

    def add(self, path: Path, trials: Iterable[Trial]) -> None:
        """Take note of what a test function in the file ``path`` was parametrized with."""
        self._trials.setdefault(path, []).extend(trials)

    def seen(self, kept: Collection[Trial], arguments: Sequence[str], patterns: Sequence[str]) -> Collected:
        """What was generated, and how much of it is among the trials ``kept``, whose tests may run.

        ``arguments`` are those of the command line, and ``patterns`` the names of test files.
        """
        selects = any("::" in argument for argument in arguments)
        trials = {path: self._trials.get(path, []) for path in self._read | self._trials.keys()}
        known = {id(trial) for trial in kept}
        shortened = {path.parent for path in self._left_out} | {
            path.parent
            for path, found in trials.items()
            if any(id(trial) not in known for trial in found if trial.role is not Role.INPUT)
        }
        suites = {path.parent: trial.suite for path, found in trials.items() for trial in found if trial.suite}
        whole = [] if selects else [each for each in whole_suites(trials, patterns) if each not in shortened]
        if selects or shortened:
            coverage = Coverage.TESTS
        else:
            coverage = Coverage.FILES if suites.keys() - set(whole) else Coverage.WHOLE
        return Collected(whole=tuple(suites[folder] for folder in whole), coverage=coverage)
