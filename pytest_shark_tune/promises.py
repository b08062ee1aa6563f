"""Promises: looks at what a spec entry promises, each with the tools that tuning uses."""

from __future__ import annotations

from pytest_shark_tune.guardplan import GuardEntry, GuardPlan
from pytest_shark_tune.plan import Task
from pytest_shark_tune.stages.artifact import Artifact
from pytest_shark_tune.stages.guard import Promise, Verdict

__all__ = ["Promises"]


class Promises:
    """Looks at promises for one process of a run.

    The session makes one; what it takes to make it is up to the implementation (builds, bench, cache, settings).
    """

    def look(
        self, guarded: GuardPlan, entry: GuardEntry, promise: Promise, artifact: Artifact | None, *, alpha: float
    ) -> Verdict:
        """What became of ``promise``; ``artifact`` is that of the entry's first task.

        ``alpha`` is the probability of a false alarm that this entry's speed promise has, of the whole run's.
        """
        raise NotImplementedError

    def artifact(self, task: Task) -> Artifact:
        """The entry's config compiled for its dispatch.

        Raises:
            CandidateFailed: it cannot be compiled, or is not applied.
        """
        raise NotImplementedError
