"""The progress of a run in one line: its stage, the steps done, the time left of everything, the best so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from pytest_shark_tune.plan.roles import Phase
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.report.remaining import Event, Remaining, Workload
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.system.units import format_s

__all__ = ["RunProgress"]

_SURE = 1.05
"""A candidate whose ratio is larger for sure wins the final of its dispatch, as a rule."""
_AFTER_FINALS = (Phase.FORM_FINAL, Phase.SPEC, Phase.END_TO_END)


class RunProgress:
    """Follows a run, from its first source to its files.

    ``events`` are all changes so far. From them the estimates can be made again, see `remaining.replay`.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._search_ends_s: float | None = None
        self._remaining = Remaining()
        self._tests: Counter[Phase] = Counter()
        self._ended: Counter[Phase] = Counter()
        self._tried = 0
        self._detail = ""
        self._best: dict[str, float] = {}
        self._sure: set[str] = set()
        self.events: list[Event] = []

    @property
    def stage(self) -> Stage:
        """The present stage of the run."""
        return self._remaining.stage

    @property
    def passed_s(self) -> float:
        """The seconds since the run began."""
        return self._clock() - self._began_s

    def begin(self, budget: TimeBudget) -> None:
        """Begin the run; with a limit, its end is known from now on."""
        if budget.total_s is not None:
            self._add(Stage.EXTRACT, work=Workload(finals=0, models=0, total_s=budget.left_s))

    def begin_search(
        self, tests: Counter[Phase], budget: TimeBudget, *, ops: int, models_s: float | None, devices: int
    ) -> None:
        """Begin to try candidates; the rest of the run is known from now on.

        Args:
            tests: the number of tests of each phase.
            budget: the time of the run.
            ops: the number of single ops that are tuned.
            models_s: the seconds that whole models take at the end, 0 without models; ``None`` if unknown.
            devices: the number of devices.
        """
        self._tests = tests
        work = Workload(
            finals=tests[Phase.FINAL],
            models=sum(tests[phase] for phase in _AFTER_FINALS),
            sources=ops + tests[Phase.END_TO_END],
            forms=tests[Phase.FORM_FINAL],
            models_s=models_s,
            devices=max(1, devices),
        )
        if budget.total_s is not None:
            search_s = budget.for_trying_s(models_s)
            self._search_ends_s = self.passed_s + search_s
            finals_s = budget.for_finals_s(models_s)
            work = msgspec.structs.replace(work, search_s=search_s, finals_s=finals_s, total_s=budget.left_s)
        self._detail = "compiling the first candidates"
        self._add(Stage.SEARCH, work=work)

    def is_spent(self) -> bool:
        """Return whether the time for trying candidates is used up."""
        return self._search_ends_s is not None and self.passed_s > self._search_ends_s

    def note(self, record: Record) -> None:
        """Note a record of an earlier run: it costs no time, and may be the best so far."""
        if record.state is State.MEASURED and record.id != DEFAULT_ID and record.ratio is not None:
            self._best[record.dispatch] = max(record.ratio, self._best.get(record.dispatch, 1.0))
            if (record.ratio_low or 0.0) > _SURE:
                self._sure.add(record.dispatch)

    def add_record(self, record: Record, *, waiting: int) -> None:
        """Take in the record of a candidate; ``waiting`` candidates of all dispatches may yet be tried."""
        self.note(record)
        self._tried += 1
        best = self._best.get(record.dispatch, 1.0)
        # A search picks the luckiest of many measurements, which the final will not quite reach.
        found = f"best about {best:.1f}x" if best > 1 else "none faster yet"
        self._detail = f"{found} ({record.dispatch})"
        self._add(Stage.SEARCH, self._tried, self._tried + waiting, sure=len(self._sure))

    def add_step(self, step: Step) -> None:
        """Take in a step of a stage, as a process of the run reports it."""
        self._detail = str(step)
        self._add(step.stage, step.done, step.of)

    def add_ended(self, result: TestResult) -> None:
        """Take in the result of a test that comes after the search."""
        if result.final is not None:
            self._ended[Phase.FINAL] += 1
            # Finals of dispatches are held together, and report their rounds. Those of kernels are held one by one.
            count = (self._ended[Phase.FINAL], self._tests[Phase.FINAL]) if result.final.root is None else (0, 0)
            self._add(Stage.FINALS, *count)
            self._detail = (
                f"{result.final.dispatch}: {f'{result.final.winner} won' if result.final.winner else 'no winner'}"
            )
        elif result.form is not None or result.spec is not None:
            self._ended[Phase.SPEC] += 1
            self._add(Stage.MODELS, self._ended[Phase.SPEC], sum(self._tests[phase] for phase in _AFTER_FINALS))
            self._detail = ""

    def left_s(self) -> float | None:
        """Return about how many seconds are left of the run; ``None`` before that can be told."""
        return self._remaining.left_s(self.passed_s)

    def line(self) -> str:
        """Return the progress as one line, with the most important parts first."""
        done, of = self._remaining.steps
        done += self.stage is Stage.EXTRACT  # A step of it is reported as it begins.
        count = f" {done} of {of}" if of and self.stage in (Stage.EXTRACT, Stage.SEARCH) else ""
        left_s = self.left_s()
        left = f", about {format_s(left_s)} left" if left_s is not None and left_s >= 1 else ""
        return f"{self.stage}{count}{left}{f': {self._detail}' if self._detail else ''}"

    def _add(
        self, stage: Stage, done: float = 0, of: float = 0, *, work: Workload | None = None, sure: int | None = None
    ) -> None:
        event = Event(s=round(self.passed_s, 3), stage=stage, done=done, of=of, work=work, sure=sure)
        self._remaining.add(event)
        self.events.append(event)
