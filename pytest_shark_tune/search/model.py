"""A search that learns: trees on features of configs predict their times and their failures.

Times of configs have cliffs and depend on products of knobs. Trees on logarithms of products model both, and are cheap.
(Breiman, *Random forests*, 2001; Geurts, Ernst, Wehenkel, *Extremely randomized trees*, 2006; expected
improvement from trees as in Hutter, Hoos, Leyton-Brown, *Sequential model-based optimization*, 2011.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.cost import Costs
from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.features import Column, Features, features_of, for_trees
from pytest_shark_tune.search.forest import Forest
from pytest_shark_tune.search.improvement import expected_improvement
from pytest_shark_tune.search.protocol import Progress
from pytest_shark_tune.search.table import ConfigTable

__all__ = ["ModelSearch", "PriorResult"]

Rows = npt.NDArray[np.intp]

_START = 12
"""The number of configs that fill the space; prior results replace half of them."""

_UPFRONT = 6
"""The number of proposals before the model's first: it already finds much with half of the start."""

_FILL_EVERY = 3
"""From then on, one of so many proposals fills the space, until the start is used up."""

_BESIDE = 2
"""The number of nearest configs to try for each config in ``near``."""

_FEWEST_RESULTS = 4
"""The fewest measured configs for a model."""

_FEWEST_PRIOR = 24
"""The fewest measured prior results that are used. They include results of the same run for similar dispatches."""

_TREES = 48
_POOL = 4096
"""The number of rows that a model evaluates for one answer, besides the neighbours of the best."""

_MOST_MODELLED = 64
"""The most rows of one answer that the model chooses; the rest is drawn."""

_FAIR_TRIAL = 30
_FAIR_SHARE = 0.4
"""Until a pipeline has had ``_FAIR_TRIAL`` proposals, this share goes to the pipeline with the fewest."""

_EXPLORED_SHARE = 0.06
"""The share of proposals with the most uncertain predictions."""

_LEADERS = 3
_NEIGHBOURS = 24
"""The number of nearest configs of a leader that are always evaluated."""

_STEP_SHARE = 0.4
_STEPS_UNTIL = 64
"""Until there are ``_STEPS_UNTIL`` results, this share of proposals changes one knob of the best config.

With few results the trees see no difference between most of the configs, and the best of those next to the best config
is a better guess. It is what local searches live on.
"""

_LAST_SHARE = 0.1
"""The last part of the budget, which is spent next to the best configs."""

_LIKELIEST_FAILURE = 0.98
_MOST_REGISTERS = 8.0
"""The most results per thread, as a logarithm to base 2.

A thread has 255 registers on NVIDIA's GPUs, and 256 besides those of a wave's operands on AMD's. (CUDA C++ Programming
Guide, compute capabilities; CDNA 3 ISA, accumulation VGPRs.)
"""

_SPILLED = 0.1
"""The chance that a config with more results is useful: they go to memory and back in every step."""

_SMALLEST = 1e-12
_LEAST_SPREAD = 0.02
"""The least difference of ratios, relative to the best, that can be distinguished."""


class PriorResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a config of a similar dispatch: the same kind of op on the same device."""

    pipeline: str
    knobs: Mapping[str, int]
    ratio: float | None
    seconds: float | None = None
    facts: ProblemFacts = ProblemFacts()


class ModelSearch(Progress):
    """Expected improvement over a forest that is partly replaced with every answer."""

    def __init__(
        self,
        table: ConfigTable,
        seed: int = 0,
        *,
        facts: ProblemFacts | None = None,
        near: Sequence[tuple[str, Mapping[str, int]]] = (),
        prior: Callable[[], Sequence[PriorResult]] = tuple,
        budget: int | None = None,
        by_time: bool = False,
        first: Sequence[int] = (),
    ) -> None:
        """Prepare a search.

        Args:
            table: The configs.
            seed: The seed of random choices.
            facts: The facts of the problem and the device.
            near: Configs of known time, such as the compiler's default if its knobs are known, as pairs of a pipeline
                and knobs. The configs nearest to them are tried after ``first``.
            prior: Returns results of similar dispatches. It is called when the first config is asked for. The results
                choose half of the first configs, and the expectations from them are further features.
            budget: The number of configs that will be asked for, if known. The last of them go next to the best.
            by_time: Whether time is the limit instead of the number of configs. A config with a high expected cost must
                then promise a proportionally higher gain.
            first: The rows to begin with.
        """
        super().__init__(len(table))
        self._random = np.random.default_rng(seed)
        self._pipelines = table.pipelines
        self._knobs = np.nan_to_num(table.values, nan=-1.0)
        self._budget = budget
        features = features_of(table, facts)
        self._scale = _Scale(features.values)
        self._places = self._scale.places(features.values)
        self._features = features
        self._seed = seed
        self._prior = prior
        self._near = list(first)
        for config in near:
            place = self._scale.places(features_of(ConfigTable.of([config]), facts, features.names).values)
            nearest = np.argsort(_distances(self._places, place[0]), kind="stable")[: _BESIDE + 1].tolist()
            self._near += [row for row in nearest if table.knobs(row) != config[1]][:_BESIDE]
        self._learned = for_trees(features.values)
        self._prospects = _prospects(features)
        self._costs = Costs(features, table.pipelines, self._learned, seed + 2) if by_time else None
        self._start: list[int] | None = None
        self._required: set[int] = set()
        self._taken = 0
        self._values = Forest(_TREES, seed)
        self._failures = Forest(_TREES // 2, seed + 1)
        self._nearest: dict[int, list[int]] = {}
        self._gain = math.inf

    def ask(self, count: int) -> list[int]:
        """Return the first rows, then those with the highest expected gain, with the rest of the start among them."""
        if self._start is None:
            self._start = self._first_rows()
        filling = self.propose(self._due(self._start, count))
        missing = min(count - len(filling), self.left)
        return filling + self.propose(self._propose(missing) if missing > 0 else [])

    def _due(self, start: list[int], count: int) -> list[int]:
        """Take the rows of the start that are among the next ``count`` proposals."""
        has_model = np.count_nonzero(~np.isnan(self.log_ratios)) >= _FEWEST_RESULTS
        due: list[int] = []
        # Rows of a prior may be wrong about the space, so the model begins as late as without them.
        own = len(self.proposed) - self._taken
        for number in range(own, own + count):
            while start and start[0] in self.proposed:
                start.pop(0)
            fills = number < _UPFRONT or not has_model or number % _FILL_EVERY == 0
            if start and (fills or start[0] in self._required):
                due.append(start.pop(0))
        return due

    @property
    def expected_gain(self) -> float:
        """The highest expected gain of a config at the last answer."""
        return self._gain if self.left else 0.0

    def take(self, row: int) -> None:
        """Count a row as proposed, in place of the last of those that fill the space."""
        if self._start is None:
            self._start = self._first_rows()
        if len(self._start) > len(self._near):
            self._start.pop()
        self._taken += 1
        self.propose([row])

    def is_proposed(self) -> npt.NDArray[np.bool_]:
        """Return for each row whether it was proposed."""
        proposed = np.zeros(self.count, dtype=np.bool_)
        proposed[list(self.proposed)] = True
        return proposed

    def _first_rows(self) -> list[int]:
        """Return the rows to begin with. Prior results are read only now, since they may never be needed."""
        first = list(self._near)
        prior = _Learned.of(self._features, self._prior())
        if self._costs is not None:
            known = ~np.isnan(prior.seconds)
            self._costs.learn_elsewhere(prior.rows[known], prior.seconds[known])
        if np.count_nonzero(~np.isnan(prior.nearness)) >= _FEWEST_PRIOR:
            expected = prior.expected(self._learned, self._seed)
            self._learned = np.hstack([self._learned, expected.astype(np.float32)])
            first += self._best_expected(expected, _START // 2)
        self._required.update(first)
        return self._fill_up(first, _START)

    def _best_expected(self, expected: Column, count: int) -> list[int]:
        """Return the rows with the highest expectations from prior results, the best of each part of the space."""
        promise = expected.prod(axis=1)
        order = np.argsort(-promise, kind="stable")[: 8 * count]
        return [int(part[0]) for part in np.array_split(order, count) if len(part)]

    def _fill_up(self, rows: Sequence[int], count: int) -> list[int]:
        """Return ``rows`` and further rows that fill the space.

        A row is drawn with a probability proportional to its squared distance from the nearest previous row, as
        k-means++ draws its centres. Expensive rows are drawn less often.
        """
        chosen = list(dict.fromkeys(rows))
        pool = self._random.permutation(len(self._places))[:_POOL]
        distances = np.full(len(pool), 1.0)
        costs = self._costs_of(pool)
        prospects = self._prospects[pool] ** 2
        for index in chosen:
            distances = np.minimum(distances, _distances(self._places[pool], self._places[index]))
        while len(chosen) < count and distances.any():
            # Costs are squared like distances, since guessed costs spread less than true ones.
            chances = distances / costs**2 * prospects
            following = int(pool[self._random.choice(len(pool), p=chances / chances.sum())])
            away = _distances(self._places[pool], self._places[following])
            distances = np.minimum(distances, away) if chosen else away
            chosen.append(following)
        return chosen

    def _propose(self, count: int) -> list[int]:
        rows = np.array(self.indices, dtype=np.intp)
        results = np.array(self.log_ratios)
        measured = ~np.isnan(results)
        if measured.sum() < _FEWEST_RESULTS:
            return [int(index) for index in self._left(count)]
        leaders = rows[measured][np.argsort(-results[measured], kind="stable")[:_LEADERS]]
        neighbours = self._neighbours(leaders)
        steps = self._steps(int(leaders[0])) if len(rows) < _STEPS_UNTIL else leaders[:0]
        pool = np.union1d(np.union1d(neighbours, steps), self._left(_POOL))
        targets = _nearness(results[measured])
        self._learn_costs(share=min(1.0, count / 3))
        self._values.learn(self._learned[rows[measured]], targets, share=min(1.0, count / 3))
        votes = self._values.predict(self._learned[pool])
        succeeds = self._success(rows, ~measured, pool) * self._prospects[pool]
        costs = self._costs_of(pool)
        chosen: list[int] = []
        while len(chosen) < min(count, _MOST_MODELLED, len(pool)):
            # After the first choice, half of the trees vote, so that the rows of one answer differ.
            judges = votes[self._random.permutation(len(votes))[: len(votes) // 2]] if chosen else votes
            centre, spread = judges.mean(axis=0), judges.std(axis=0) + _LEAST_SPREAD
            gains = np.where(np.isin(pool, chosen), -1.0, expected_improvement(centre, spread, best=1.0) * succeeds)
            if not chosen:
                # Ratios to the best near 1 have the scale of their logarithms.
                self._gain = float(gains.max())
            # Chosen rows have a negative gain, also after division by their cost.
            doubts = spread * succeeds / costs
            chosen.append(int(pool[self._choice(gains / costs, doubts, pool, neighbours, steps, chosen)]))
        # Rows of one answer cannot learn from each other, so beyond some number they are drawn.
        further = self._left(count + len(chosen)).tolist() if len(chosen) < count else []
        return list(dict.fromkeys([*chosen, *further]))[:count]

    def _choice(
        self, gains: Column, doubts: Column, pool: Rows, neighbours: Rows, steps: Rows, chosen: list[int]
    ) -> int:
        """Return the position in ``pool`` of the next proposal, which usually has the largest gain.

        Some proposals go to the pipeline with the fewest, so that no pipeline is given up because of its first few
        configs. Some change one knob of the best config, and some go to the most uncertain configs. The last of a
        budget go next to the best.
        """
        taken = np.isin(pool, chosen)
        if self._budget is not None and len(self.proposed) >= self._budget * (1 - _LAST_SHARE):
            near = np.isin(pool, neighbours) & ~taken
            return int(np.argmax(np.where(near, gains, -1.0) if near.any() else gains))
        proposed = np.bincount(self._pipelines[[*self.proposed, *chosen]], minlength=self._pipelines.max() + 1)
        possible = np.unique(self._pipelines[pool[~taken]])
        fewest = possible[np.argmin(proposed[possible])]
        if len(possible) > 1 and proposed[fewest] < _FAIR_TRIAL and self._random.random() < _FAIR_SHARE:
            return int(np.argmax(np.where(self._pipelines[pool] == fewest, gains, -1.0)))
        if len(steps) and self._random.random() < _STEP_SHARE:
            is_step = np.isin(pool, steps) & ~taken
            if is_step.any():
                return int(np.argmax(np.where(is_step, gains, -1.0)))
        if self._random.random() < _EXPLORED_SHARE:
            return int(np.argmax(np.where(taken, -1.0, doubts)))
        return int(np.argmax(gains))

    def _neighbours(self, leaders: Rows) -> Rows:
        """Return rows that were not proposed and are among the nearest to one of ``leaders``."""
        proposed = self.proposed
        near: set[int] = set()
        for leader in leaders.tolist():
            if leader not in self._nearest:
                self._nearest[leader] = np.argsort(_distances(self._places, self._places[leader]), kind="stable")[
                    1 : _NEIGHBOURS + 1
                ].tolist()
            near.update(index for index in self._nearest[leader] if index not in proposed)
        return np.array(sorted(near), dtype=np.intp)

    def _steps(self, leader: int) -> Rows:
        """Return rows that were not proposed and differ from ``leader`` in one knob."""
        differs = np.count_nonzero(self._knobs != self._knobs[leader], axis=1)
        same = self._pipelines == self._pipelines[leader]
        return np.flatnonzero((differs == 1) & same & ~self.is_proposed())

    def _left(self, count: int) -> Rows:
        """Draw up to ``count`` rows that were not proposed."""
        return self._random.permutation(np.flatnonzero(~self.is_proposed()))[:count]

    def _learn_costs(self, share: float) -> None:
        if self._costs is not None:
            seconds = np.array(self.seconds)
            known = ~np.isnan(seconds)
            self._costs.learn(np.array(self.indices)[known].tolist(), seconds[known].tolist(), share=share)

    def _costs_of(self, rows: Rows) -> Column:
        """Return the expected costs of ``rows``, all 1 if time is not the limit."""
        return np.ones(len(rows)) if self._costs is None else self._costs.of(rows)

    def _success(self, rows: Rows, failed: npt.NDArray[np.bool_], pool: Rows) -> Column:
        """Return the probability that a row of ``pool`` can be measured, for all rows."""
        if not failed.any():
            return np.ones(len(pool))
        self._failures.learn(self._learned[rows], failed.astype(np.float64), share=1 / 3)
        return np.asarray(1 - _LIKELIEST_FAILURE * self._failures.predict(self._learned[pool]).mean(axis=0))


class _Scale:
    """Scales columns to mean 0 and spread 1, and absent values to 0, so that distances weight all features alike."""

    def __init__(self, values: Column) -> None:
        self._centre = np.nanmean(values, axis=0)
        self._spread = np.maximum(np.nanstd(values, axis=0), _SMALLEST)

    def places(self, values: Column) -> Column:
        """Return ``values`` on this scale."""
        return np.asarray(np.nan_to_num((values - self._centre) / self._spread, nan=0.0))


class _Learned(msgspec.Struct, frozen=True):
    """Prior results in the form for trees, one per row."""

    rows: npt.NDArray[np.float32]
    """The features."""
    nearness: Column
    """The ratios to the best of the dispatch, NaN for failures."""
    seconds: Column
    """The times of trying, NaN if unknown."""

    @classmethod
    def of(cls, features: Features, prior: Sequence[PriorResult]) -> _Learned:
        """Convert prior results to ``features``. Dispatches without a measured result are left out."""
        by_facts: dict[bytes, list[PriorResult]] = {}
        for result in prior:
            by_facts.setdefault(msgspec.msgpack.encode(result.facts), []).append(result)
        rows, nearness, seconds = [np.zeros((0, len(features.names)))], [np.zeros(0)], [np.zeros(0)]
        for group in by_facts.values():
            unique = {(result.pipeline, *sorted(result.knobs.items())): result for result in group}
            ratios = [result.ratio for result in unique.values()]
            results = np.array([math.nan if ratio is None else math.log(ratio) for ratio in ratios])
            if np.isnan(results).all():
                continue
            table = ConfigTable.of((result.pipeline, result.knobs) for result in unique.values())
            rows.append(features_of(table, group[0].facts, features.names).values)
            # The possible gain over the default differs between dispatches, so only the order carries over.
            results[~np.isnan(results)] = _nearness(results[~np.isnan(results)])
            nearness.append(results)
            seconds.append(np.array([result.seconds or math.nan for result in unique.values()]))
        return cls(for_trees(np.vstack(rows)), np.concatenate(nearness), np.concatenate(seconds))

    def expected(self, asked: npt.NDArray[np.float32], seed: int) -> Column:
        """Return the expectations of forests on these results: the ratio to the best and the chance to be measured."""
        failed = np.isnan(self.nearness)
        values = Forest(_TREES, seed)
        values.learn(self.rows[~failed], self.nearness[~failed])
        failures = Forest(_TREES // 2, seed)
        failures.learn(self.rows, failed.astype(np.float64))
        return np.column_stack([values.predict(asked).mean(axis=0), 1 - failures.predict(asked).mean(axis=0)])


def _prospects(features: Features) -> Column:
    """Return the chances of configs before any was tried: whether the results of a thread fit in its registers."""
    if "results per thread" not in features.names:
        return np.ones(len(features.values))
    results = np.nan_to_num(features.values[:, features.names.index("results per thread")])
    return np.where(results > _MOST_REGISTERS, _SPILLED, 1.0)


def _distances(places: Column, place: Column) -> Column:
    return np.asarray(((places - place) ** 2).sum(axis=1))


def _nearness(results: Column) -> Column:
    """Return ratios to the best: the order of log-ratios, with more weight near the best."""
    return np.asarray(np.exp(results - results.max()))
