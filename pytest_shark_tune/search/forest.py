"""Regression trees that are replaced in parts, so that learning costs little with every answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Forest"]

_FEATURE_SHARE = 0.5


class Forest:
    """An ensemble of ``size`` regression trees. A tree learns from all results that exist when it is made.

    Every other tree is extremely randomised: it splits at random places and sees all results. The others split at the
    best place among half of the features, and see a bootstrap sample, as in a random forest. The former model slopes
    and the latter cliffs. Together they are wrong less often, and they differ in regions with few results.

    With a hundred rows, `sklearn.ensemble` spends more time on managing trees than on growing them.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        # scikit-learn takes no newer generator. A tree that is given a seed makes one, which takes as long as the tree.
        self._splits = np.random.RandomState(seed)
        self._trees: list[Any] = []

    def learn(self, rows: npt.NDArray[np.float32], targets: npt.NDArray[np.float64], *, share: float = 1.0) -> None:
        """Replace a ``share`` of the trees, the oldest first, by trees that know these results."""
        from sklearn import config_context
        from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

        missing = self._size - len(self._trees)
        count = max(missing, round(self._size * share), 1)
        # Parameters are checked for longer than a small tree grows.
        with config_context(skip_parameter_validation=True):
            for position in range(count):
                if position % 2:
                    drawn = self._random.integers(len(rows), size=len(rows))
                    tree = DecisionTreeRegressor(max_features=_FEATURE_SHARE, random_state=self._splits)
                    tree.fit(rows[drawn], targets[drawn], check_input=False)
                else:
                    tree = ExtraTreeRegressor(max_features=1.0, random_state=self._splits)
                    tree.fit(rows, targets, check_input=False)
                self._trees.append(tree.tree_)
        del self._trees[: len(self._trees) - self._size]

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the predictions of all trees for all rows, an array of shape ``(size, len(rows))``."""
        return np.stack([tree.predict(rows)[:, 0] for tree in self._trees])
