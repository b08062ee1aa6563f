"""The snapshots beside the suites of a run, brought up to date with its results."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records import reconcile
from pytest_shark_tune.records.diff import describe_change, diff, view_of
from pytest_shark_tune.records.snapshot import read_records, replace_spec, snapshot_draft
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.records.verification import Verification
from pytest_shark_tune.results.run_results import RunResults

__all__ = ["SnapshotChange", "update_snapshot"]


@dataclass(frozen=True)
class SnapshotChange:
    """A snapshot before a run and after it: its text, empty without one, and its records."""

    path: Path
    old: tuple[str, tuple[WinnerRecord, ...]]
    new: tuple[str, tuple[WinnerRecord, ...]]
    gone: frozenset[str] = frozenset()
    """The names of dispatches that are in the suite no more."""
    unchecked: frozenset[str] = frozenset()
    """The dispatches whose winner was not written, because not all ``untried`` tests of whole sources had a result."""
    untried: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Entries that failed beside the others when the snapshot was verified, with the reasons.

    An entry without a record goes by its matcher after an ``@``.
    """
    problem: str = ""
    """The reason why nothing could be written."""

    @property
    def is_unwritten(self) -> bool:
        """Whether there was no snapshot, and still is none."""
        return not self.old[0] and not self.new[0]

    def describe(self) -> tuple[str, ...]:
        """Return a line for each entry that changed or could not be updated; nothing if all is as it was."""
        lines = self._changed()
        if self.problem:
            lines += (f"not updated: {self.problem}",)
        lines += tuple(f"left out: {name}: {why}" for name, why in self.left_out.items())
        if self.unchecked:
            names, untried = ", ".join(sorted(self.unchecked)), ", ".join(sorted(self.untried))
            why = f"{untried} gave no result, and only what holds in the whole is written; run that as well"
            lines += (f"not updated with {names}: {why}",)
        return lines

    def _changed(self) -> tuple[str, ...]:
        if self.old == self.new:
            return ()
        if not self.old[0]:
            return ("new snapshot",)
        try:
            changes = diff(view_of("before", *self.old), view_of("now", *self.new))
        except InputError as error:
            return (f"what there was before cannot be read: {error}",)
        lines = tuple(
            describe_change(change) + (": its dispatch is in the suite no more" if change.name in self.gone else "")
            for change in changes
        )
        return lines or ("measured again, with the same configs",)


def update_snapshot(
    path: Path,
    plans: Mapping[str, Plan],
    results: RunResults,
    winners: Mapping[str, WinnerRecord],
    verification: Verification,
    *,
    removable: Collection[WinnerRecord],
    begins: bool,
) -> SnapshotChange:
    """Bring the snapshot of a suite up to date with the winners that passed all tests of whole sources.

    Entries of dispatches that the run did not decide on stay as they are.

    Args:
        path: the snapshot.
        plans: the plans of the suite by key.
        results: the results of the run.
        winners: the records of the winners that were not dropped, by dispatch.
        verification: verifies the snapshot before it is written.
        removable: the entries that are removed if their dispatch is in the suite no more.
        begins: whether this run writes a snapshot where there is none.

    Raises:
        OSError: it cannot be read or written.
    """
    own, untried = reconcile.first_tasks(plans.values()), reconcile.untried_tests(plans, results.checks)
    old, problem, left_out = _state(path), "", {}
    gone: list[WinnerRecord] = []
    if not any(untried.values()):
        gone = [record for record in old[1] if record in removable and reconcile.is_gone(record, plans.values())]
    decided = [task for name, task in own.items() if results.is_decided(name) and not untried[name]]
    if decided or gone:
        left = [record for record in old[1] if record not in gone]
        decisions = []
        for task in decided:
            # A kept entry stays as this suite has it: another suite may have tuned the dispatch apart.
            winner = winners.get(task.name)
            kept = reconcile.entry_of_task(task, left) if winner and task.name in results.kept else None
            now = (
                reconcile.as_it_is_now(kept, task)
                if kept
                else winner and reconcile.with_ops(winner, results.in_chosen_forms(task))
            )
            decisions.append((task, now))
        records = [record for record in reconcile.updated(left, decisions) if record.root is not None]
        try:
            draft = snapshot_draft(path, records)
            if draft.text != old[0]:
                settled = verification.settle(draft, plans)
                draft, left_out, problem = settled.draft, dict(settled.dropped), settled.problem
            if not problem:
                replace_spec(path, draft, records)
        except InputError as error:
            problem = str(error)
    new = {name for name in own if name in winners and winners[name].root is not None} - results.kept.keys()
    unchecked = new - {task.name for task in decided} if old[0] or begins else set()
    return SnapshotChange(
        path,
        old,
        _state(path),
        gone=frozenset(record.dispatch for record in gone),
        unchecked=frozenset(unchecked),
        untried=frozenset(test for name in unchecked for test in untried[name] or {"the final"}),
        left_out=left_out,
        problem=problem,
    )


def _state(snapshot: Path) -> tuple[str, tuple[WinnerRecord, ...]]:
    """A snapshot's text, empty without one, and its records."""
    text = snapshot.read_text(encoding="utf-8", errors="replace") if snapshot.is_file() else ""
    return text, read_records(snapshot)
