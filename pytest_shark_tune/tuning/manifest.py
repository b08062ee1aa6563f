"""The roster: which test of a run has which part, as the workers tell their controller, which never collects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.plugin.cases import Trial
from pytest_shark_tune.results.coverage import Collected
from pytest_shark_tune.system import journal

__all__ = ["Part", "Roster", "read_roster", "whole_suites", "write_roster"]

_FILE = "roster.json"


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What a test is for: ``dispatch`` and ``candidate`` are names, empty where there is none.

    ``plan`` is the plan's key in the cache, ``suite`` the folder of the suite, empty for a model file. ``is_ours``
    says that our own stages serve it, so that it is known what its results depend on.
    """

    role: Role
    plan: str
    suite: str
    dispatch: str = ""
    candidate: str = ""
    is_ours: bool = True

    @classmethod
    def of(cls, trial: Trial, *, is_ours: bool = True) -> Part:
        """The part of the test that tries ``trial``."""
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
        """When the test may run."""
        return self.role.phase


class Roster(msgspec.Struct, frozen=True):
    """The parts of the tests that have one, by test id, and what was collected."""

    parts: dict[str, Part]
    collected: Collected


def write_roster(folder: Path, roster: Roster) -> None:
    """Write down what each test tries; all workers write the same, and the first one is enough.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / _FILE
    if not path.exists():
        journal.replace_file(path, msgspec.json.encode(roster))


def read_roster(folder: Path) -> Roster:
    """What the workers wrote down.

    Raises:
        OSError: no worker could write it.
    """
    return msgspec.json.decode((folder / _FILE).read_bytes(), type=Roster)


def whole_suites(trials: Mapping[Path, Sequence[Trial]], patterns: Sequence[str]) -> tuple[Path, ...]:
    """The folders of the suites of which every test that tunes was generated.

    ``trials`` are those of each file that was read. A suite with a file like ``patterns``, the names of test files,
    that is not among them, or with an input that cannot be read, is not known to be whole.
    """
    folders = {path.parent for path, found in trials.items() if any(trial.suite for trial in found)}
    unread = {path.parent for path, found in trials.items() if any(trial.role is Role.INPUT for trial in found)}
    return tuple(each for each in sorted(folders - unread) if _tests_in(each, patterns) <= trials.keys())


def _tests_in(folder: Path, patterns: Sequence[str]) -> set[Path]:
    return {path for path in folder.glob("*.py") if any(path.match(pattern) for pattern in patterns)}
