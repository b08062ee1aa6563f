"""The roster: which test of a run has which part, as the workers tell their controller, which never collects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_shark_tune.ordering import Phase
from pytest_shark_tune.tools import journal
from pytest_shark_tune.trial import Role, Trial

__all__ = ["Part", "read_roster", "write_roster"]

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


def write_roster(folder: Path, parts: Mapping[str, Part]) -> None:
    """Write down what each test tries, by test id; all workers write the same, and the first one is enough.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / _FILE
    if not path.exists():
        journal.replace_file(path, msgspec.json.encode(parts))


def read_roster(folder: Path) -> dict[str, Part]:
    """The parts of the tests that have one, by test id.

    Raises:
        OSError: no worker could write it.
    """
    return msgspec.json.decode((folder / _FILE).read_bytes(), type=dict[str, Part])
