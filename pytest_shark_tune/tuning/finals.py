"""Finals: measure the fastest candidates of a dispatch again, and declare a winner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, MOST_ROUNDS, Measurement, combine_rounds, is_decided
from pytest_shark_tune.plan.types import AnyTask, Plan, Task
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record
from pytest_shark_tune.records.winner import choose_finalists, declare_winner, provisional_winner, simplicity
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.model.final import ModelFinal
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.runner import RoundResult, Runner

__all__ = ["Finals", "PlayRound"]

_NO_TIME = "provisional: there was no time for its final (--tune-time), and no candidate is faster for sure"
_LEAST_GAIN = 0.005
"""A dispatch whose fastest candidate may save less than this part of its models' time gets no final."""
_FEWEST_ROUNDS = 2
_SHORT_S, _FEW_FINALISTS = 6.0, 2
"""A final with less time than this measures fewer finalists."""

PlayRound = Callable[[Sequence[str], int], RoundResult]
"""Plays a round of a final with the candidates of these ids; the number is the round's."""


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

    def finalists(self, task: AnyTask) -> tuple[str, ...]:
        """The ids of the candidates that are measured again, fastest first."""
        return choose_finalists(
            self._records(task), incumbent=self.run.incumbent(task.name), starter=self.run.starter(task.name)
        )

    def hold(self, task: Task, plan: Plan) -> FinalRecord:
        """Hold the final of a dispatch of ``plan`` in fresh processes, or return the final that an earlier run held.

        Every finalist is checked, on new inputs in each round, in every dispatch that the spec entry will match. If
        time is short, there are fewer rounds and finalists. None is held for a gain that its models would not show.
        """
        finalists, incumbent = self.finalists(task), self.run.incumbent(task.name)
        if not incumbent and finalists and (why := self._too_small(task, plan)):
            return FinalRecord.from_rounds(task, [], None, (None, why), self.runner.origin)
        limit_s = self._limit_s(plan)

        def hold() -> FinalRecord:
            if limit_s > 0:
                return self.hold_by(task, partial(self.runner.round, task), limit_s=limit_s)
            if best := provisional_winner(self._records(task)):
                return FinalRecord.provisional(best, task)
            record = FinalRecord.from_rounds(task, [], None, (None, _NO_TIME), self.runner.origin)
            return msgspec.structs.replace(record, is_provisional=True)

        return self.database.final(task, finalists, incumbent, hold)

    def _records(self, task: AnyTask) -> list[Record]:
        """The records of the candidates of a dispatch, as far as its plan has them."""
        # Another suite with the same dispatch may have drawn other candidates.
        known = {candidate.id for candidate in task.candidates}
        records = journal.read(self.run.records, Record)
        return [record for record in records if record.dispatch == task.name and record.id in known]

    def _too_small(self, task: Task, plan: Plan) -> str:
        """The reason why a final is not worth its time; empty if it is."""
        share = plan.share(task)
        most = max((record.ratio_high or 0.0 for record in self._records(task)), default=0.0)
        if share is None or most <= 1 or share * (1 - 1 / most) >= _LEAST_GAIN:
            return ""
        return f"the fastest candidate would save less than {_LEAST_GAIN:.1%} of the model's time: no final was held"

    def _limit_s(self, plan: Plan) -> float:
        """The seconds for one final: an even part of the time that is left for all of them."""
        left_s = self.budget.for_finals_s(has_models=bool(plan.models))
        if left_s == math.inf:
            return left_s
        held = {final.dispatch for final in journal.read(self.run.finals, FinalRecord)}
        records = journal.read(self.run.records, Record)
        hopeful = {record.dispatch for record in records if record.id != DEFAULT_ID and (record.ratio_high or 0) > 1}
        return left_s / max(1, len(hopeful - held))

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
        began_s = time.monotonic()
        finalists = self.finalists(task)
        most = _FEW_FINALISTS if limit_s < _SHORT_S else len(finalists)
        rounds: dict[str, list[Measurement]] = {name: [] for name in finalists[:most]}
        is_cut = len(finalists) > most
        failed: dict[str, CandidateFailed] = {}
        for number in range(MOST_ROUNDS):
            going = [name for name in rounds if name not in failed]
            if not going:
                break
            played = play(going, number)
            failed |= played.failed
            for name, measurement in played.measured.items():
                rounds[name].append(measurement)
            if number + 1 >= FINAL_ROUNDS and is_decided(rounds[name] for name in played.measured):
                break
            if number + 1 >= _FEWEST_ROUNDS and time.monotonic() - began_s >= limit_s:
                is_cut = True
                break
        joined = {name: combine_rounds(measured) for name, measured in rounds.items() if name not in failed}
        record = self._record(task, tuple(rounds), joined, failed)
        if not is_cut:
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
        return FinalRecord.from_rounds(task, finalists, combined, verdict, self.runner.origin)
