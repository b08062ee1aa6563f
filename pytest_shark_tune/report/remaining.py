"""The time left of a whole run: the rest of the present stage at its pace, and the later stages by their work."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from pytest_shark_tune.system.steps import Stage

__all__ = ["Event", "Remaining", "Workload", "replay"]

_ROUND_S, _LOAD_S = 1.6, 0.5
"""About the seconds that a round of a final measures a dispatch, and that its process takes beside that."""
_FEWEST_ROUNDS, _ROUNDS = 2, 8
_MODEL_S, _SOURCE_S, _IDLE_S, _WRITE_S = 11.0, 18.0, 0.2, 0.5
"""About the seconds that a test of a whole model takes, its compilation included, those of an op or a model with an
entry, those of a test without an entry to try, and those of the end of the run."""
_OF_BUDGET = 0.8
"""The part of the time that a run sets aside for whole models which they take: it sets a quarter more aside."""
_USUAL_PACE_S = 1.0
"""About the seconds that a candidate takes on a machine where the others hold. Finals and models follow its root."""
_LEAST_PART = 0.02
_FEWEST_TRIED = 4
_ORDER = tuple(Stage)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a run, once its search begins."""

    finals: int
    """The number of finals."""
    models: int
    """The number of tests of whole models and of the spec."""
    sources: int = 0
    """The number of ops and models that are measured with the spec if it has an entry for them."""
    forms: int = 0
    """The number of models whose forms are compared, which takes time even if no config wins."""
    models_s: float | None = None
    """The seconds that the run sets aside for whole models; ``None`` if their times are unknown."""
    devices: int = 1
    search_s: float | None = None
    """The seconds from now on that the search may take; ``None`` for no limit."""
    finals_s: float | None = None
    """The seconds from now on until the finals must end."""
    total_s: float | None = None
    """The seconds from now on until the run must end."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a run's progress, as ``progress.jsonl`` has it."""

    s: float
    """When it came, in seconds since the run began."""
    stage: Stage
    done: float = 0.0
    """The steps of the stage that were done."""
    of: float = 0.0
    """The steps that there are, as far as known; 0 if they are not."""
    sure: int | None = None
    """The number of dispatches with a candidate that is surely faster; ``None`` in other stages than the search."""
    work: Workload | None = None
    """The work of the run, at the beginning of its search."""


class Remaining:
    """Estimates the time that is left, from the events of a run in their order."""

    def __init__(self) -> None:
        self._stage = Stage.EXTRACT
        self._began_s = 0.0
        self._part = 0.0
        self._steps = (0.0, 0.0)
        self._step_s = 0.0
        self._work: Workload | None = None
        self._work_s = 0.0
        self._pace_s = _USUAL_PACE_S
        self._sure: int | None = None

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self._stage

    @property
    def steps(self) -> tuple[int, int]:
        """How many steps of the present stage are done, and how many there are."""
        done, of = self._steps
        return int(done), int(of)

    def add(self, event: Event) -> None:
        """Take in an event. An earlier stage never comes back, since other processes may still report it."""
        if _ORDER.index(event.stage) < _ORDER.index(self._stage):
            return
        if event.stage is not self._stage:
            self._stage, self._began_s, self._part, self._steps = event.stage, event.s, 0.0, (0.0, 0.0)
        if event.work is not None:
            self._work, self._work_s = event.work, event.s
        self._sure = self._sure if event.sure is None else event.sure
        if event.of:
            self._steps, self._step_s = (event.done, event.of), event.s
            self._part = max(self._part, min(1.0, event.done / event.of))
        if event.stage is Stage.SEARCH and event.done >= _FEWEST_TRIED:
            self._pace_s = (event.s - self._began_s) / event.done

    def left_s(self, now_s: float) -> float | None:
        """Return about how many seconds are left at a time since the run began; ``None`` if nothing is known yet."""
        work = self._work
        if work is None:
            return None
        passed_s = now_s - self._work_s
        left_s = self._stage_left_s(now_s)
        if self._stage is Stage.EXTRACT or left_s is None:
            return work.total_s - passed_s if work.total_s is not None and work.total_s > passed_s else None
        place = _ORDER.index(self._stage)
        if place <= _ORDER.index(Stage.SEARCH):
            left_s = _at_most(left_s, work.search_s, passed_s) + self._finals_s(work)
        least_s = self._least_finals_s(work, now_s)
        if place <= _ORDER.index(Stage.FINALS):
            left_s = max(_at_most(left_s, work.finals_s, passed_s), least_s) + self._models_s(work)
        if place <= _ORDER.index(Stage.MODELS):
            left_s = max(_at_most(left_s, work.total_s, passed_s), least_s) + _WRITE_S
        return left_s

    def _stage_left_s(self, now_s: float) -> float | None:
        """The rest of the present stage; ``None`` before the search has tried anything."""
        passed_s = now_s - self._began_s
        if self._stage is Stage.MODELS and self._work is not None and self._steps[1]:
            return self._tests_left_s(self._work, now_s)
        if self._part >= _LEAST_PART:
            return passed_s * (1 - self._part) / self._part
        if self._work is None or self._stage in (Stage.EXTRACT, Stage.SEARCH):
            return None
        expected = {
            Stage.FINALS: self._finals_s(self._work),
            Stage.MODELS: self._models_s(self._work),
            Stage.WRITE: _WRITE_S,
        }
        return max(0.0, expected[self._stage] - passed_s)

    def _tests_left_s(self, work: Workload, now_s: float) -> float:
        """The rest of the tests of whole models: few, and each as long as expected or as those before it."""
        done, of = self._steps
        usual_s = max(self._models_s(work) / of, (self._step_s - self._began_s) / max(done, 1.0))
        return max(0.0, (of - done) * usual_s - (now_s - self._step_s))

    def _least_finals_s(self, work: Workload, now_s: float) -> float:
        """The rest of the fewest rounds, which are played even if their time is up."""
        if _ORDER.index(self._stage) < _ORDER.index(Stage.FINALS):
            is_overdue = work.total_s is not None and now_s - self._work_s >= work.total_s
            return self._finals_s(work) * _FEWEST_ROUNDS / _ROUNDS if is_overdue and self._sure != 0 else 0.0
        played = self._steps[0] / 2  # A round has two steps.
        if self._stage is not Stage.FINALS or not played:
            return 0.0
        return (now_s - self._began_s) / played * max(0.0, _FEWEST_ROUNDS - played)

    def _finals_s(self, work: Workload) -> float:
        seconds = self._slowness * _ROUNDS * (_LOAD_S + work.finals * _ROUND_S) / max(1, work.devices)
        return seconds if work.finals else 0.0

    def _models_s(self, work: Workload) -> float:
        if work.models_s and (work.forms or self._sure != 0):
            return _OF_BUDGET * work.models_s
        if self._sure is not None:  # The others do not win, as a rule, and their sources have no entry to try.
            return work.models * _IDLE_S + min(self._sure, work.sources) * _SOURCE_S
        return self._slowness * work.models * _MODEL_S

    @property
    def _slowness(self) -> float:
        """How slow the machine is, by its candidates: load and large dispatches slow the later stages, too."""
        return math.sqrt(self._pace_s / _USUAL_PACE_S)


def replay(events: Iterable[Event], at_s: float) -> float | None:
    """Return the seconds that were estimated to be left at a time since the beginning of a recorded run."""
    remaining = Remaining()
    for event in events:
        if event.s <= at_s:
            remaining.add(event)
    return remaining.left_s(at_s)


def _at_most(left_s: float, limit_s: float | None, passed_s: float) -> float:
    """The time left, if it ends by a limit since the search began."""
    return left_s if limit_s is None else min(left_s, max(0.0, limit_s - passed_s))
