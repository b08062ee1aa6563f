"""Configs drawn uniformly, without any model: the baseline for every other strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pytest_shark_tune.search.protocol import Outcome, Progress

__all__ = ["OrderedSearch", "UniformSearch"]


class OrderedSearch:
    """Rows in an order fixed beforehand; results serve only to judge what is still to gain."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = iter(order)
        self._progress = Progress(len(order))

    def ask(self, count: int) -> list[int]:
        """The next ``count`` rows in order that nobody has told of."""
        chosen: list[int] = []
        while len(chosen) < count and (index := next(self._order, None)) is not None:
            if index not in self._progress.proposed:
                chosen.append(index)
        return self._progress.propose(chosen)

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Take in results; the order stays."""
        self._progress.note(outcomes)

    @property
    def stop_reason(self) -> str:
        """That all were tried, once they were."""
        return self._progress.stop_reason

    @property
    def expected_gain(self) -> float:
        """That of one more draw."""
        return self._progress.expected_record()


class UniformSearch(OrderedSearch):
    """Behind the rows in ``first``, each set of rows of a table of ``count`` equally likely; the same for a seed."""

    def __init__(self, count: int, seed: int = 0, first: Sequence[int] = ()) -> None:
        drawn: list[int] = np.random.default_rng(seed).permutation(count).tolist()
        super().__init__([*dict.fromkeys([*first, *drawn])])
