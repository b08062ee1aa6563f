"""Finals: measure the fastest candidates of a dispatch again, and declare a winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, MOST_ROUNDS, Measurement, combine_rounds, is_decided
from pytest_shark_tune.plan.types import AnyTask, Plan, Task
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record
from pytest_shark_tune.records.winner import choose_finalists, declare_winner, simplicity
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.model.final import ModelFinal
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.runner import RoundResult, Runner

__all__ = ["Finals", "PlayRound"]

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

    def finalists(self, task: AnyTask) -> tuple[str, ...]:
        """The ids of the candidates that are measured again, fastest first."""
        # Another suite with the same dispatch may have drawn other candidates.
        known = {candidate.id for candidate in task.candidates}
        records = journal.read(self.run.records, Record)
        own = (record for record in records if record.dispatch == task.name and record.id in known)
        return choose_finalists(own, incumbent=self.run.incumbent(task.name), starter=self.run.starter(task.name))

    def hold(self, task: Task) -> FinalRecord:
        """Hold the final of a dispatch in fresh processes, or return the final that an earlier run held.

        Every finalist is checked, on new inputs in each round, in every dispatch that the spec entry will match.
        """
        finalists, incumbent = self.finalists(task), self.run.incumbent(task.name)
        hold = partial(self.hold_by, task, partial(self.runner.round, task))
        return self.database.final(task, finalists, incumbent, hold)

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

    def hold_by(self, task: AnyTask, play: PlayRound) -> FinalRecord:
        """Play rounds until they decide, and declare a winner."""
        rounds: dict[str, list[Measurement]] = {name: [] for name in self.finalists(task)}
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
        joined = {name: combine_rounds(measured) for name, measured in rounds.items() if name not in failed}
        return self._record(task, tuple(rounds), joined, failed)

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
