"""A search that learns: trees on features of configs tell what to try next, and what will fail.

Configs' times have cliffs and depend on products of knobs; extremely randomised trees on logarithms of products take
to both, and cost little. (Geurts, Ernst, Wehenkel, *Extremely randomized trees*, 2006; expected improvement from
trees as in Hutter, Hoos, Leyton-Brown, *Sequential model-based optimization*, 2011.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_shark_tune.stages.search.facts import ProblemFacts
from pytest_shark_tune.stages.search.features import features_of
from pytest_shark_tune.stages.search.forest import Forest
from pytest_shark_tune.stages.search.protocol import Outcome, Progress
from pytest_shark_tune.stages.search.table import ConfigTable

__all__ = ["ModelSearch", "PriorResult"]

Column = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_START = 12
"""Configs that fill the space before there is a model; prior results take the place of half of them."""

_FEWEST_RESULTS = 4
"""Measured configs without which there is no model."""

_TREES = 48
_POOL = 4096
"""Rows that a model looks at for one answer, drawn anew each time, besides the neighbours of the best."""

_EXPLORE_EVERY = 8
"""One in this many proposals goes where the model knows least."""

_LEADERS = 3
_NEIGHBOURS = 24
"""For each of the leaders, this many of the nearest configs are always looked at."""

_LAST_SHARE = 0.1
"""The part of the budget that is spent next to the best found, at the end."""

_LIKELIEST_FAILURE = 0.98
_PRIOR_WEIGHT = 0.3
_LEAST_SPREAD = 0.02
"""Log-ratios closer than this cannot be told apart."""


class PriorResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a config of a similar dispatch gave: one of the same kind of op, on the same device."""

    pipeline: str
    knobs: Mapping[str, int]
    ratio: float | None
    facts: ProblemFacts = ProblemFacts()


class ModelSearch:
    """Expected improvement over a forest that is renewed with every answer.

    ``near`` are configs to begin next to, such as the compiler's default as far as it is known: pairs of a pipeline
    and knobs. ``prior`` are results of similar dispatches, which choose half of the first configs and stand in for
    results of this dispatch until it has its own. ``budget`` is how many configs will be asked for, if known: the
    last of them go next to the best.
    """

    def __init__(
        self,
        table: ConfigTable,
        seed: int = 0,
        *,
        facts: ProblemFacts | None = None,
        near: Sequence[tuple[str, Mapping[str, int]]] = (),
        prior: Sequence[PriorResult] = (),
        budget: int | None = None,
    ) -> None:
        self._progress = Progress(len(table))
        self._random = np.random.default_rng(seed)
        self._budget = budget
        features = features_of(table, facts)
        self._places = _standardised(features.values)
        self._learned = np.nan_to_num(features.values, nan=-8.0).astype(np.float32)
        self._values = Forest(_TREES, seed)
        self._failures = Forest(_TREES // 2, seed + 1)
        self._gain = math.inf
        self._start = self._first_rows(_START)

    def ask(self, count: int) -> list[int]:
        """Rows of the start, then those of which the model expects most."""
        chosen: list[int] = []
        while self._start and len(chosen) < count:
            index = self._start.pop(0)
            if index not in self._progress.proposed:
                chosen += self._progress.propose([index])
        missing = min(count - len(chosen), self._progress.left)
        return chosen + self._progress.propose(self._modelled(missing) if missing > 0 else [])

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Take in results; the next answer learns from them."""
        self._progress.note(outcomes)

    @property
    def stop_reason(self) -> str:
        """That all were tried, once they were."""
        return self._progress.stop_reason

    @property
    def expected_gain(self) -> float:
        """The most that the model expected of a config at the last answer."""
        return self._gain if self._progress.left else 0.0

    def _first_rows(self, count: int) -> list[int]:
        """Rows that fill the space: each drawn with a chance that grows with its distance from those before.

        (The squared distance, as k-means++ draws its centres.)
        """
        pool = self._random.permutation(len(self._places))[:_POOL]
        places = self._places[pool]
        chosen = [0]
        distances = _distances(places, places[0])
        while len(chosen) < min(count, len(pool)):
            total = distances.sum()
            if not total:
                break
            following = int(self._random.choice(len(pool), p=distances / total))
            chosen.append(following)
            distances = np.minimum(distances, _distances(places, places[following]))
        return [int(index) for index in pool[chosen]]

    def _modelled(self, count: int) -> list[int]:
        rows = np.array(self._progress.indices, dtype=np.intp)
        results = np.array(self._progress.log_ratios)
        measured = ~np.isnan(results)
        if measured.sum() < _FEWEST_RESULTS:
            return self._drawn(count).tolist()
        pool = self._pool(rows[measured], results[measured], count)
        targets = _compressed(results[measured])
        self._values.learn(self._learned[rows[measured]], targets, share=min(1.0, count / 3))
        votes = self._values.predict(self._learned[pool])
        succeeds = self._success(rows, ~measured, pool)
        best = float(targets.max())
        chosen: list[int] = []
        while len(chosen) < count:
            # Half of the trees each time, so that the choices of one answer differ.
            judges = votes[self._random.permutation(len(votes))[: len(votes) // 2 + 1]] if chosen else votes
            centre, spread = judges.mean(axis=0), judges.std(axis=0) + _LEAST_SPREAD
            gains = _expected_improvement(centre, spread, best) * succeeds
            explores = self._random.random() < 1 / _EXPLORE_EVERY
            score = spread * succeeds if explores else gains
            score[np.isin(pool, chosen)] = -math.inf
            if not chosen:
                self._gain = float(gains.max())
            chosen.append(int(pool[np.argmax(score)]))
        return chosen

    def _drawn(self, count: int) -> Rows:
        left = np.setdiff1d(np.arange(self._progress.count), np.fromiter(self._progress.proposed, dtype=np.intp))
        return self._random.permutation(left)[:count]

    def _pool(self, rows: Rows, results: Column, count: int) -> Rows:
        """Rows to choose among: a draw of those left, and the nearest to the leaders."""
        return self._drawn(max(_POOL, count))

    def _success(self, rows: Rows, failed: npt.NDArray[np.bool_], pool: Rows) -> Column:
        """For each row of ``pool`` the probability that it can be measured."""
        if not failed.any():
            return np.ones(len(pool))
        self._failures.learn(self._learned[rows], failed.astype(np.float64), share=1 / 3)
        return 1 - _LIKELIEST_FAILURE * self._failures.predict(self._learned[pool]).mean(axis=0)


def _standardised(values: Column) -> Column:
    """Columns of mean 0 and spread 1, with 0 for what is absent: distances then weigh all features alike."""
    centred = values - np.nanmean(values, axis=0)
    return np.nan_to_num(centred / np.nanstd(values, axis=0), nan=0.0)


def _distances(places: Column, place: Column) -> Column:
    return np.asarray(((places - place) ** 2).sum(axis=1))


def _compressed(results: Column) -> Column:
    """Log-ratios with those below the median drawn together: how bad the bad ones are does not matter."""
    middle = float(np.median(results))
    scale = max(float(np.quantile(results, 0.9)) - middle, _LEAST_SPREAD)
    below = np.maximum(middle - results, 0)
    return np.where(results < middle, middle - scale * np.log1p(below / scale), results)


def _expected_improvement(centre: Column, spread: Column, best: float) -> Column:
    """The mean of what a normal variable exceeds ``best`` by."""
    from scipy.special import ndtr

    distance = (centre - best) / spread
    density = np.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(spread * (distance * ndtr(distance) + density))
