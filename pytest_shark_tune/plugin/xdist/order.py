"""The order of a run: ordinary tests, candidates, finals, the merged spec, whole models. Knows no pytest or xdist."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

from pytest_shark_tune.plan.roles import Phase

__all__ = ["Chooser", "RunOrder"]


class Chooser(Protocol):
    """Chooses which candidate's test comes next, and when enough candidates were tried."""

    @property
    def is_done(self) -> bool:
        """Whether no further test is wanted, unless one is given back."""

    @property
    def expected(self) -> int:
        """The maximum number of tests that will still be handed out."""

    def take(self) -> int:
        """Return the index of the next test; called only while it is not done."""

    def give_back(self, index: int) -> None:
        """Take back a test that was handed out and not run; it will be handed out again."""


class RunOrder:
    """Decides which test comes next, by its index in the collection, and which one may start already.

    Ordinary tests and candidates share the first stage, ordinary tests first. Candidates that the chooser never handed
    out count as ended once it wants no more.

    Args:
        phases: the phase of every collected test.
        chooser: hands out the tests of candidates.
        needless: tests of other phases that must not run.
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
        """Whether no test is left to hand out; tests that were handed out may still run."""
        return not self._waiting and self._no_candidate_waits()

    @property
    def unfinished(self) -> int:
        """The number of tests that have not ended; candidates count if they were or may yet be handed out."""
        return len(self._open - self._untaken) + self._chooser.expected

    def take(self) -> int | None:
        """Hand out the next test in the order of phases, or ``None``; the test may have to wait for earlier ones."""
        if self._waiting and self._phases[self._waiting[0]] is Phase.ORDINARY:
            return self._waiting.pop(0)
        if not self._no_candidate_waits():
            chosen = self._chooser.take()
            self._untaken.discard(chosen)
            return chosen
        return self._waiting.pop(0) if self._waiting else None

    def may_start(self, index: int) -> bool:
        """Return whether all tests of earlier phases have ended or are left out."""
        self._no_candidate_waits()
        stage = self._stage(index)
        return not any(count for other, count in self._open_by_stage.items() if other < stage)

    def complete(self, index: int) -> None:
        """Mark a test as ended, whatever its outcome."""
        if index in self._open:
            self._open.remove(index)
            self._open_by_stage[self._stage(index)] -= 1

    def give_back(self, index: int) -> None:
        """Put back a test that was handed out and not run."""
        if self._phases[index] is Phase.CANDIDATE:
            self._untaken.add(index)
            self._chooser.give_back(index)
        else:
            bisect.insort(self._waiting, index, key=self._rank)

    def _no_candidate_waits(self) -> bool:
        """Whether no further candidate will be handed out; if so, candidates that never were are left out."""
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
