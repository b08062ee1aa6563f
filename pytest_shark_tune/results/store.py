"""The ledger: what a run found out, kept where the run is controlled; records, summary, spec and snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import AnyTask, KernelTask, Plan, Task
from pytest_shark_tune.records.draft import Draft, draft_of_winners
from pytest_shark_tune.records.reconcile import SnapshotChange, as_it_is_now, entry_of_task, is_gone, updated, with_ops
from pytest_shark_tune.records.snapshot import (
    entry_of,
    locked,
    read_records,
    replace_spec,
    snapshot_path,
    unrecorded,
    write_spec,
)
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, SourceCheck, SpecRecord, State, WinnerRecord
from pytest_shark_tune.records.winner import provisional_winner
from pytest_shark_tune.results.finding import Finding
from pytest_shark_tune.results.funnel import funnel_of
from pytest_shark_tune.results.summary import DispatchSummary, RunSummary, Summary, coverage_of_spec
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.manifest import Collected, Coverage
from pytest_shark_tune.tuning.verification import Verification, Verify

__all__ = ["DispatchSummary", "Ledger", "RunSummary", "Summary"]


class _Entry(msgspec.Struct, frozen=True):
    """A dispatch with its candidates, as the plan sees it that had it first."""

    task: AnyTask
    plan: str


class Ledger:
    """Takes findings as they come, writes them down at once, and derives the rest from them at the end.

    ``load_plan`` gets a plan by its key. ``setting`` is a hash of what the run's figures depend on besides the
    dispatch. ``failures`` are what could not be written down; what this process knows is not lost with it. Where the
    run does not make specs (``makes_specs``), since that takes the compiler, it leaves none. Folders of suites are
    relative to ``root``. Records and finals go to the folder ``mirror`` as well, for workers that do not see ``out``.
    """

    def __init__(
        self,
        out: Path,
        load_plan: Callable[[str], Plan],
        *,
        target: str,
        device: str,
        device_slug: str,
        versions: dict[str, str],
        starter: str | None,
        setting: str = "",
        makes_specs: bool = True,
        root: Path = Path(),
        mirror: Path | None = None,
    ) -> None:
        self._out = out
        self._load_plan = load_plan
        self._target = target
        self._device = device
        self._slug = device_slug
        self._versions = versions
        self._starter = starter
        self._setting = setting
        self._makes_specs = makes_specs
        self._root = root
        self._folders = (out, *([mirror] if mirror is not None else []))
        self._started = time.monotonic()
        self._plans: dict[str, Plan] = {}
        self._tasks: dict[str, _Entry] = {}
        self._records: dict[str, dict[str, Record]] = {}
        self._finals: dict[str, FinalRecord] = {}
        self._checks: dict[tuple[str, str], SpecRecord] = {}
        self._kept: dict[str, WinnerRecord] = {}
        self._suites: dict[str, dict[str, None]] = {}
        self._collected = Collected()
        self._at_first: dict[str, tuple[WinnerRecord, ...]] = {}
        self._earlier_spec: Coverage | None = None
        self._changes: list[SnapshotChange] = []
        self._begun = False
        self.failures: list[OSError] = []

    @property
    def records_path(self) -> Path:
        """Where each candidate's record goes, as it comes."""
        return self._out / "records.jsonl"

    @property
    def finals_path(self) -> Path:
        """Where each final goes, as it comes."""
        return self._out / "finals.jsonl"

    @property
    def summary_path(self) -> Path:
        """Where the summary goes."""
        return self._out / "summary.json"

    @property
    def spec_path(self) -> Path:
        """Where the merged spec goes."""
        return self._out / "spec.mlir"

    @property
    def tasks(self) -> tuple[AnyTask, ...]:
        """What this run tunes."""
        return tuple(entry.task for entry in self._tasks.values())

    @property
    def has_findings(self) -> bool:
        """Whether the run found out anything; until then nothing is written."""
        return self._begun

    @property
    def snapshots(self) -> tuple[Path, ...]:
        """The snapshots of the suites of this run that exist."""
        paths = {self.snapshot_of(suite) for suite in self._suites if suite}
        return tuple(sorted(path for path in paths if path.exists()))

    def snapshot_of(self, suite: str) -> Path:
        """Where a suite's snapshot for the run's target and device is."""
        return snapshot_path(self._root / suite, self._target, self._slug)

    @property
    def changes(self) -> tuple[SnapshotChange, ...]:
        """What the run made of the snapshots beside its suites, once it is finished."""
        return tuple(self._changes)

    def add_plan(self, key: str, suite: str) -> None:
        """Take note of what a test tunes."""
        self._suites.setdefault(suite, {})[key] = None
        if key in self._plans:
            return
        self._plans[key] = self._load_plan(key)
        for task in self._plans[key].everything:
            self._tasks.setdefault(task.name, _Entry(task, key))

    def add_collected(self, collected: Collected) -> None:
        """Take note of what was collected: an entry that is in none of the plans of a whole suite is gone.

        Only entries that are in a snapshot by now: one that another run adds later may be of a test that is new.
        """
        self._collected = collected
        self._at_first = {suite: read_records(self.snapshot_of(suite)) for suite in collected.whole}

    def keep(self, plan: str, record: WinnerRecord) -> None:
        """Let an entry of a snapshot stand as the winner of its dispatch, which is in ``plan``."""
        self._kept[record.dispatch] = record
        suite = next(suite for suite, keys in self._suites.items() if plan in keys)
        self.take(Finding(plan=plan, suite=suite, final=_final_of(record)))

    def take(self, finding: Finding) -> None:
        """Write down what a test found out; see ``failures``."""
        self.add_plan(finding.plan, finding.suite)
        if not self._begun:
            self._begun = True
            self._earlier_spec = coverage_of_spec(self.spec_path, self.summary_path)
            # What an earlier run left is not this run's. Its spec stays until this run has one of its own.
            for stale in (self.records_path, self.finals_path, self.summary_path):
                with self._noting_failure():
                    stale.unlink(missing_ok=True)
        if finding.record is not None:
            self._records.setdefault(finding.record.dispatch, {})[finding.record.id] = finding.record
            self._append(self.records_path.name, finding.record)
        if finding.final is not None:
            self._finals[finding.final.dispatch] = finding.final
            self._append(self.finals_path.name, finding.final)
        if finding.spec is not None:
            self._checks[finding.plan, finding.spec.model] = finding.spec

    def _append(self, name: str, line: Record | FinalRecord) -> None:
        for folder in self._folders:
            with self._noting_failure():
                journal.append(folder / name, line)

    def plan(self, key: str) -> Plan:
        """The plan of that key."""
        return self._plans.get(key) or self._load_plan(key)

    def records(self, dispatch: str) -> tuple[Record, ...]:
        """The records of a dispatch so far."""
        return tuple(self._records.get(dispatch, {}).values())

    def task(self, dispatch: str) -> AnyTask:
        """The task of that name."""
        return self._tasks[dispatch].task

    def time_us(self, dispatch: str) -> float | None:
        """Microseconds of all calls of a dispatch as its models run, where that was measured."""
        entry = self._tasks[dispatch]
        return self._plans[entry.plan].time_us(entry.task)

    def finish(
        self,
        *,
        complete: bool,
        why_stopped: Callable[[str], str] = lambda dispatch: "",
        effort: Callable[[str], int] = lambda dispatch: 0,
        verify: Verify | None = None,
    ) -> Summary:
        """Derive and write summary, spec and snapshots; ``complete`` says that no test was left unrun.

        ``why_stopped`` says why no more of a dispatch's candidates were tried, ``effort`` how many of them had their
        chance. Dispatches whose final was never run get a provisional winner from their records. ``verify``, if it is
        given, verifies what is about to be written and was not verified by the run's tests: one of them may have
        dropped an entry, and a snapshot may have others.

        A run that leaves out tests keeps the spec of one that left out fewer. A file that cannot be written stays as it
        was, and the others are written all the same; see ``failures``.
        """
        dropped = {name: reason for check in self._checks.values() for name, reason in check.dropped.items()}
        finals = {name: self._finals.get(name) or self._provisional(entry.task) for name, entry in self._tasks.items()}
        found = {name: self._winner(entry.task, finals[name], effort(name)) for name, entry in self._tasks.items()}
        won = {name: winner for name, winner in found.items() if winner is not None}
        verification = Verification(self._plans, self._tasks.keys(), self._checks, verify)
        coverage = self._collected.coverage if complete else Coverage.TESTS
        self._settle(verification, won, dropped)
        self._write_snapshots(verification, won, dropped)
        draft = self._settle(verification, won, dropped)
        winners = {name: winner for name, winner in won.items() if name not in dropped}
        keeps_spec = self._keeps_spec(coverage, draft)
        if not keeps_spec:
            with self._noting_failure():
                records = sorted(winners.values(), key=lambda winner: winner.dispatch)
                write_spec(self.spec_path, _of_draft(draft, records), draft.starter or None)
        rows = []
        for name, entry in self._tasks.items():
            untried = why_stopped(name) or "its test was deselected or came to no result"
            if not complete:
                untried = "the run ended early"
            if name in self._kept:
                untried = "the entry of the snapshot is kept"
            rows.append(self._row(entry.task, finals[name], winners.get(name), dropped.get(name, ""), untried))
        summary = Summary(
            run=RunSummary(
                versions=self._versions,
                target=self._target,
                device=self._device,
                seconds=round(time.monotonic() - self._started, 3),
                complete=complete,
                unsteady=self._unsteady(),
                coverage=coverage,
                spec_coverage=(self._earlier_spec if keeps_spec else coverage) if self.spec_path.exists() else None,
                keeps_spec=keeps_spec,
            ),
            dispatches=tuple(rows),
            sources=self._sources(),
            untunable=tuple(each for plan in self._plans.values() for each in plan.untunable),
            left_out=tuple(each for plan in self._plans.values() for each in plan.left_out),
            dropped=dropped,
            profiles=tuple(each for plan in self._plans.values() for each in plan.profiles),
            unprofiled={name: why for plan in self._plans.values() for name, why in plan.unprofiled.items()},
        )
        with self._noting_failure():
            journal.replace_file(self.summary_path, msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
        return summary

    def _settle(self, verification: Verification, won: Mapping[str, WinnerRecord], dropped: dict[str, str]) -> Draft:
        """The draft of ``spec.mlir``, verified in each plan whose ``[spec]`` ran; adds to what is ``dropped``."""
        own = [each for each in won.values() if each.root is not None and self._makes_specs]
        draft = draft_of_winners(own, self._starter or "").without(dropped)
        if not draft.entries:
            return Draft(())
        settled = verification.settle(draft, [key for key, model in self._checks if not model])
        dropped |= settled.dropped
        return settled.draft if settled.draft.entries else Draft(())

    def _keeps_spec(self, coverage: Coverage, draft: Draft) -> bool:
        """Whether the spec that an earlier run left stays: this one makes none, or knows less than that one did."""
        if self._earlier_spec is None:
            return False
        says_nothing = coverage is Coverage.TESTS and not draft.entries
        return not self._makes_specs or says_nothing or coverage.is_less_than(self._earlier_spec)

    def _sources(self) -> tuple[SourceCheck, ...]:
        """How each source fares: what was measured end to end stands for what was said of it before."""
        told = {(plan, source.source): source for (plan, _), check in self._checks.items() for source in check.sources}
        return tuple(told.values())

    def _unsteady(self) -> int:
        records = sum(bool(each.note) for known in self._records.values() for each in known.values())
        return records + sum(bool(each.note) for each in self._finals.values())

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failures.append(error)

    def _provisional(self, task: AnyTask) -> FinalRecord | None:
        best = provisional_winner(self.records(task.name))
        if best is None:
            return None
        return FinalRecord(
            dispatch=best.dispatch,
            root=task.dispatch.root if isinstance(task, Task) else None,
            weight=task.weight,
            finalists=(
                Finalist(
                    id=best.id,
                    state=best.state,
                    samples_us=best.samples_us,
                    ratio=best.ratio,
                    ratio_low=best.ratio_low,
                    ratio_high=best.ratio_high,
                ),
            ),
            baseline_samples_us=best.baseline_samples_us,
            winner=best.id,
            reason="provisional: the run ended before the finalists were measured again",
            compilation_info=task.candidate(best.id).compilation_info,
            provisional=True,
            device=best.device,
            target=best.target,
            iree=best.iree,
        )

    def _winner(self, task: AnyTask, final: FinalRecord | None, effort: int) -> WinnerRecord | None:
        if task.name in self._kept:
            return self._kept[task.name]
        if final is None or final.winner is None:
            return None
        winner = WinnerRecord.of(final, self._records[final.dispatch][final.winner])
        winner = msgspec.structs.replace(winner, setting=self._setting, candidates=effort)
        return with_ops(winner, task) if isinstance(task, Task) else winner

    def _row(
        self, task: AnyTask, final: FinalRecord | None, winner: WinnerRecord | None, dropped: str, untried: str
    ) -> DispatchSummary:
        name = task.name
        records = self._records.get(name, {})
        default = records.get(task.default.id)
        is_kept = name in self._kept
        funnel = funnel_of(
            [candidate.id for candidate in task.candidates],
            records,
            {each.id for each in final.finalists} if final and not final.provisional and not is_kept else None,
            untried=untried,
        )
        baseline = final.baseline_samples_us if final and final.baseline_samples_us else None
        if baseline is None and default is not None:
            baseline = default.baseline_samples_us
        if winner is None and default is not None and default.state is not State.MEASURED:
            reason = f"the default config failed: {default.state}: {default.reason}"
        else:
            all_tried = funnel.tried == funnel.generated
            without_final = "no final was held" if all_tried else "its candidates were not all tried"
            reason = dropped or (final.reason if final else without_final)
        return DispatchSummary(
            name=name,
            weight=task.weight,
            baseline_us=_median(baseline),
            best_us=_median(winner.samples_us) if winner else None,
            speedup=winner.ratio if winner else None,
            speedup_low=winner.ratio_low if winner else None,
            speedup_high=winner.ratio_high if winner else None,
            generated=funnel.generated,
            tried=funnel.tried,
            compiled=funnel.compiled,
            applied=funnel.applied,
            ran=funnel.ran,
            correct=funnel.correct,
            measured=funnel.measured,
            finalists=funnel.finalists,
            winner=winner.id if winner else None,
            reason=reason,
            space=task.space_size,
            knobs=winner.knobs if winner else None,
            is_custom=isinstance(task, KernelTask),
            share=self._plans[self._tasks[name].plan].share(task),
            losses=funnel.losses,
        )

    def _write_snapshots(
        self, verification: Verification, won: Mapping[str, WinnerRecord], dropped: dict[str, str]
    ) -> None:
        """Bring the snapshots beside the suites up to date with the finals whose winners were verified.

        Entries of dispatches that are not in this run, or that it came to no decision on, stay as they are; those
        that are in a suite no more go where it was collected and checked as a whole. Adds to what is ``dropped``.
        """
        for suite in sorted(set(self._suites) - {""}):
            with self._noting_failure(), locked(self.snapshot_of(suite)):
                winners = {name: winner for name, winner in won.items() if name not in dropped}
                change = self._write_snapshot(suite, verification, winners)
                dropped |= {name: why for name, why in change.left_out.items() if name in winners}
                self._changes.append(change)

    def _write_snapshot(
        self, suite: str, verification: Verification, winners: Mapping[str, WinnerRecord]
    ) -> SnapshotChange:
        path, own, untried = self.snapshot_of(suite), self.tasks_of(suite), self._untried(suite)
        old, problem, left_out = _state(path), "", {}
        gone = self._gone(suite, old[1]) if not any(untried.values()) else []
        decided = [task for task in own.values() if self._is_decided(task) and not untried[task.name]]
        if decided or gone:
            left = [each for each in old[1] if each not in gone]
            decisions = [(task, self._entry_in_suite(task, winners.get(task.name), left)) for task in decided]
            records = [each for each in updated(left, decisions) if each.root is not None]
            try:
                draft = Draft(tuple(map(entry_of, records)), unrecorded(path))
                if draft.text != old[0]:
                    settled = verification.settle(draft, self._suites[suite])
                    draft, left_out, problem = settled.draft, dict(settled.dropped), settled.problem
                if not problem:
                    replace_spec(path, _of_draft(draft, records), draft.starter)
            except InputError as error:
                problem = str(error)
        unchecked = self._new_in(own, winners) - {task.name for task in decided}
        if not old[0] and not self._makes_specs:
            unchecked = set()  # It is for another run to begin a snapshot.
        return SnapshotChange(
            path,
            old,
            _state(path),
            gone=frozenset(each.dispatch for each in gone),
            unchecked=frozenset(unchecked),
            untried=frozenset(what for name in unchecked for what in untried[name] or {"the final"}),
            left_out=left_out,
            problem=problem,
        )

    def _gone(self, suite: str, old: Iterable[WinnerRecord]) -> list[WinnerRecord]:
        """The entries of a suite's snapshot whose dispatch is in the suite no more, where all of it was collected."""
        plans = [self._plans[key] for key in self._suites[suite]]
        known = self._at_first.get(suite, ()) if any(plan.tasks for plan in plans) else ()
        return [each for each in old if each in known and is_gone(each, plans)]

    def tasks_of(self, suite: str) -> dict[str, Task]:
        """The dispatches of a suite by name, each as the first test of the suite has it."""
        own: dict[str, Task] = {}
        for key in self._suites[suite]:
            for task in self._plans[key].tasks:
                own.setdefault(task.name, task)
        return own

    def _untried(self, suite: str) -> dict[str, set[str]]:
        """The tests that try the entry of a suite's dispatch in a whole source and told nothing, by dispatch."""
        found: dict[str, set[str]] = {}
        for key in self._suites[suite]:
            plan = self._plans[key]
            models = {each.name for each in plan.models}
            for task in plan.tasks:
                used = models & {member.source for member in task.dispatch.members}
                tests = {"": f"[{Role.SPEC}]", **{model: f"[{model}-{Role.END_TO_END}]" for model in used}}
                untried = {test for model, test in tests.items() if (key, model) not in self._checks}
                found.setdefault(task.name, set()).update(untried)
        return found

    def _is_decided(self, task: Task) -> bool:
        """Whether there is a final; where the default fails there is nothing that speaks against an entry."""
        default = self._records.get(task.name, {}).get(DEFAULT_ID)
        return task.name in self._finals and (default is None or default.state is State.MEASURED)

    def _entry_in_suite(
        self, task: Task, winner: WinnerRecord | None, old: Sequence[WinnerRecord]
    ) -> WinnerRecord | None:
        """The record for the snapshot of a suite whose dispatch won: what was kept there, or what the run found out."""
        if winner is None:
            return None
        kept = entry_of_task(task, old) if task.name in self._kept else None
        return as_it_is_now(kept, task) if kept else with_ops(winner, task)

    def _new_in(self, own: Mapping[str, Task], winners: Mapping[str, WinnerRecord]) -> set[str]:
        """The dispatches of a suite whose winners are this run's, and can be in a spec."""
        return {name for name in own if name in winners and winners[name].root is not None} - set(self._kept)


def _state(snapshot: Path) -> tuple[str, tuple[WinnerRecord, ...]]:
    """A snapshot's text, empty where there is none, and its records."""
    text = snapshot.read_text(encoding="utf-8", errors="replace") if snapshot.is_file() else ""
    return text, read_records(snapshot)


def _final_of(record: WinnerRecord) -> FinalRecord:
    """The final that a kept entry won once, as far as its record tells."""
    finalist = Finalist(
        id=record.id,
        state=record.state,
        samples_us=record.samples_us,
        ratio=record.ratio,
        ratio_low=record.ratio_low,
        ratio_high=record.ratio_high,
    )
    return FinalRecord(
        dispatch=record.dispatch,
        root=record.root,
        weight=record.weight,
        finalists=(finalist,),
        baseline_samples_us=record.baseline_samples_us,
        winner=record.id,
        reason=f"kept: nothing changed since it was tuned (IREE {record.iree})",
        compilation_info=record.compilation_info,
        device=record.device,
        target=record.target,
        iree=record.iree,
    )


def _of_draft(draft: Draft, records: Iterable[WinnerRecord]) -> list[WinnerRecord]:
    """Those of ``records``, which are in the draft's order, that are of its entries."""
    return [record for record in records if record.dispatch in draft.configs]


def _median(samples: tuple[float, ...] | None) -> float | None:
    return float(np.median(samples)) if samples else None
