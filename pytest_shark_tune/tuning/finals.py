"""Finals: measure the fastest candidates of a dispatch again, and declare a winner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.rounds import combine_rounds, is_decided, usual_spread
from pytest_shark_tune.measurement.timing import FINAL, FINAL_ROUNDS, MOST_ROUNDS, Measurement, Policy
from pytest_shark_tune.plan.costs import slow_sources
from pytest_shark_tune.plan.types import AnyTask, Plan, Stage, Step, Task
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record
from pytest_shark_tune.records.winner import (
    FINALISTS,
    choose_finalists,
    declare_winner,
    provisional_winner,
    simplicity,
)
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.model.final import ModelFinal
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.runner import Entrants, RoundResult, Runner

__all__ = ["Finals", "PlayRound"]

_NO_TIME = "provisional: there was no time for its final (--tune-time), and no candidate is faster for sure"
_LEAST_GAIN = 0.005
"""A dispatch whose fastest candidate may save less than this part of its models' time gets no final."""
_BEHIND = 1.2
"""A form that the best candidates leave so many times as slow as another one gets no finals of its own."""
_FEWEST_ROUNDS = 2
_USUAL_ROUNDS = 8
_SHORT_S, _FEW_FINALISTS = 6.0, 2
"""A final with less time than this measures fewer finalists."""
_MOST_FINALISTS = 3 * FINALISTS
"""How many candidates take their turn in a final whose finalists all fail."""
_LEAST_ROUND_S, _LOADING_S = 0.25, 0.3
"""The least time that a round measures a dispatch, and the time that it takes to load and check it."""

PlayRound = Callable[[Sequence[str], int], RoundResult]
"""Plays a round of a final with the candidates of these ids; the number is the round's."""


def _rounds(limit_s: float) -> Iterator[int]:
    """Number the rounds of finals until their time is up: at least `_FEWEST_ROUNDS`, and at most `MOST_ROUNDS`."""
    began_s = time.monotonic()
    for number in range(MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.monotonic() - began_s >= limit_s:
            return
        yield number


def _half_rounds(played: int) -> int:
    """Twice the number of rounds that finals usually take, once so many were played.

    A final that is not decided after the first of them takes all of them, as a rule.
    """
    return 2 * (_USUAL_ROUNDS if played < FINAL_ROUNDS else MOST_ROUNDS)


class _Final:
    """A final in progress.

    Args:
        finalists: The ids of the finalists, fastest first.
        limit_s: The seconds for it. If they are few, it has fewer finalists.
        others: The ids of the next candidates, fastest first. If all finalists fail, they take their places.
    """

    def __init__(self, finalists: Sequence[str], limit_s: float, others: Sequence[str] = ()) -> None:
        most = _FEW_FINALISTS if limit_s < _SHORT_S else len(finalists)
        self.rounds: dict[str, list[Measurement]] = {name: [] for name in finalists[:most]}
        self._others = [*finalists[most:], *others]
        self.failed: dict[str, CandidateFailed] = {}
        self.is_cut = len(finalists) > most
        self.rounds_played = 0
        self._is_decided = False

    @property
    def going(self) -> list[str]:
        """The finalists that have not failed."""
        return [name for name in self.rounds if name not in self.failed]

    def joined(self, usual: float = 0.0) -> dict[str, Measurement]:
        """The measurements of those, all rounds together.

        Args:
            usual: The spread of other finals, which counts if this one had too few rounds to know its own.
        """
        usual = usual if self.rounds_played < FINAL_ROUNDS else 0.0
        return {name: combine_rounds(self.rounds[name], usual=usual) for name in self.going if self.rounds[name]}

    @property
    def is_over(self) -> bool:
        """Whether another round would change nothing."""
        return not self.going or self.rounds_played >= MOST_ROUNDS or self._is_decided

    def add(self, played: RoundResult) -> None:
        """Take in a round."""
        self.rounds_played += 1
        self.failed |= played.failed
        for name, measurement in played.measured.items():
            self.rounds[name].append(measurement)
        known = [self.rounds[name] for name in played.measured]
        self._is_decided = self.rounds_played >= FINAL_ROUNDS and is_decided(known)
        if not self.going and self._others:
            # A candidate is tried in one dispatch of a group, and may fail in another one.
            following, self._others = self._others[:FINALISTS], self._others[FINALISTS:]
            self.rounds |= {name: [] for name in following}
            self.rounds_played = 0


def _policy_for(share_s: float) -> Policy:
    """The policy of a round for a dispatch whose final may take ``share_s`` seconds."""
    budget_s = min(FINAL.budget_s, max(_LEAST_ROUND_S, share_s / FINAL_ROUNDS - _LOADING_S))
    return msgspec.structs.replace(FINAL, budget_s=budget_s)


@dataclass(frozen=True)
class Finals:
    """Holds the finals of one process of a run."""

    run: RunDirectory
    """Has the records of all candidates."""
    database: TuningDatabase
    """Has the finals that earlier runs held."""
    runner: Runner
    """Measures finalists by themselves."""
    model_final: ModelFinal
    """Measures finalists in a model."""
    budget: TimeBudget
    """The time of the run."""
    devices: int
    """How many devices hold finals at a time."""
    report: Callable[[str], None]
    """Gets a message about work that takes long."""
    with_code: Callable[[AnyTask, FinalRecord], FinalRecord]
    """Adds the machine code of the winner to a final."""

    def finalists(self, task: AnyTask) -> tuple[str, ...]:
        """The ids of the candidates that are measured again, fastest first."""
        return choose_finalists(
            self._records(task), incumbent=self.run.incumbent(task.name), starter=self.run.starter(task.name)
        )

    def _final(self, task: AnyTask, limit_s: float) -> _Final:
        finalists = self.finalists(task)
        # A custom kernel belongs to no group, and its own stages have built the finalists alone.
        ranked = choose_finalists(self._records(task), _MOST_FINALISTS) if isinstance(task, Task) else ()
        return _Final(finalists, limit_s, [name for name in ranked if name not in finalists])

    def hold(self, task: Task, plan: Plan) -> FinalRecord:
        """Return the final of a dispatch of ``plan``, which is held together with those of its other dispatches.

        A round has one fresh process, in which all dispatches have their turn. Every finalist is checked, on new inputs
        in each round, in every dispatch that the spec entry will match. If time is short, there are fewer rounds and
        finalists. None is held for a gain that its models would not show. With several devices, each holds the finals
        of a part of the dispatches.

        Raises:
            CandidateFailed: the default cannot be compiled or run.
        """
        finalists, incumbent = self.finalists(task), self.run.incumbent(task.name)
        if not incumbent and finalists and (why := self._why_none(task, plan)):
            return FinalRecord.from_rounds(task, [], None, (None, why), self.runner.origin)

        def hold() -> FinalRecord:
            if not finalists:
                return self._record(task, (), {}, {})
            found = {record.dispatch: record for record in self._held_together(task, plan)}
            # The default of one that is missing failed, and fails again.
            return found.get(task.name) or self.hold_by(task, partial(self.runner.round, task))

        return self.database.final(task, finalists, incumbent, hold)

    def _held_together(self, task: Task, plan: Plan) -> tuple[FinalRecord, ...]:
        """The finals of a dispatch and of those that are held with it, the same in all processes of a run."""
        parts = max(1, self.devices)
        part = next(number for number, known in enumerate(plan.tasks) if known.name == task.name) % parts
        together = plan.tasks[part::parts]
        names = [(known.name, self.finalists(known)) for known in together]
        key = content_key("finals together", [source.content for source in plan.sources], names)

        def hold() -> tuple[FinalRecord, ...]:
            asked = [
                known
                for known, (_, finalists) in zip(together, names, strict=True)
                if finalists
                and (self.run.incumbent(known.name) or not self._why_none(known, plan))
                and not self.database.has_final(known, finalists, self.run.incumbent(known.name))
            ]
            limit_s = self._limit_s(asked, plan)
            if limit_s > 0:
                return tuple(self._hold_all(asked, plan, limit_s))
            return tuple(map(self._without_final, asked))

        return self.run.cache.get_or_make("finals", key, tuple[FinalRecord, ...], hold)

    def _hold_all(self, tasks: Sequence[Task], plan: Plan, limit_s: float) -> Iterator[FinalRecord]:
        """Hold the finals of dispatches in rounds over all of them."""
        share_s = limit_s / max(1, len(tasks))
        policy = _policy_for(share_s)
        finals = {task.name: self._final(task, share_s) for task in tasks}
        by_name = {task.name: task for task in tasks}
        tried = {task.name: self._tried_on_edges(task) for task in tasks}
        going = dict(finals)
        for number in _rounds(limit_s):
            count = "1 dispatch" if len(going) == 1 else f"{len(going)} dispatches"
            text = f"round {number + 1} of at most {MOST_ROUNDS}, {count}"
            self.report(Step(text, Stage.FINALS, 2 * number, _half_rounds(number)))
            asked = [
                Entrants(by_name[name], final.going, tried[name], is_first=not final.rounds_played)
                for name, final in going.items()
            ]
            for name, played in self.runner.round_of_all(asked, number, policy).items():
                if isinstance(played, CandidateFailed):
                    del going[name], finals[name]
                    continue
                finals[name].add(played)
                if finals[name].is_over or self._cannot_show(finals[name], plan.share(by_name[name])):
                    del going[name]
            if not going:
                break
        for final in going.values():
            final.is_cut = True
        usual = usual_spread(rounds for final in finals.values() for rounds in final.rounds.values())
        return (self._record_of(by_name[name], final, usual) for name, final in finals.items())

    def _tried_on_edges(self, task: Task) -> frozenset[str]:
        """The candidates whose trials went to the end, so that their results were compared on special values."""
        return frozenset(record.id for record in self._records(task) if record.ratio_low)

    def _cannot_show(self, final: _Final, share: float | None) -> bool:
        """Whether no finalist can save a part of the model's time that would show."""
        if share is None or final.rounds_played < _FEWEST_ROUNDS + 1:
            return False
        most = max((measured.ratio_high for measured in final.joined().values()), default=1.0)
        return most > 1 and share * (1 - 1 / most) < _LEAST_GAIN

    def _without_final(self, task: Task) -> FinalRecord:
        """The record of a dispatch for whose final there is no time."""
        if best := provisional_winner(self._records(task)):
            return FinalRecord.provisional(best, task)
        record = FinalRecord.from_rounds(task, [], None, (None, _NO_TIME), self.runner.origin)
        return msgspec.structs.replace(record, is_provisional=True)

    def _records(self, task: AnyTask) -> list[Record]:
        """The records of the candidates of a dispatch, as far as its plan has them."""
        # Another suite with the same dispatch may have drawn other candidates.
        known = {*task.ids}
        return [record for record in self.run.records_by_dispatch().get(task.name, ()) if record.id in known]

    def _why_none(self, task: Task, plan: Plan) -> str:
        """The reason why a final is not worth its time; empty if it is."""
        if plan.forms:
            by_dispatch = self.run.records_by_dispatch().items()
            ratios = {name: max(1.0, *(record.ratio or 0.0 for record in records)) for name, records in by_dispatch}
            if {member.source for member in task.dispatch.members} <= slow_sources(plan, ratios, _BEHIND):
                return "only forms have it that the best candidates leave behind another form: no final was held"
        share = plan.share(task)
        most = max((record.ratio_high or 0.0 for record in self._records(task)), default=0.0)
        if share is None or most <= 1 or share * (1 - 1 / most) >= _LEAST_GAIN:
            return ""
        return f"the fastest candidate would save less than {_LEAST_GAIN:.1%} of the model's time: no final was held"

    def _limit_s(self, tasks: Sequence[Task], plan: Plan) -> float:
        """The seconds for the finals of these dispatches: their part of the time that is left for all of them."""
        left_s = self.budget.for_finals_s(plan.models_s)
        if left_s == math.inf:
            return left_s
        held = {final.dispatch for final in journal.read(self.run.finals, FinalRecord)}
        hopeful = {
            name
            for name, records in self.run.records_by_dispatch().items()
            if any(record.id != DEFAULT_ID and (record.ratio_high or 0) > 1 for record in records)
        }
        waiting = hopeful - held | {task.name for task in tasks}
        return left_s * min(1.0, len(tasks) * max(1, self.devices) / max(1, len(waiting)))

    def hold_in_model(self, task: Task, plan: Plan) -> FinalRecord:
        """Hold the final in the model of ``plan`` that the dispatch is part of.

        Raises:
            InputError: the dispatch is not part of one function that can be run.
        """
        names = self.finalists(task)
        source, played = self.model_final.play(task, plan, names)
        record = self._record(task, names, played.measured, played.failed)
        note = f"compared in the whole of {source.name}"
        return msgspec.structs.replace(record, note="; ".join(filter(None, [note, record.note])))

    def hold_by(self, task: AnyTask, play: PlayRound, *, limit_s: float = math.inf) -> FinalRecord:
        """Play rounds until they decide, and declare a winner.

        A final that ran out of time is provisional. It has at least two rounds.

        Args:
            task: the dispatch or kernel.
            play: plays a round.
            limit_s: the seconds that the final may take.
        """
        final = self._final(task, limit_s)
        for _ in _rounds(limit_s):
            if final.is_over:
                break
            final.add(play(final.going, final.rounds_played))
        final.is_cut |= not final.is_over
        return self._record_of(task, final)

    def _record_of(self, task: AnyTask, final: _Final, usual: float = 0.0) -> FinalRecord:
        """The record of a final, which is provisional if the time cut it."""
        record = self._record(task, tuple(final.rounds), final.joined(usual), final.failed)
        if not (final.is_cut and final.going):
            return record
        cut = f"provisional: its final was cut after {record.rounds} rounds (--tune-time)"
        reason = "; ".join(filter(None, [cut, record.reason]))
        return msgspec.structs.replace(record, is_provisional=True, reason=reason)

    def _record(
        self,
        task: AnyTask,
        names: Sequence[str],
        measured: Mapping[str, Measurement],
        failed: Mapping[str, CandidateFailed],
    ) -> FinalRecord:
        """The record of a final of ``names``, each of which was measured or failed."""
        finalists = [Finalist.of(name, failed[name] if name in failed else measured[name]) for name in names]
        incumbent = self.run.incumbent(task.name)
        # Among equals the snapshot's own comes first: it changes for a reason only.
        verdict = declare_winner(finalists, lambda name: (name != incumbent, *simplicity(task.candidate(name).knobs)))
        combined = next(iter(measured.values()), None)
        return self.with_code(task, FinalRecord.from_rounds(task, finalists, combined, verdict, self.runner.origin))
