"""Extremely randomised trees that are renewed a part at a time, so that learning costs little with every answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Forest"]

_FEATURE_SHARE = 0.6


class Forest:
    """An ensemble of ``size`` regression trees, each grown on all results that there are when it is planted.

    `sklearn.ensemble` spends more on managing trees than on growing them where there are a hundred rows.
    """

    def __init__(self, size: int, seed: int, *, smallest_leaf: int = 1) -> None:
        self._size = size
        self._smallest_leaf = smallest_leaf
        self._random = np.random.default_rng(seed)
        self._trees: list[Any] = []

    def learn(
        self,
        rows: npt.NDArray[np.float32],
        targets: npt.NDArray[np.float64],
        *,
        weights: npt.NDArray[np.float64] | None = None,
        share: float = 1.0,
    ) -> None:
        """Replace a ``share`` of the trees, the oldest first, by ones that know these results."""
        from sklearn.tree import ExtraTreeRegressor

        missing = self._size - len(self._trees)
        count = max(missing, round(self._size * share), 1)
        for seed in self._random.integers(1 << 31, size=count):
            tree = ExtraTreeRegressor(
                max_features=_FEATURE_SHARE, min_samples_leaf=self._smallest_leaf, random_state=int(seed)
            )
            tree.fit(rows, targets, sample_weight=weights, check_input=False)
            self._trees.append(tree.tree_)
        del self._trees[: len(self._trees) - self._size]

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What each tree says of each row: an array of shape ``(size, len(rows))``."""
        return np.stack([tree.predict(rows)[:, 0] for tree in self._trees])
