"""The order of a run: candidates, then the finals, then the merged spec; without pytest and without xdist."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from enum import IntEnum

__all__ = ["Phase", "RunOrder"]


class Phase(IntEnum):
    """When a test may start: once every test of the phases before has ended."""

    ORDINARY = 0
    CANDIDATE = 1
    FINAL = 2
    SPEC = 3


class RunOrder:
    """Which test comes next, by index into the collection, and which may start already.

    Ordinary tests and candidates share the first stretch. ``is_spent`` tells that the budget for candidates
    is used up: those that nobody holds yet are then left out, and counted in ``left_out``.
    """

    def __init__(self, phases: Sequence[Phase], is_spent: Callable[[], bool] = lambda: False) -> None:
        self._phases = phases
        self._is_spent = is_spent
        self._waiting = sorted(range(len(phases)), key=lambda index: (self._stage(index), index))
        self._open = set(range(len(phases)))
        self._open_by_stage = Counter(map(self._stage, self._open))
        self.left_out = 0

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits any more; tests that were handed out may still run."""
        self._drop_spent()
        return not self._waiting

    @property
    def unfinished(self) -> int:
        """How many tests have not ended, those that wait included."""
        return len(self._open)

    def take(self) -> int | None:
        """Hand out the next test, in order of phases, or ``None``; it may have to be held for a while."""
        self._drop_spent()
        return self._waiting.pop(0) if self._waiting else None

    def may_start(self, index: int) -> bool:
        """Whether all tests of the phases before the test's own have ended, or are left out."""
        self._drop_spent()
        stage = self._stage(index)
        return not any(count for other, count in self._open_by_stage.items() if other < stage)

    def complete(self, index: int) -> None:
        """Note that a test has ended, however it ended."""
        if index in self._open:
            self._open.remove(index)
            self._open_by_stage[self._stage(index)] -= 1

    def give_back(self, index: int) -> None:
        """Put a test that was handed out and not run back in its place."""
        bisect.insort(self._waiting, index, key=lambda other: (self._stage(other), other))

    def _stage(self, index: int) -> int:
        return max(self._phases[index], Phase.CANDIDATE)

    def _drop_spent(self) -> None:
        if self._waiting and self._phases[self._waiting[0]] <= Phase.CANDIDATE and self._is_spent():
            dropped = [index for index in self._waiting if self._phases[index] is Phase.CANDIDATE]
            self._waiting = [index for index in self._waiting if self._phases[index] is not Phase.CANDIDATE]
            for index in dropped:
                self.complete(index)
            self.left_out += len(dropped)
