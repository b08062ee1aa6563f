"""The task scheduler: chooses the dispatch and the candidate that are tried next, and decides when to stop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pytest_shark_tune.plan.candidates import KnobRow, knob_rows
from pytest_shark_tune.plan.costs import DispatchCost, ModelCosts
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.search import (
    ConfigTable,
    ExhaustiveSearch,
    Outcome,
    Prior,
    PriorResult,
    Search,
    make_search,
    pipeline_label,
)
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.tuning.manifest import TestEntry

__all__ = ["TaskScheduler", "TaskState", "make_task_state"]

_FIRST = 8
"""How many candidates of a dispatch are tried before gains are compared."""
_HOPE, _TYPICAL_S = 0.5, 0.4
"""The gain that is expected of a dispatch before so many were tried, and the time that a candidate takes."""
_SLOWEST_RATIO = 1e-6
_ENOUGH = 64
_LEAST_GAIN = 0.005
"""After so many candidates, a dispatch is given up if the rest is expected to gain less than this part of its time."""
_NEAR_LIMIT = 1.1
"""A dispatch is given up if its fastest config takes no more than this times the least that the device's limits leave.
"""


@dataclass
class TaskState:
    """The state of one dispatch."""

    name: str
    """The name of the dispatch."""
    weight: int
    """How many calls a better config makes faster."""
    search: Search
    """Chooses its candidates."""
    candidates: Sequence[str]
    """The ids of its candidates, in the order of the search's rows."""
    tests: Sequence[int]
    """The indices of their tests."""
    defaults: Sequence[int]
    """The indices of the tests of its default."""
    most: int
    """How many candidates are tried at most."""
    jobs: int = 1
    """How many candidates are compiled at a time."""
    in_models: DispatchCost | None = None
    """The time of all its calls in its models, if it was measured."""
    baseline_us: float | None = None
    """The time of its default, once it is measured."""
    tried: int = 0
    """How many candidates were tried."""
    spent_s: float = 0.0
    """The seconds that these took."""
    queued: deque[int] = field(default_factory=deque)
    under_way: set[int] = field(default_factory=set)
    ratios: dict[str, float | None] = field(default_factory=dict)
    rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {name: row for row, name in enumerate(self.candidates)}

    @property
    def worth(self) -> float:
        """The microseconds that the next candidate is expected to save in the whole, per second that it takes.

        It is infinite as long as there is no baseline.
        """
        if self.baseline_us is None or (self.tried < _FIRST and self.in_models is None):
            return float("inf")
        cost_us = (self.weight * self.baseline_us if self.in_models is None else self.in_models.time_us) / self.best
        # Nothing is known at first but the dispatch's share of its model. Later the search has to learn.
        gain = _HOPE if self.tried < _FIRST else self.search.expected_gain
        if self.in_models is not None:
            gain = min(gain if math.isfinite(gain) else _HOPE, max(0.0, self._most_gain))
        return cost_us * gain / (_TYPICAL_S if self.tried < _FIRST else self.spent_s / self.tried)

    @property
    def best(self) -> float:
        """The best speed so far, relative to the default; at least 1."""
        return max([1.0, *(ratio for ratio in self.ratios.values() if ratio is not None)])

    @property
    def is_behind(self) -> bool:
        """Whether only forms of its model have it that cannot win."""
        return self.in_models is not None and self.in_models.time_us <= 0

    @property
    def is_near_limit(self) -> bool:
        """Whether its fastest config leaves next to nothing of what the device's limits allow."""
        return self._most_gain <= math.log(_NEAR_LIMIT)

    @property
    def _most_gain(self) -> float:
        """The logarithm of the speed-up that the device's limits leave."""
        if self.in_models is None or not (self.in_models.time_us > 0 and self.in_models.least_us > 0):
            return math.inf
        return math.log(self.in_models.time_us / self.best / self.in_models.least_us)

    @property
    def remaining(self) -> int:
        """How many candidates may still be asked for."""
        return max(0, self.most - self.tried - len(self.under_way) - len(self.queued))

    @property
    def wants_more(self) -> bool:
        """Whether there is a candidate to try that was not handed out yet."""
        return not self.is_exhausted and bool(self.queued or (self.remaining and not self.search.stop_reason))

    @property
    def left(self) -> int:
        """How many candidates that were not handed out yet may be tried at most."""
        if not self.wants_more:
            return 0
        if self.search.stop_reason:
            return len(self.queued)
        return max(0, min(self.most, len(self.tests)) - self.tried - len(self.under_way))

    @property
    def is_exhausted(self) -> bool:
        """Whether the candidates that are left are expected to gain next to nothing."""
        if self.is_behind or self.is_near_limit:
            return True
        # Candidates that were chosen when more was expected are tried.
        if self.tried < _ENOUGH or self.search.stop_reason:
            return False
        return self.search.expected_gain * (self.most - self.tried) < _LEAST_GAIN


class TaskScheduler:
    """Chooses the candidates' tests of a run, by index into the collection.

    Defaults come first. Then the dispatch that is expected to gain most per second gets the next batch of candidates.

    Args:
        states: the dispatches.
        batch: the size of a batch. At most so many candidates are chosen ahead, to be compiled together.
        models: the costs of the dispatches in their models.
        is_spent: returns whether the time is used up.
        publish: gets the name of a dispatch and the ids of its next candidates, in order.
    """

    def __init__(
        self,
        states: Iterable[TaskState],
        *,
        batch: int,
        models: Sequence[ModelCosts] = (),
        is_spent: Callable[[], bool] = lambda: False,
        publish: Callable[[str, tuple[str, ...]], None] = lambda name, queued: None,
    ) -> None:
        self._states = {state.name: state for state in states}
        self._batch = batch
        self._models = tuple(models)
        self._is_spent = is_spent
        self._publish = publish
        self._first = deque(index for state in self._states.values() for index in state.defaults)
        self._returned: deque[int] = deque()
        self._turn: TaskState | None = None
        self._served = 0
        self._spent = False
        self._weigh()

    @property
    def is_done(self) -> bool:
        """Whether time, candidates or expected gain are used up."""
        if self._first or self._returned:
            return False
        if not any(state.wants_more for state in self._states.values()):
            return True  # The finals may take longer than the time that is left.
        self._spent = self._spent or self._is_spent()
        return self._spent

    @property
    def expected(self) -> int:
        """How many tests will be handed out at most, including those that were given back."""
        candidates = 0 if self._spent else sum(state.left for state in self._states.values())
        return len(self._first) + len(self._returned) + candidates

    def take(self) -> int:
        """The index of the next test."""
        if self._returned:
            return self._returned.popleft()
        if self._first:
            return self._first.popleft()
        if self._turn is None or not self._turn.wants_more or self._served >= self._batch:
            self._weigh()
            wanting = [state for state in self._states.values() if state.wants_more]
            self._turn, self._served = min(wanting, key=lambda state: (-state.worth, state.tried)), 0
        self._refill(self._turn)
        self._served += 1
        row = self._turn.queued.popleft()
        self._turn.under_way.add(row)
        return self._turn.tests[row]

    def give_back(self, index: int) -> None:
        """Take back a test that was not run; it is handed out next."""
        self._returned.appendleft(index)

    def pass_over(self, dispatch: str, candidate: str) -> None:
        """Count a candidate that was compiled and is not measured in this run."""
        state = self._states.get(dispatch)
        if state is not None and candidate in state.rows:
            state.under_way.discard(state.rows[candidate])
            state.tried += 1

    def tell(self, record: Record) -> None:
        """Take in the record of a candidate, or of a dispatch's default."""
        state = self._states.get(record.dispatch)
        if state is None:
            return
        if record.id == DEFAULT_ID:
            self._first = deque(index for index in self._first if index not in state.defaults)
            if record.state is State.MEASURED:
                state.baseline_us = float(np.median(record.baseline_samples_us))
            else:  # The candidates cannot be compared with anything.
                state.most = 0
                state.queued.clear()
            return
        if record.id not in state.rows:
            return
        row = state.rows[record.id]
        state.under_way.discard(row)
        state.tried += 1
        seconds = record.cost_s(state.jobs)
        state.spent_s += seconds
        # A ratio that was rounded to 0 needs a logarithm, too.
        ratio = None if record.ratio is None else max(record.ratio, _SLOWEST_RATIO)
        if record.state is State.DUPLICATE:
            # It would have taken as long as the candidate that owns its binary.
            ratio = state.ratios.get(record.duplicate_of, 1.0)
        state.ratios[record.id] = ratio
        state.search.tell([Outcome(row, ratio, seconds)])

    def why_stopped(self, name: str) -> str:
        """The reason why no more candidates of a dispatch were tried; empty if all of them were."""
        state = self._states.get(name)
        if state is None or state.tried >= len(state.tests):
            return ""
        if state.tried >= state.most:
            return "enough candidates were tried (--tune-trials)" if state.most else "its default cannot be measured"
        if state.is_behind:
            return "only forms of the model have it that cannot win any more"
        if state.is_near_limit:
            return "its time is close to the least that the limits of the device leave"
        if state.is_exhausted:
            return "no more gain is expected"
        return "the time was spent (--tune-time)" if self._spent else state.search.stop_reason

    def candidates_tried(self, name: str) -> int:
        """How many candidates of a dispatch count as tried: all that were asked for, unless the run ended early."""
        state = self._states.get(name)
        if state is None:
            return 0
        return max(state.most, state.tried) if state.is_exhausted else state.tried

    def _weigh(self) -> None:
        """Find what each dispatch of a model is worth by now."""
        ratios = {name: state.best for name, state in self._states.items() if state.in_models is not None}
        found = [model.costs(ratios) for model in self._models]
        for name in ratios:
            costs = [costs[name] for costs in found if name in costs]
            if costs:
                time_us, least_us = sum(cost.time_us for cost in costs), sum(cost.least_us for cost in costs)
                self._states[name].in_models = DispatchCost(time_us, least_us)

    def _refill(self, state: TaskState) -> None:
        """Choose the next candidates: early enough to compile them in time, late enough to learn from earlier ones."""
        wanted = min(self._batch - len(state.queued), state.remaining)
        if len(state.queued) <= self._batch // 2 and wanted > 0 and not state.is_exhausted:
            state.queued.extend(state.search.ask(wanted))
            self._publish(state.name, tuple(state.candidates[row] for row in state.queued))


def make_task_state(
    task: AnyTask,
    entries: Mapping[int, TestEntry],
    *,
    strategy: str,
    seed: int,
    most: int,
    device: str,
    jobs: int = 1,
    by_time: bool = False,
    prior: Callable[[], Sequence[PriorResult]] = tuple,
    first: Sequence[str] = (),
    in_models: DispatchCost | None = None,
    guide: Prior | None = None,
) -> TaskState:
    """Make the state of a dispatch, with the candidates that have a collected test.

    Args:
        task: the dispatch.
        entries: its tests, by index. A candidate with tests in two suites is tried once.
        strategy: the name of the search.
        seed: the seed of the search.
        most: how many candidates are tried at most.
        device: the model of the device.
        jobs: how many candidates are compiled at a time.
        by_time: whether time is limited. Then a candidate that takes long is tried only if it promises more.
        prior: returns the results of similar dispatches; called only by a search that uses them.
        first: the ids of candidates that are tried before all others.
        in_models: the time of all its calls in its models, if it is known.
        guide: the prior that fits the device, if any.
    """
    tests: dict[str, int] = {}
    for index, entry in entries.items():
        if entry.role is Role.CANDIDATE:
            tests.setdefault(entry.candidate, index)
    chosen = [candidate for candidate in knob_rows(task.candidates) if candidate.id in tests]
    facts = task.facts_on(device) if isinstance(task, Task) else None
    rows = {candidate.id: row for row, candidate in enumerate(chosen)}
    begin = [rows[name] for name in first if name in rows]
    return TaskState(
        name=task.name,
        weight=task.weight,
        search=make_search(
            strategy,
            _config_table(chosen),
            seed=seed,
            facts=facts,
            near=_near(task, chosen),
            prior=prior,
            budget=most,
            by_time=by_time,
            first=begin,
            guide=guide,
        )
        if chosen
        else ExhaustiveSearch(0),
        candidates=[candidate.id for candidate in chosen],
        tests=[tests[candidate.id] for candidate in chosen],
        defaults=[index for index, entry in entries.items() if entry.role is Role.DEFAULT],
        most=most,
        jobs=jobs,
        in_models=in_models,
    )


def _near(task: AnyTask, candidates: Sequence[KnobRow]) -> list[tuple[str, dict[str, int]]]:
    """The compiler's default in the form of a table of ``candidates``, for each space that can read it."""
    near = task.near if isinstance(task, Task) else {}
    pipelines = {candidate.space: candidate.pipeline for candidate in candidates}
    return [(pipeline_label(pipelines[space], space), knobs) for space, knobs in near.items() if space in pipelines]


def _config_table(candidates: Sequence[KnobRow]) -> ConfigTable:
    """The table of the candidates' knobs. Two spaces of one pipeline have different labels."""
    rows = ((pipeline_label(candidate.pipeline, candidate.space), candidate.knobs) for candidate in candidates)
    return ConfigTable.of(rows)
