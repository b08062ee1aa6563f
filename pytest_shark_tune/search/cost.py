"""What it costs to try a config: mostly the time of its compilation, which grows with what is unrolled.

A few configs cost tens of times as much as most: those are what a search whose time is short had better leave alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.features import Column, Features
from pytest_shark_tune.search.forest import Forest

__all__ = ["Costs"]


_UNROLLED = ("work per thread", "vector volume", "part volume")
"""The features that tell how much code there will be, the best first; logarithms to base 2."""

_GROWTH = 0.3
"""A config with twice the unrolled work takes 2**0.3 times as long: between 0.1 and 0.4 on recorded landscapes."""

_FURTHEST = 3.0
"""Nothing is taken for 2**3 times as dear, or cheap, as what is common for its pipeline, on that ground alone."""

_FEWEST = 8
"""Known costs without which the guess stands."""

_TREES = 24


class Costs:
    """How dear a table's rows are: guessed from what is unrolled, then learned.

    ``pipelines`` are the rows' pipelines, ``learned`` their features as trees take them.
    """

    def __init__(
        self, features: Features, pipelines: npt.NDArray[np.intp], learned: npt.NDArray[np.float32], seed: int
    ) -> None:
        self._learned = learned
        self._guessed = _guess(features, pipelines)
        self._forest = Forest(_TREES, seed)
        self._is_learned = False

    def learn(self, rows: Sequence[int], seconds: Sequence[float], *, share: float = 1.0) -> None:
        """Take in what trying ``rows`` took; too few of them change nothing."""
        if len(rows) >= _FEWEST:
            self._forest.learn(self._learned[list(rows)], np.log2(np.array(seconds)), share=share)
            self._is_learned = True

    def learn_elsewhere(self, learned: npt.NDArray[np.float32], seconds: Column) -> None:
        """Guess by what configs of similar dispatches took, whose features are ``learned``."""
        if len(seconds) >= _FEWEST:
            forest = Forest(_TREES, 0)
            forest.learn(learned, np.log2(seconds))
            self._guessed = np.exp2(forest.predict(self._learned).mean(axis=0))

    def of(self, rows: npt.NDArray[np.intp]) -> Column:
        """The expected cost of each of ``rows`` by what is common among them, and at least 1.

        Of two cheap ones the cheaper is not preferred: fast code is long code, so such a search finds less.
        """
        costs = self._guessed[rows]
        if self._is_learned:
            costs = np.exp2(self._forest.predict(self._learned[rows]).mean(axis=0))
        return np.asarray(np.maximum(costs / np.median(costs), 1.0))


def _guess(features: Features, pipelines: npt.NDArray[np.intp]) -> Column:
    """1 for what is common of a pipeline; pipelines count work in units of their own, so they are not compared."""
    name = next((name for name in _UNROLLED if name in features.names), None)
    if name is None:
        return np.ones(len(pipelines))
    unrolled = np.nan_to_num(features.values[:, features.names.index(name)])
    for code in np.unique(pipelines):
        unrolled[pipelines == code] -= np.median(unrolled[pipelines == code])
    return np.asarray(np.exp2(np.clip(_GROWTH * unrolled, -_FURTHEST, _FURTHEST)))
