"""The test manifest: the workers write it for the controller, which never collects."""

from __future__ import annotations

import msgspec

from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.results.coverage import Collected

__all__ = ["TestEntry", "TestManifest"]


class TestEntry(msgspec.Struct, frozen=True, array_like=True):
    """One test of the manifest."""

    __test__ = False  # pytest is not to collect it.

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

    @property
    def phase(self) -> Phase:
        """The phase of the run in which the test may run."""
        return self.role.phase


class TestManifest(msgspec.Struct, frozen=True):
    """The tests of a run, by id."""

    __test__ = False  # pytest is not to collect it.

    entries: dict[str, TestEntry]
    """The tests that tune."""
    collected: Collected
    """How much was collected."""
