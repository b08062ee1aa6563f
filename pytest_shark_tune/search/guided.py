"""A search that begins with a prior, and trusts it as far as its predictions come true."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.features import for_trees
from pytest_shark_tune.search.forest import Forest
from pytest_shark_tune.search.improvement import expected_improvement
from pytest_shark_tune.search.model import ModelSearch
from pytest_shark_tune.search.prior import Prior
from pytest_shark_tune.search.protocol import Outcome
from pytest_shark_tune.search.table import ConfigTable
from pytest_shark_tune.search.transfer import transferred

__all__ = ["GuidedSearch"]

_ON_TRUST = 4
"""The number of proposals that a prior gets before any of its predictions was tested."""
_TESTS = 2
"""The number of proposals of the search without a prior between two turns of the prior."""
_MOST = 24
"""The most proposals of a prior: own results then tell more."""
_CLEAR = 0.1
"""The difference of predicted logarithms of ratios from which the order of two configs counts as predicted."""
_FEWEST_PAIRS = 4
_CONCORDANT = 0.7
"""The share of pairs that have to be in the predicted order: chance gives 0.5."""
_TREES = 48
_RENEWED = 1 / 3
_WEIGHT = 4
"""The number of results of other shapes that an own result counts for."""
_BEST = 1.3
"""The most that the best own result is taken to exceed the predicted best."""
_LEAST = 0.02
"""The least predicted ratio to the best, and the least difference of ratios that can be distinguished."""


class GuidedSearch:
    """Puts configs that a prior expects to be fast before, and then between, those of a model search.

    The first proposals are the prior's. Then the model search proposes some from all over the space, which it would try
    anyway. If the results are in the order that the prior predicted, the prior has the next turn. Otherwise it has none
    any more, so a wrong prior costs no more than its first proposals. The model search learns from all results.
    """

    def __init__(
        self,
        own: ModelSearch,
        prior: Prior,
        table: ConfigTable,
        facts: ProblemFacts,
        *,
        seed: int = 0,
        first: Iterable[int] = (),
    ) -> None:
        """Prepare a search.

        Args:
            own: The search without the prior, over the same table.
            prior: A prior that fits the device and has results of the table's kind of op.
            table: The configs.
            facts: The facts of the problem and the device.
            seed: The seed of random choices.
            first: The rows that the model search begins with. They come before the prior's.
        """
        self._own = own
        self._before = len(list(first))
        self._random = np.random.default_rng(seed)
        self._rows = for_trees(transferred(table, facts))
        self._fits = prior.fitting_rows(table, facts)
        examples, targets = prior.examples(facts)
        self._examples, self._targets = for_trees(examples), targets
        self._forest = Forest(_TREES, seed)
        self._forest.learn(self._examples, self._targets)
        self._predicted = np.log(np.maximum(self._forest.predict(self._rows).mean(axis=0), _LEAST))
        self._results: dict[int, float] = {}
        self._learned = 0
        self._guided = 0
        self._judged = 0
        self._turn = _ON_TRUST
        self._tests = 0
        self._best = 1.0

    def ask(self, count: int) -> list[int]:
        """Return the prior's rows when it has the turn, and else those of the model search."""
        chosen: list[int] = []
        if self._before:
            chosen = self._own.ask(min(count, self._before))
            self._before -= len(chosen)
        while len(chosen) < count and self._own.left:
            guided = self._propose(min(count - len(chosen), self._turn_left()))
            tested = [] if guided else self._own.ask(min(count - len(chosen), self._tests or count))
            self._tests = max(0, self._tests - len(tested))
            chosen += guided + tested
            if not guided and not tested:
                break
        return chosen

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from results."""
        told = list(outcomes)
        self._own.tell(told)
        for outcome in told:
            self._results[outcome.index] = math.nan if outcome.ratio is None else math.log(outcome.ratio)

    @property
    def stop_reason(self) -> str:
        """The reason why nothing is left to try; empty as long as something is."""
        return self._own.stop_reason

    @property
    def expected_gain(self) -> float:
        """The expected gain of the model search."""
        return self._own.expected_gain

    def _turn_left(self) -> int:
        """Return how many rows the prior may propose now."""
        # Where many configs are asked for at once, results come later: without new ones there is no new verdict.
        is_due = len(self._results) >= self._judged + _ON_TRUST + _TESTS
        if self._turn == 0 and self._tests == 0 and 0 < self._guided < _MOST and is_due:
            is_right = self._is_right()
            if is_right is not None:
                self._judged = len(self._results)
                self._turn = min(_ON_TRUST, _MOST - self._guided) if is_right else 0
                self._guided = self._guided if is_right else _MOST
        return self._turn

    def _is_right(self) -> bool | None:
        """Return whether results are in the order that the prior predicted; failures count as the slowest.

        The answer is ``None`` if too few pairs have a predicted order.
        """
        rows = np.array([*self._results], dtype=np.intp)
        found = np.nan_to_num(np.array([*self._results.values()]), nan=-math.inf)
        predicted = self._predicted[rows]
        expected = predicted[:, None] - predicted[None, :] > _CLEAR
        pairs = int(expected.sum())
        right = int((expected & (found[:, None] > found[None, :])).sum())
        return right >= _CONCORDANT * pairs if pairs >= _FEWEST_PAIRS else None

    def _propose(self, count: int) -> list[int]:
        """Return rows with the largest expected improvement by the prior and the results so far."""
        if count <= 0:
            return []
        best = self._learn()
        left = np.flatnonzero(self._fits & ~self._own.is_proposed())
        votes = self._forest.predict(self._rows[left])
        chosen: list[int] = []
        while len(chosen) < min(count, len(left)):
            judges = votes[self._random.permutation(len(votes))[: len(votes) // 2]] if chosen else votes
            gains = expected_improvement(judges.mean(axis=0), judges.std(axis=0) + _LEAST, best)
            chosen.append(int(left[np.argmax(np.where(np.isin(left, chosen), -1.0, gains))]))
        self._guided += len(chosen)
        self._turn -= len(chosen)
        if not chosen:
            self._turn = 0
        if self._turn == 0:
            self._tests = _TESTS
        for row in chosen:
            self._own.take(row)
        return chosen

    def _learn(self) -> float:
        """Let the trees learn own results beside those of other shapes; return the best ratio among them.

        The best possible time of the dispatch is unknown. It is taken to be where most results agree with the prior.
        """
        if len(self._results) == self._learned:
            return self._best
        self._learned = len(self._results)
        rows = np.array([*self._results], dtype=np.intp)
        found = np.array([*self._results.values()])
        measured = ~np.isnan(found)
        offset = float(np.median((found - self._predicted[rows])[measured])) if measured.any() else 0.0
        own = np.where(measured, np.minimum(np.exp(np.nan_to_num(found) - offset), _BEST), 0.0)
        examples = np.vstack([self._examples, *[self._rows[rows]] * _WEIGHT])
        self._forest.learn(examples, np.concatenate([self._targets, *[own] * _WEIGHT]), share=_RENEWED)
        self._best = float(own.max(initial=_LEAST))
        return self._best
