"""The roster: which test of a run has which part, as the workers tell their controller, which never collects."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.results.coverage import Collected
from pytest_shark_tune.system import journal

__all__ = ["Part", "Roster", "read_roster", "write_roster"]

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
