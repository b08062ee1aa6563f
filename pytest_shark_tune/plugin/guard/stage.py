"""The stage of a test in guard mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import Verdict
from pytest_shark_tune.plugin.cases import Trial
from pytest_shark_tune.tuning.session import Session

if TYPE_CHECKING:
    from pytest_shark_tune.plugin.guard.plugin import GuardingPlugin

__all__ = ["GuardStage"]


@dataclass(frozen=True)
class GuardStage:
    """Builds an entry's config and evaluates a check of the entry."""

    guard: GuardingPlugin
    """Knows the entries of all tests."""
    trial: Trial
    """What the test tries."""
    session: Session
    """The session that compiles as the suite wants it."""

    def build(self) -> Artifact | None:
        """Compile the entry's config; ``None`` for a check that takes no device, or after a check that failed.

        Raises:
            CandidateFailed: it cannot be compiled, and no check before has said so.
        """
        return None if self.trial.config is None else self.guard.artifact(self.trial, self._guard_session)

    def measure(self, artifact: Artifact | None) -> Verdict:
        """Evaluate the check."""
        assert self.trial.guarded is not None
        return self.guard.look(self.trial.guarded, artifact, self._guard_session)

    @property
    def _guard_session(self) -> GuardSession:
        assert isinstance(self.session, GuardSession)
        return self.session
