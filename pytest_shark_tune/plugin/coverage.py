"""How much of a run's input its tests cover, by the tests that were generated and not by those that run."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.plugin.items import case_of
from pytest_shark_tune.results.coverage import Collected, Coverage

__all__ = ["CollectionWatch", "whole_suites"]


class CollectionWatch:
    """A pytest plugin that records every tuning case when its test is generated.

    The list of items says less: ``--lf``, ``-k`` and hooks of other plugins shorten it, and so do reports on collecting
    a file, with or without notice.
    """

    def __init__(self) -> None:
        self._read: set[Path] = set()
        self._left_out: set[Path] = set()
        self._cases: dict[Path, list[TuningCase]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self, collector: pytest.Collector, obj: object) -> Generator[None, object, object]:
        """Record that a file's tests are generated: a plugin may skip files that passed in an earlier run.

        An option or a plugin may also leave out some of the file's functions.
        """
        self._read.add(collector.path)
        made = yield
        if not made and any(mark.name == "tune" for mark in getattr(obj, "pytestmark", ())):
            self._left_out.add(collector.path)
        return made

    def add(self, path: Path, cases: Iterable[TuningCase]) -> None:
        """Record the cases that a test function in the file ``path`` is parametrized with."""
        self._cases.setdefault(path, []).extend(cases)

    def collected_in(self, session: pytest.Session) -> Collected:
        """Return how much of the generated tests a session may run."""
        kept = [case for case in map(case_of, session.items) if case is not None]
        return self.collected(kept, session.config.args, session.config.getini("python_files"))

    def collected(self, kept: Collection[TuningCase], arguments: Sequence[str], patterns: Sequence[str]) -> Collected:
        """Return how much of the generated tests may run.

        Args:
            kept: the cases whose tests may run.
            arguments: the arguments of the command line.
            patterns: the patterns of the names of test files.
        """
        selects = any("::" in argument for argument in arguments)
        cases = {path: self._cases.get(path, []) for path in self._read | self._cases.keys()}
        known = {id(case) for case in kept}
        shortened = {path.parent for path in self._left_out} | {
            path.parent
            for path, found in cases.items()
            if any(id(case) not in known for case in found if case.role is not Role.INPUT)
        }
        named = ((path, next((case.suite for case in found if case.suite), "")) for path, found in cases.items())
        suites = {path.parent: suite for path, suite in named if suite}
        whole = [] if selects else [suite for suite in whole_suites(cases, patterns) if suite not in shortened]
        if selects or shortened:
            coverage = Coverage.TESTS
        else:
            coverage = Coverage.FILES if suites.keys() - set(whole) else Coverage.WHOLE
        return Collected(whole=tuple(suites[directory] for directory in whole), coverage=coverage)


def whole_suites(cases: Mapping[Path, Sequence[TuningCase]], patterns: Sequence[str]) -> tuple[Path, ...]:
    """Return the directories of the suites of which every tuning test was generated.

    A suite is left out if one of its test files was not read, or if one of its inputs cannot be read.

    Args:
        cases: the tuning cases of all files that were read.
        patterns: the patterns of the names of test files.
    """
    directories = {path.parent for path, found in cases.items() if any(case.suite for case in found)}
    unread = {path.parent for path, found in cases.items() if any(case.role is Role.INPUT for case in found)}
    return tuple(
        directory for directory in sorted(directories - unread) if _tests_in(directory, patterns) <= cases.keys()
    )


def _tests_in(directory: Path, patterns: Sequence[str]) -> set[Path]:
    return {path for path in directory.glob("*.py") if any(path.match(pattern) for pattern in patterns)}
