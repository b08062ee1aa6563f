"""The importance of knobs: how much worse the search's forest predicts once a knob's values are shuffled.

(Permutation importance: Breiman, *Random forests*, 2001.) Every prediction is for configs that its forest has not seen,
since trees that are grown to the end know the results that they learned from by heart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.features import Column, features_of, for_trees
from pytest_shark_tune.search.forest import Forest
from pytest_shark_tune.search.table import ConfigTable

__all__ = ["FEWEST_CONFIGS", "PIPELINE", "Importance", "importance_of_knobs"]

FEWEST_CONFIGS = 16
"""The fewest measured configs from which importance is computed."""
PIPELINE = "pipeline"
"""The name under which the choice of a pipeline counts as a knob."""

_FOLDS = 4
_SHUFFLES = 4
_TREES = 24


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """The importance of the knobs of a dispatch."""

    explained: float
    """The part of the variance of ratios that the forests predict; 0 or less if they predict nothing."""
    of_knobs: dict[str, float]
    """The part of the variance that is lost with each knob, the most important first; 0 at least."""


def importance_of_knobs(
    configs: Sequence[tuple[str, Mapping[str, int]]], ratios: Sequence[float], seed: int = 0
) -> Importance | None:
    """Compute the importance of knobs for the ratio to the best.

    Args:
        configs: The measured configs, as pairs of a pipeline and knobs, all different.
        ratios: Their positive ratios to the default.
        seed: The seed of the forests and of the shuffles.

    Returns:
        The importance; ``None`` if there are too few configs, or if they all have the same knobs or ratios.
    """
    if len(configs) < FEWEST_CONFIGS:
        return None
    table = ConfigTable.of(configs)
    targets = np.asarray(ratios, dtype=np.float64)
    targets = targets / targets.max()
    spread = float(targets.var())
    columns = _varying(table)
    if not columns or not spread:
        return None
    model = _Held(table, targets, seed)
    error = model.error(table)
    random = np.random.default_rng(seed)
    losses = {
        name: np.mean([model.error(_shuffled(table, name, random)) for _ in range(_SHUFFLES)]) - error
        for name in columns
    }
    ranked = sorted(losses.items(), key=lambda item: (-item[1], item[0]))
    return Importance(
        explained=1 - error / spread, of_knobs={name: max(0.0, float(loss) / spread) for name, loss in ranked}
    )


class _Held:
    """Forests, each of which learned all results but those of its fold."""

    def __init__(self, table: ConfigTable, targets: Column, seed: int) -> None:
        features = features_of(table)
        self._names = features.names
        self._targets = targets
        rows = for_trees(features.values)
        order = np.random.default_rng(seed).permutation(len(rows))
        self._folds: list[npt.NDArray[np.intp]] = np.array_split(order, _FOLDS)
        self._forests = []
        for number, fold in enumerate(self._folds):
            known = np.setdiff1d(order, fold)
            forest = Forest(_TREES, seed + number)
            forest.learn(rows[known], targets[known])
            self._forests.append(forest)

    def error(self, table: ConfigTable) -> float:
        """Return the mean squared error of the predictions for the configs of ``table``."""
        rows = for_trees(features_of(table, None, self._names).values)
        squares = [
            (forest.predict(rows[fold]).mean(axis=0) - self._targets[fold]) ** 2
            for forest, fold in zip(self._forests, self._folds, strict=True)
        ]
        return float(np.concatenate(squares).mean())


def _varying(table: ConfigTable) -> list[str]:
    """Return the names of the knobs that have several values."""
    given = (column[~np.isnan(column)] for column in table.values.T)
    names = [name for name, column in zip(table.names, given, strict=True) if len(np.unique(column)) > 1]
    return [*([PIPELINE] if len(table.pipeline_names) > 1 else []), *names]


def _shuffled(table: ConfigTable, name: str, random: np.random.Generator) -> ConfigTable:
    """Return a table in which the values of a knob are shuffled among the configs that have it."""
    if name == PIPELINE:
        return dataclasses.replace(table, pipelines=random.permutation(table.pipelines))
    position = table.names.index(name)
    values = table.values.copy()
    has_it = ~np.isnan(values[:, position])
    values[has_it, position] = random.permutation(values[has_it, position])
    return dataclasses.replace(table, values=values)
