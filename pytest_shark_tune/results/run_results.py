"""The results of a run, in memory: its spec, its summary and its snapshots derive from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec

from pytest_shark_tune.plan.types import AnyTask, Plan, Task
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.reconcile import with_ops
from pytest_shark_tune.records.types import FinalRecord, Record, SourceCheck, SpecRecord, State, WinnerRecord
from pytest_shark_tune.records.winner import provisional_winner
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.search_space.candidate import DEFAULT_ID

__all__ = ["RunResults"]


@dataclass
class RunResults:
    """The results so far, by the dispatch or the plan that they are of."""

    plans: dict[str, Plan] = field(default_factory=dict)
    """Plans by key."""
    tasks: dict[str, AnyTask] = field(default_factory=dict)
    """Dispatches and kernels by name, as the first plan has them."""
    plan_of: dict[str, Plan] = field(default_factory=dict)
    """That first plan by the dispatch's name."""
    records: defaultdict[str, dict[str, Record]] = field(default_factory=lambda: defaultdict(dict))
    """The records of each dispatch by the candidate's id."""
    finals: dict[str, FinalRecord] = field(default_factory=dict)
    """Finals by dispatch."""
    checks: dict[tuple[str, str], SpecRecord] = field(default_factory=dict)
    """The verification of the spec, by the plan's key and the name of the model, empty for ``[spec]``."""
    forms: dict[str, tuple[str, FormRecord]] = field(default_factory=dict)
    """The chosen form of each model, with the key of its plan, by the model's name."""
    kept: dict[str, WinnerRecord] = field(default_factory=dict)
    """Entries of snapshots that stand as winners, by dispatch."""

    def add_plan(self, key: str, plan: Plan) -> None:
        """Add a plan and its dispatches, unless an earlier plan has them."""
        self.plans[key] = plan
        for task in plan.everything:
            self.tasks.setdefault(task.name, task)
            self.plan_of.setdefault(task.name, plan)

    def add(self, result: TestResult) -> None:
        """Add the result of one test; of two results of a candidate, a final or a model the later one counts."""
        if result.record is not None:
            self.records[result.record.dispatch][result.record.id] = result.record
        if result.final is not None:
            self.finals[result.final.dispatch] = result.final
        if result.form is not None:
            self.forms[result.form.model] = result.plan, result.form
        if result.spec is not None:
            self.checks[result.plan, result.spec.model] = result.spec

    def final(self, name: str) -> FinalRecord | None:
        """Return the final of a dispatch, or a provisional one from its records; ``None`` if nothing was faster."""
        if name in self.finals:
            return self.finals[name]
        best = provisional_winner(self.records[name].values())
        return FinalRecord.provisional(best, self.tasks[name]) if best is not None else None

    def winner(self, name: str, fingerprint: str, candidates: int) -> WinnerRecord | None:
        """Return the record of a dispatch's winner.

        Args:
            name: the dispatch's name.
            fingerprint: the environment fingerprint.
            candidates: the number of candidates that were tried.
        """
        if name in self.kept:
            return self.kept[name]
        final, task = self.final(name), self.tasks[name]
        if final is None or final.winner is None:
            return None
        winner = WinnerRecord.of(final, self.records[name][final.winner])
        winner = msgspec.structs.replace(winner, fingerprint=fingerprint, candidates=candidates)
        return with_ops(winner, self.in_chosen_forms(task)) if isinstance(task, Task) else winner

    def in_chosen_forms(self, task: Task) -> Task:
        """The dispatch with its members in sources that are left: of a model with forms, the chosen form's."""
        lost = {
            source.name
            for key, record in self.forms.values()
            for source in self.plans[key].sources
            if source.model_name == record.model and source.name != record.source
        }
        members = [member for member in task.dispatch.members if member.source not in lost]
        return task.with_members(members) if members else task

    def is_decided(self, name: str) -> bool:
        """Return whether a final speaks for or against an entry: not if the default failed, or there was no time."""
        final, default = self.finals.get(name), self.records[name].get(DEFAULT_ID)
        if final is None or (final.is_provisional and final.winner is None):
            return False
        return default is None or default.state is State.MEASURED

    @property
    def dropped(self) -> dict[str, str]:
        """The entries that the run's own tests dropped, with the reasons."""
        return {name: reason for check in self.checks.values() for name, reason in check.dropped.items()}

    @property
    def sources(self) -> tuple[SourceCheck, ...]:
        """The check of each source. A measurement end to end takes the place of earlier checks."""
        checked = {(key, source.source): source for (key, _), check in self.checks.items() for source in check.sources}
        return tuple(checked.values())

    @property
    def unsteady(self) -> int:
        """The number of records and finals for which the machine changed its speed while they were measured."""
        notes = [record.note for known in self.records.values() for record in known.values()]
        return sum(map(bool, [*notes, *(final.note for final in self.finals.values())]))
