"""The protocol of search strategies: ask for configs, tell their outcomes, and stop if nothing is left to try."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import msgspec

__all__ = ["Outcome", "Progress", "Search"]


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one config."""

    index: int
    """The row of the config in the table."""
    ratio: float | None = None
    """The baseline's time divided by the candidate's, above 1 for a faster candidate; ``None`` if the config failed."""
    seconds: float | None = None
    """The time that trying it took, if that is known."""


class Search(Protocol):
    """A strategy over the rows of one `ConfigTable`."""

    def ask(self, count: int) -> list[int]:
        """Return up to ``count`` rows to try next, none of which was asked for or told before.

        There are fewer only if no more are left. Asking again before outcomes are told is allowed.
        """
        ...

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from results in any order, also of rows that were not asked for, such as those of an earlier run."""
        ...

    @property
    def stop_reason(self) -> str:
        """The reason why nothing is left to try; empty as long as something is."""
        ...

    @property
    def expected_gain(self) -> float:
        """The expected increase of the log of the best ratio by the next config: 0 if nothing is left.

        Multiplied by the dispatch's weight, it tells which of several dispatches a device should serve. It is infinite
        until there are enough results to estimate it.
        """
        ...


class Progress:
    """The proposed rows and the results so far: the part that all strategies share.

    ``indices``, ``log_ratios`` and ``seconds`` have one element per result. The log-ratio of a failure is NaN, and so
    is an unknown time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.proposed: set[int] = set()
        self.indices: list[int] = []
        self.log_ratios: list[float] = []
        self.seconds: list[float] = []

    @property
    def left(self) -> int:
        """The number of rows that were never proposed."""
        return self.count - len(self.proposed)

    @property
    def stop_reason(self) -> str:
        """A message when all rows were tried."""
        return "" if self.left else f"all {self.count} configs were tried"

    def propose(self, indices: Iterable[int]) -> list[int]:
        """Mark rows as proposed, and return them."""
        chosen = list(indices)
        self.proposed.update(chosen)
        return chosen

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Store results. Their rows count as proposed."""
        for outcome in outcomes:
            assert 0 <= outcome.index < self.count, outcome
            assert outcome.ratio is None or outcome.ratio > 0, outcome
            self.proposed.add(outcome.index)
            self.indices.append(outcome.index)
            self.log_ratios.append(math.nan if outcome.ratio is None else math.log(outcome.ratio))
            self.seconds.append(outcome.seconds or math.nan)

    def expected_record(self) -> float:
        """Return the expected gain of one more row that is drawn at random.

        After ``n`` draws, the next is the best with probability ``1 / (n + 1)``. Its lead is then about that of the
        current best over the second.
        """
        if not self.left:
            return 0.0
        found = sorted((value for value in self.log_ratios if not math.isnan(value)), reverse=True)
        return (found[0] - found[1]) / (len(self.log_ratios) + 1) if len(found) > 1 else math.inf
