"""Drawing configs uniformly, without a model: the baseline for all other strategies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_shark_tune.search.protocol import Progress

__all__ = ["OrderedSearch", "UniformSearch"]


class OrderedSearch(Progress):
    """Proposes rows in a fixed order; results do not change it, and serve only to estimate the remaining gain."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__(len(order))
        self._order = iter(order)

    def ask(self, count: int) -> list[int]:
        """Return the next ``count`` rows without a result."""
        chosen: list[int] = []
        while len(chosen) < count and (index := next(self._order, None)) is not None:
            if index not in self.proposed:
                chosen.append(index)
        return self.propose(chosen)

    @property
    def expected_gain(self) -> float:
        """The expected gain of one more draw."""
        return self.expected_record()


class UniformSearch(OrderedSearch):
    """Proposes the rows in ``first``, then the others of ``count`` rows in a random order that the seed determines."""

    def __init__(self, count: int, seed: int = 0, first: Sequence[int] = ()) -> None:
        drawn: list[int] = np.random.default_rng(seed).permutation(count).tolist()
        super().__init__([*dict.fromkeys([*first, *drawn])])
