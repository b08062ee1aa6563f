"""The progress of a run: its remaining time, the best candidates so far, and an estimate of the time left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system.units import format_s, format_us

__all__ = ["RunProgress"]

_QUIET_S = 30.0
"""The longest time without a line, even if nothing better was found."""
_BETTER = 1.01
"""The least factor by which a new best candidate is faster."""


class RunProgress:
    """Keeps the time for trying candidates, from `start` on, and the best of them.

    Args:
        limit_s: the seconds for trying candidates; ``None`` for no limit.
        clock: returns the time in seconds.
    """

    def __init__(self, limit_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._began_s = self._shown_s = clock()
        self._tried = 0
        self._best: dict[str, Record] = {}

    def start(self, limit_s: float | None = None) -> None:
        """Begin to count the time, which is limited to ``limit_s`` if that is given, and the candidates."""
        if limit_s is not None:
            self._limit_s = limit_s
        self._began_s = self._shown_s = self._clock()
        self._tried = 0

    def note(self, record: Record) -> None:
        """Note a record of an earlier run: it costs no time, and may be the best so far."""
        self._is_best(record)

    def is_spent(self) -> bool:
        """Return whether the time is used up."""
        return self._limit_s is not None and self._clock() > self._began_s + self._limit_s

    def left_s(self, waiting: int) -> float | None:
        """Return the seconds until ``waiting`` more candidates are tried or the time is used up.

        Returns:
            ``None`` without a limit and before the first candidate.
        """
        passed = self._clock() - self._began_s
        bounds = [] if self._limit_s is None else [max(0.0, self._limit_s - passed)]
        if self._tried:
            bounds.append(passed / self._tried * waiting)
        return min(bounds, default=None)

    def line(self, record: Record, *, tried: int, of: int, waiting: int) -> str:
        """Return a line about the progress if there is a new best candidate, or none was returned for a while.

        Args:
            record: the record of the candidate that was just tried.
            tried: the number of its dispatch's candidates that were tried.
            of: the number of its dispatch's candidates.
            waiting: the number of candidates of all dispatches that may yet be tried.

        Returns:
            An empty text if there is no news.
        """
        self._tried += 1
        if not self._is_best(record) and self._clock() < self._shown_s + _QUIET_S:
            return ""
        self._shown_s = self._clock()
        left_s = self.left_s(waiting)
        left = f", about {format_s(left_s)} left" if waiting and left_s is not None else ""
        return f"{record.dispatch}: {tried}/{of} tried, {self._best_so_far(record.dispatch)}{left}"

    def _is_best(self, record: Record) -> bool:
        if record.state is not State.MEASURED or record.id == DEFAULT_ID or record.ratio is None:
            return False
        best = self._best.get(record.dispatch)
        if record.ratio <= (best.ratio if best and best.ratio else 1.0) * _BETTER:
            return False
        self._best[record.dispatch] = record
        return True

    def _best_so_far(self, dispatch: str) -> str:
        best = self._best.get(dispatch)
        if best is None:
            return "none faster than the default so far"
        took = format_us(statistics.median_high(best.samples_us)) if best.samples_us else "-"
        return f"best so far {best.id} with {best.ratio:.2f} times the default's speed ({took})"
