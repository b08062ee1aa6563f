"""What every search strategy does: it is asked for configs, told what came of them, and says when to stop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import msgspec

__all__ = ["Outcome", "Progress", "Search"]


class Outcome(msgspec.Struct, frozen=True):
    """What came of the config in row ``index`` of the table.

    ``ratio`` is baseline time by candidate time, above 1 for a faster one; a config that failed, however, has none.
    ``seconds`` are what it took to find out, where that is known.
    """

    index: int
    ratio: float | None = None
    seconds: float | None = None


class Search(Protocol):
    """A strategy over the rows of one `ConfigTable`."""

    def ask(self, count: int) -> list[int]:
        """Up to ``count`` rows to try next, never one that was asked for or told of before.

        Fewer only where no more are left; asking again before outcomes are told is allowed.
        """
        ...

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Take in results, in any order, also of rows that were not asked for, such as those of an earlier run."""
        ...

    @property
    def stop_reason(self) -> str:
        """Why there is nothing more to try, in words; empty as long as there is."""
        ...

    @property
    def expected_gain(self) -> float:
        """What the next config is expected to add to the log of the best ratio: 0 where nothing is left.

        Times the dispatch's weight, it tells which of several dispatches a device serves best. It is infinite until
        there are results to judge by.
        """
        ...


class Progress:
    """Which rows have been proposed, and the results so far: what every strategy keeps.

    ``indices``, ``log_ratios`` and ``seconds`` grow together, one element for each result; a failure's log-ratio is
    NaN, and so are seconds that are not known.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.proposed: set[int] = set()
        self.indices: list[int] = []
        self.log_ratios: list[float] = []
        self.seconds: list[float] = []

    @property
    def left(self) -> int:
        """How many rows were never proposed."""
        return self.count - len(self.proposed)

    @property
    def stop_reason(self) -> str:
        """The reason that every strategy has: nothing is left."""
        return "" if self.left else f"all {self.count} configs were tried"

    def propose(self, indices: Iterable[int]) -> list[int]:
        """Note rows as proposed, and return them."""
        chosen = list(indices)
        self.proposed.update(chosen)
        return chosen

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Take in results, which count as proposed."""
        for outcome in outcomes:
            assert 0 <= outcome.index < self.count, outcome
            assert outcome.ratio is None or outcome.ratio > 0, outcome
            self.proposed.add(outcome.index)
            self.indices.append(outcome.index)
            self.log_ratios.append(math.nan if outcome.ratio is None else math.log(outcome.ratio))
            self.seconds.append(outcome.seconds or math.nan)

    def expected_record(self) -> float:
        """The gain expected of one more row drawn at random.

        Of ``n`` draws so far, the next is the best with probability ``1 / (n + 1)``; it then leads by about as
        much as the best now leads the second.
        """
        if not self.left:
            return 0.0
        found = sorted((value for value in self.log_ratios if not math.isnan(value)), reverse=True)
        return (found[0] - found[1]) / (len(self.log_ratios) + 1) if len(found) > 1 else math.inf
