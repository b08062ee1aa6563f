"""The order of a run: ordinary tests, candidates, finals, the merged spec, whole models; without pytest or xdist."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

from pytest_shark_tune.plan.roles import Phase

__all__ = ["Chooser", "RunOrder"]


class Chooser(Protocol):
    """Chooses which of the candidates' tests come next, and when there have been enough."""

    @property
    def is_done(self) -> bool:
        """Whether no test is wanted any more, unless one is given back."""

    @property
    def expected(self) -> int:
        """How many tests will be handed out at most."""

    def take(self) -> int:
        """The index of the next test; asked only while it is not done."""

    def give_back(self, index: int) -> None:
        """Take a test back that was handed out and not run; it is handed out again."""


class RunOrder:
    """Which test comes next, by index into the collection, and which may start already.

    Ordinary tests and candidates share the first stretch, ordinary ones first. ``chooser`` hands out the candidates'
    tests; those that it never handed out count as ended once it wants no more. ``needless`` are tests of other phases
    that are never to run.
    """

    def __init__(self, phases: Sequence[Phase], chooser: Chooser, needless: Collection[int] = ()) -> None:
        self._phases = phases
        self._chooser = chooser
        self._open = set(range(len(phases))) - set(needless)
        self._waiting = sorted((index for index in self._open if phases[index] is not Phase.CANDIDATE), key=self._rank)
        self._open_by_stage = Counter(map(self._stage, self._open))
        self._untaken = {index for index, phase in enumerate(phases) if phase is Phase.CANDIDATE}

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits any more; tests that were handed out may still run."""
        return not self._waiting and self._no_candidate_waits()

    @property
    def unfinished(self) -> int:
        """How many tests have not ended; of the candidates those that were handed out, or would be at most."""
        return len(self._open - self._untaken) + self._chooser.expected

    def take(self) -> int | None:
        """Hand out the next test, in order of phases, or ``None``; it may have to be held for a while."""
        if self._waiting and self._phases[self._waiting[0]] is Phase.ORDINARY:
            return self._waiting.pop(0)
        if not self._no_candidate_waits():
            chosen = self._chooser.take()
            self._untaken.discard(chosen)
            return chosen
        return self._waiting.pop(0) if self._waiting else None

    def may_start(self, index: int) -> bool:
        """Whether all tests of the phases before the test's own have ended, or are left out."""
        self._no_candidate_waits()
        stage = self._stage(index)
        return not any(count for other, count in self._open_by_stage.items() if other < stage)

    def complete(self, index: int) -> None:
        """Note that a test has ended, however it ended."""
        if index in self._open:
            self._open.remove(index)
            self._open_by_stage[self._stage(index)] -= 1

    def give_back(self, index: int) -> None:
        """Put a test that was handed out and not run back in its place."""
        if self._phases[index] is Phase.CANDIDATE:
            self._untaken.add(index)
            self._chooser.give_back(index)
        else:
            bisect.insort(self._waiting, index, key=self._rank)

    def _no_candidate_waits(self) -> bool:
        """Whether no candidate's test will be handed out any more; those that never were are then left out."""
        if not self._chooser.is_done:
            return False
        for index in self._untaken:
            self.complete(index)
        self._untaken.clear()
        return True

    def _rank(self, index: int) -> tuple[int, int]:
        return self._phases[index], index

    def _stage(self, index: int) -> int:
        return max(self._phases[index], Phase.CANDIDATE)
