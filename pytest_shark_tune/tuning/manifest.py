"""The test manifest: the workers write it for the controller, which never collects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.plugin.cases import Trial
from pytest_shark_tune.results.coverage import Collected

__all__ = ["Part", "Roster", "whole_suites"]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One test of the manifest."""

    role: Role
    """The role of the test."""
    plan: str
    """The key of its plan in the cache."""
    suite: str
    """The directory of its suite; empty for a model file."""
    dispatch: str = ""
    """The name of its dispatch; empty without one."""
    candidate: str = ""
    """The id of its candidate; empty without one."""
    is_ours: bool = True
    """Whether our own stages serve it. Then everything is known that its results depend on."""

    @classmethod
    def of(cls, trial: Trial, *, is_ours: bool = True) -> Part:
        """The entry of the test that tries ``trial``."""
        return cls(
            trial.role,
            trial.plan_key,
            trial.suite,
            trial.task.name if trial.task else "",
            trial.config.id if trial.config else "",
            is_ours,
        )

    @property
    def phase(self) -> Phase:
        """The phase of the run in which the test may run."""
        return self.role.phase


class Roster(msgspec.Struct, frozen=True):
    """The tests of a run, by id."""

    parts: dict[str, Part]
    """The tests that tune."""
    collected: Collected
    """How much was collected."""


def whole_suites(trials: Mapping[Path, Sequence[Trial]], patterns: Sequence[str]) -> tuple[Path, ...]:
    """The folders of the suites of which every test that tunes was generated.

    ``trials`` are those of each file that was read. A suite with a file like ``patterns``, the names of test files,
    that is not among them, or with an input that cannot be read, is not known to be whole.
    """
    folders = {path.parent for path, found in trials.items() if any(trial.suite for trial in found)}
    unread = {path.parent for path, found in trials.items() if any(trial.role is Role.INPUT for trial in found)}
    return tuple(folder for folder in sorted(folders - unread) if _tests_in(folder, patterns) <= trials.keys())


def _tests_in(folder: Path, patterns: Sequence[str]) -> set[Path]:
    return {path for path in folder.glob("*.py") if any(path.match(pattern) for pattern in patterns)}
