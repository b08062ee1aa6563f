"""The campaign: which dispatch, and which of its candidates, is tried next, and when enough have been; no pytest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.search import (
    ConfigTable,
    ExhaustiveSearch,
    Outcome,
    PriorResult,
    Search,
    make_search,
    pipeline_label,
)
from pytest_shark_tune.search_space.candidate import DEFAULT_ID, Candidate
from pytest_shark_tune.tuning.manifest import Part

__all__ = ["Campaign", "Quarry", "make_quarry"]

_FIRST = 8
"""How many candidates of each dispatch are tried before gains are compared."""
_SLOWEST_RATIO = 1e-6
_ENOUGH = 64
_LEAST_GAIN = 0.005
"""A dispatch of which at least that many were tried is given up where the rest is expected to gain less than this, as
a part of its time."""


@dataclass
class Quarry:
    """One dispatch in a campaign.

    ``candidates`` are the ids of those that the search chooses from, in the order of its rows, and ``tests`` the
    indices of their tests; ``defaults`` are those of its default's. ``most`` is how many are tried at most,
    and ``jobs`` how many are compiled at a time. ``in_model_us`` is the time of all its calls as its models run, where
    that was measured.
    """

    name: str
    weight: int
    search: Search
    candidates: Sequence[str]
    tests: Sequence[int]
    defaults: Sequence[int]
    most: int
    jobs: int = 1
    in_model_us: float | None = None
    baseline_us: float | None = None
    tried: int = 0
    spent_s: float = 0.0
    coming: deque[int] = field(default_factory=deque)
    under_way: set[int] = field(default_factory=set)
    ratios: dict[str, float | None] = field(default_factory=dict)
    rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {name: row for row, name in enumerate(self.candidates)}

    @property
    def worth(self) -> float:
        """What the next candidate is expected to save in the whole for each second that one takes, in microseconds.

        Without a baseline no one knows.
        """
        if self.tried < _FIRST or self.baseline_us is None:
            return float("inf")
        cost_us = self.in_model_us or self.weight * self.baseline_us
        return cost_us * self.search.expected_gain / (self.spent_s / self.tried)

    @property
    def room(self) -> int:
        """How many candidates may still be asked for."""
        return max(0, self.most - self.tried - len(self.under_way) - len(self.coming))

    @property
    def wants_more(self) -> bool:
        """Whether a candidate is to be tried that nobody has taken yet."""
        return not self.is_exhausted and bool(self.coming or (self.room and not self.search.stop_reason))

    @property
    def left(self) -> int:
        """How many candidates nobody has taken yet may be tried at most; 0 where no more is wanted."""
        if not self.wants_more:
            return 0
        if self.search.stop_reason:
            return len(self.coming)
        return max(0, min(self.most, len(self.tests)) - self.tried - len(self.under_way))

    @property
    def is_exhausted(self) -> bool:
        """Whether all that may still be chosen is expected to gain next to nothing."""
        if self.tried < _ENOUGH or self.search.stop_reason:  # What was chosen when more was expected is tried.
            return False
        return self.search.expected_gain * (self.most - self.tried) < _LEAST_GAIN


class Campaign:
    """Chooses the candidates' tests of a run, by index into the collection.

    Defaults come first. Then whoever is expected to gain most for each second gets the next ``stretch`` candidates. At
    most as many are chosen ahead, so that they can be compiled together. ``is_spent`` tells that the time is used up.
    ``announce`` is told, for a dispatch, the ids of the candidates that come next, in order.
    """

    def __init__(
        self,
        quarries: Iterable[Quarry],
        *,
        stretch: int,
        is_spent: Callable[[], bool] = lambda: False,
        announce: Callable[[str, tuple[str, ...]], None] = lambda name, coming: None,
    ) -> None:
        self._quarries = {each.name: each for each in quarries}
        self._stretch = stretch
        self._is_spent = is_spent
        self._announce = announce
        self._first = deque(index for each in self._quarries.values() for index in each.defaults)
        self._returned: deque[int] = deque()
        self._turn: Quarry | None = None
        self._served = 0
        self._spent = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more is wanted: time, candidates or expected gain are spent."""
        if self._first or self._returned:
            return False
        if not any(quarry.wants_more for quarry in self._quarries.values()):
            return True  # The finals may take what time is left, and longer: that cuts nothing short.
        self._spent = self._spent or self._is_spent()
        return self._spent

    @property
    def expected(self) -> int:
        """How many tests will be handed out at most, those that were given back included."""
        candidates = 0 if self._spent else sum(quarry.left for quarry in self._quarries.values())
        return len(self._first) + len(self._returned) + candidates

    def take(self) -> int:
        """The index of the next test."""
        if self._returned:
            return self._returned.popleft()
        if self._first:
            return self._first.popleft()
        if self._turn is None or not self._turn.wants_more or self._served >= self._stretch:
            wanting = [quarry for quarry in self._quarries.values() if quarry.wants_more]
            self._turn, self._served = min(wanting, key=lambda each: (-each.worth, each.tried)), 0
        self._refill(self._turn)
        self._served += 1
        row = self._turn.coming.popleft()
        self._turn.under_way.add(row)
        return self._turn.tests[row]

    def give_back(self, index: int) -> None:
        """Take back a test that was not run; it is the next one."""
        self._returned.appendleft(index)

    def pass_over(self, dispatch: str, candidate: str) -> None:
        """Count a candidate that was compiled, and will not be measured in this run."""
        quarry = self._quarries.get(dispatch)
        if quarry is not None and candidate in quarry.rows:
            quarry.under_way.discard(quarry.rows[candidate])
            quarry.tried += 1

    def tell(self, record: Record) -> None:
        """Take in what came of a candidate, or of a dispatch's default."""
        quarry = self._quarries.get(record.dispatch)
        if quarry is None:
            return
        if record.id == DEFAULT_ID:
            self._first = deque(index for index in self._first if index not in quarry.defaults)
            if record.state is State.MEASURED:
                quarry.baseline_us = float(np.median(record.baseline_samples_us))
            else:  # There is nothing to compare the candidates with.
                quarry.most = 0
                quarry.coming.clear()
            return
        if record.id not in quarry.rows:
            return
        row = quarry.rows[record.id]
        quarry.under_way.discard(row)
        quarry.tried += 1
        seconds = record.cost_s(quarry.jobs)
        quarry.spent_s += seconds
        # One that is rounded to nothing has a logarithm, too.
        ratio = None if record.ratio is None else max(record.ratio, _SLOWEST_RATIO)
        if record.state is State.DUPLICATE:
            # It would have taken as long as the one whose binary it shares.
            ratio = quarry.ratios.get(record.duplicate_of, 1.0)
        quarry.ratios[record.id] = ratio
        quarry.search.tell([Outcome(row, ratio, seconds)])

    def why_stopped(self, name: str) -> str:
        """Why no more candidates of a dispatch were tried, in words; empty where they all were."""
        quarry = self._quarries.get(name)
        if quarry is None or quarry.tried >= len(quarry.tests):
            return ""
        if quarry.tried >= quarry.most:
            return (
                "enough candidates were tried (--tune-candidates)" if quarry.most else "its default cannot be measured"
            )
        if quarry.is_exhausted:
            return "no more gain is expected"
        return "the time was spent (--tune-time)" if self._spent else quarry.search.stop_reason

    def effort(self, name: str) -> int:
        """How many candidates of a dispatch had their chance: all that were asked for, unless the run was cut short."""
        quarry = self._quarries.get(name)
        if quarry is None:
            return 0
        return max(quarry.most, quarry.tried) if quarry.is_exhausted else quarry.tried

    def _refill(self, quarry: Quarry) -> None:
        """Choose what comes next: early enough to be compiled meanwhile, late enough to learn from what was tried."""
        wanted = min(self._stretch - len(quarry.coming), quarry.room)
        if len(quarry.coming) <= self._stretch // 2 and wanted > 0 and not quarry.is_exhausted:
            quarry.coming.extend(quarry.search.ask(wanted))
            self._announce(quarry.name, tuple(quarry.candidates[row] for row in quarry.coming))


def make_quarry(
    task: AnyTask,
    parts: Mapping[int, Part],
    *,
    strategy: str,
    seed: int,
    most: int,
    device: str,
    jobs: int = 1,
    by_time: bool = False,
    prior: Callable[[], Sequence[PriorResult]] = tuple,
    first: Sequence[str] = (),
    in_model_us: float | None = None,
) -> Quarry:
    """The dispatch of ``task`` as a quarry of those candidates whose tests were collected.

    ``parts`` are the parts of its tests by index. Two tests of one candidate, in two suites, are one: it is tried once.
    ``jobs`` are compiled at a time. With ``by_time`` time is what is short, and what costs much of it is tried only
    where it promises more. ``prior`` gives results of similar dispatches, and is called only by a search that uses
    them. ``first`` are the ids of candidates that are tried before all others. ``in_model_us`` is the time of all its
    calls as its models run, if it is known.
    """
    tests: dict[str, int] = {}
    for index, part in parts.items():
        if part.role is Role.CANDIDATE:
            tests.setdefault(part.candidate, index)
    chosen = [candidate for candidate in task.candidates if candidate.id in tests]
    facts = task.facts_on(device) if isinstance(task, Task) else None
    rows = {candidate.id: row for row, candidate in enumerate(chosen)}
    begin = [rows[name] for name in first if name in rows]
    return Quarry(
        name=task.name,
        weight=task.weight,
        search=make_search(
            strategy,
            _table(chosen),
            seed=seed,
            facts=facts,
            near=_near(task, chosen),
            prior=prior,
            budget=most,
            by_time=by_time,
            first=begin,
        )
        if chosen
        else ExhaustiveSearch(0),
        candidates=[candidate.id for candidate in chosen],
        tests=[tests[candidate.id] for candidate in chosen],
        defaults=[index for index, part in parts.items() if part.role is Role.DEFAULT],
        most=most,
        jobs=jobs,
        in_model_us=in_model_us,
    )


def _near(task: AnyTask, candidates: Sequence[Candidate]) -> list[tuple[str, dict[str, int]]]:
    """The compiler's default as a table of ``candidates`` would have it, for each space that reads it."""
    near = task.near if isinstance(task, Task) else {}
    pipelines = {each.space: each.pipeline for each in candidates}
    return [(pipeline_label(pipelines[space], space), knobs) for space, knobs in near.items() if space in pipelines]


def _table(candidates: Sequence[Candidate]) -> ConfigTable:
    """The candidates' knobs; two spaces of one pipeline are told apart."""
    return ConfigTable.of((pipeline_label(each.pipeline, each.space), each.knobs) for each in candidates)
