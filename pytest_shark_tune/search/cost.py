"""The cost of trying a config: mostly the time of its compilation, which grows with the unrolled code.

A few configs cost tens of times as much as most, and a search with little time should avoid them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.features import Column, Features
from pytest_shark_tune.search.forest import Forest

__all__ = ["Costs"]


_UNROLLED = ("work per thread", "vector volume", "part volume")
"""The features that predict the amount of code, the best first; logarithms to base 2."""

_GROWTH = 0.3
"""A config with twice the unrolled work takes 2**0.3 times as long; exponents on landscapes range from 0.1 to 0.4."""

_FURTHEST = 3.0
"""The guessed cost of a config is at most 2**3 times the median of its pipeline, and at least 2**-3 times."""

_FEWEST = 8
"""The fewest known costs that replace the guess."""

_TREES = 24


class Costs:
    """The costs of a table's rows: first guessed from the unrolled work, then learned."""

    def __init__(
        self, features: Features, pipelines: npt.NDArray[np.intp], learned: npt.NDArray[np.float32], seed: int
    ) -> None:
        """Guess the costs.

        Args:
            features: The features of the rows.
            pipelines: The pipelines of the rows.
            learned: The features in the form for trees.
            seed: The seed of the trees.
        """
        self._learned = learned
        self._guessed = _guess(features, pipelines)
        self._forest = Forest(_TREES, seed)
        self._is_learned = False

    def learn(self, rows: Sequence[int], seconds: Sequence[float], *, share: float = 1.0) -> None:
        """Learn from the time that trying ``rows`` took; too few rows change nothing."""
        if len(rows) >= _FEWEST:
            self._forest.learn(self._learned[list(rows)], np.log2(np.array(seconds)), share=share)
            self._is_learned = True

    def learn_elsewhere(self, learned: npt.NDArray[np.float32], seconds: Column) -> None:
        """Guess from the time of configs of similar dispatches; ``learned`` are their features."""
        if len(seconds) >= _FEWEST:
            forest = Forest(_TREES, 0)
            forest.learn(learned, np.log2(seconds))
            self._guessed = np.exp2(forest.predict(self._learned).mean(axis=0))

    def of(self, rows: npt.NDArray[np.intp]) -> Column:
        """Return the expected costs of ``rows`` relative to their median, at least 1.

        Of two cheap configs the cheaper is not preferred: fast code is long code, so such a search finds less.
        """
        costs = self._guessed[rows]
        if self._is_learned:
            costs = np.exp2(self._forest.predict(self._learned[rows]).mean(axis=0))
        return np.asarray(np.maximum(costs / np.median(costs), 1.0))


def _guess(features: Features, pipelines: npt.NDArray[np.intp]) -> Column:
    """Guess costs relative to the median of a pipeline, since pipelines count work in different units."""
    name = next((name for name in _UNROLLED if name in features.names), None)
    if name is None:
        return np.ones(len(pipelines))
    unrolled = np.nan_to_num(features.values[:, features.names.index(name)])
    for code in np.unique(pipelines):
        unrolled[pipelines == code] -= np.median(unrolled[pipelines == code])
    return np.asarray(np.exp2(np.clip(_GROWTH * unrolled, -_FURTHEST, _FURTHEST)))
