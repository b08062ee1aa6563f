"""The result store: the results of a run, in the process that controls it, and the files that are made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_shark_tune.plan.costs import DispatchCost
from pytest_shark_tune.plan.types import AnyTask, Plan, Task
from pytest_shark_tune.records.draft import Draft, spec_of
from pytest_shark_tune.records.reconcile import first_tasks
from pytest_shark_tune.records.snapshot import locked, read_records, snapshot_path, write_draft
from pytest_shark_tune.records.types import FinalRecord, Record, WinnerRecord
from pytest_shark_tune.records.verification import Settled, Verification, Verify
from pytest_shark_tune.results.coverage import Collected, Coverage, coverage_of_spec
from pytest_shark_tune.results.form_results import write_forms, write_wrong_parts
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.results.run_results import RunResults
from pytest_shark_tune.results.snapshots import SnapshotChange, update_snapshot
from pytest_shark_tune.results.summarise import summarise
from pytest_shark_tune.results.summary import RunSummary, Summary, write_summary
from pytest_shark_tune.system import journal

__all__ = ["ResultStore", "Summary"]


class ResultStore:
    """Takes the results of tests, writes them down at once, and derives spec, summary and snapshots at the end.

    Args:
        out: the output directory.
        load_plan: returns a plan by its key.
        target: the target of the run.
        device: the name of the device.
        device_slug: the device's name in names of files.
        versions: versions by package.
        starter: the text of the starter spec.
        fingerprint: the environment fingerprint: a hash of everything but the dispatch that figures depend on.
        makes_specs: whether the run writes specs, for which it needs the compiler.
        root: the directory that directories of suites are relative to.
        flags: the user's flags for iree-compile.
        mirror: the run directory, where the processes of the run read records and finals.

    Attributes:
        records_path: the file of the records of candidates, as they come.
        finals_path: the file of the finals, as they come.
        summary_path: the file of the summary.
        spec_path: the merged spec.
        failures: the failures to write something down, which this process still knows.
        form_paths: the response files of models, once the run is finished.
        changes: the changes of the snapshots beside the suites, once the run is finished.
        has_results: whether the run has a result; until then nothing is written.
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
        fingerprint: str = "",
        makes_specs: bool = True,
        root: Path = Path(),
        flags: Sequence[str] = (),
        mirror: Path | None = None,
    ) -> None:
        self.records_path = out / "records.jsonl"
        self.finals_path = out / "finals.jsonl"
        self.summary_path = out / "summary.json"
        self.spec_path = out / "spec.mlir"
        self.failures: list[OSError] = []
        self.changes: list[SnapshotChange] = []
        self.form_paths: list[Path] = []
        self._load_plan = load_plan
        self._target = target
        self._device = device
        self._slug = device_slug
        self._versions = versions
        self._starter = starter or ""
        self._fingerprint = fingerprint
        self._makes_specs = makes_specs
        self._root = root
        self._flags = tuple(flags)
        self._directories = (out, *([mirror] if mirror is not None else []))
        self._started = time.monotonic()
        self._results = RunResults()
        self._suites: dict[str, dict[str, Plan]] = {}
        self._collected = Collected()
        self._at_first: dict[str, tuple[WinnerRecord, ...]] = {}
        self._earlier_spec: Coverage | None = None
        self.has_results = False

    @property
    def tasks(self) -> tuple[AnyTask, ...]:
        """The dispatches and kernels that this run tunes."""
        return tuple(self._results.tasks.values())

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans of this run."""
        return tuple(self._results.plans.values())

    @property
    def snapshots(self) -> tuple[Path, ...]:
        """The snapshots of the suites of this run that exist."""
        paths = {self.snapshot_of(suite) for suite in self._suites if suite}
        return tuple(sorted(path for path in paths if path.exists()))

    def snapshot_of(self, suite: str) -> Path:
        """Return the path of a suite's snapshot for the run's target and device."""
        return snapshot_path(self._root / suite, self._target, self._slug)

    def add_plan(self, key: str, suite: str) -> None:
        """Add the plan of a test, and so the dispatches that it tunes."""
        if key not in self._results.plans:
            self._results.add_plan(key, self._load_plan(key))
        self._suites.setdefault(suite, {})[key] = self._results.plans[key]

    def add_collected(self, collected: Collected) -> None:
        """Note the collected tests: an entry that is in none of the plans of a whole suite is gone.

        That holds for entries that are in a snapshot by now. One that another run adds later may be of a new test.
        """
        self._collected = collected
        self._at_first = {suite: read_records(self.snapshot_of(suite)) for suite in collected.whole}

    def add_kept(self, plan: str, record: WinnerRecord) -> None:
        """Let an entry of a snapshot stand as the winner of its dispatch, which is in ``plan``."""
        self._results.kept[record.dispatch] = record
        suite = next(suite for suite, plans in self._suites.items() if plan in plans)
        self.add(TestResult(plan=plan, suite=suite, final=FinalRecord.kept(record)))

    def add(self, result: TestResult) -> None:
        """Write down the result of a test; see ``failures``."""
        self.add_plan(result.plan, result.suite)
        if not self.has_results:
            self.has_results = True
            self._earlier_spec = coverage_of_spec(self.spec_path, self.summary_path)
            # Results that an earlier run left are not this run's. Its spec stays until this run has one of its own.
            for stale in (self.records_path, self.finals_path, self.summary_path):
                with self._noting_failure():
                    stale.unlink(missing_ok=True)
        self._results.add(result)
        if result.record is not None:
            self._append(self.records_path.name, result.record)
        if result.final is not None:
            self._append(self.finals_path.name, result.final)

    def _append(self, name: str, line: Record | FinalRecord) -> None:
        for directory in self._directories:
            with self._noting_failure():
                journal.append(directory / name, line)

    def plan(self, key: str) -> Plan:
        """Return the plan of that key."""
        return self._results.plans.get(key) or self._load_plan(key)

    def records(self, dispatch: str) -> tuple[Record, ...]:
        """Return the records of a dispatch so far."""
        return tuple(self._results.records[dispatch].values())

    def task(self, dispatch: str) -> AnyTask:
        """Return the task of that name."""
        return self._results.tasks[dispatch]

    def tasks_of(self, suite: str) -> dict[str, Task]:
        """Return the dispatches of a suite by name, each as the first test of the suite has it."""
        return first_tasks(self._suites[suite].values())

    def cost(self, dispatch: str) -> DispatchCost | None:
        """Return the time of all calls of a dispatch as its models run, if that was measured."""
        time_us = self._results.plan_of[dispatch].time_us(self.task(dispatch))
        return None if time_us is None else DispatchCost(time_us, 0.0)

    def finish(
        self,
        *,
        complete: bool,
        why_stopped: Callable[[str], str] = lambda dispatch: "",
        candidates_tried: Callable[[str], int] = lambda dispatch: 0,
        verify: Verify | None = None,
    ) -> Summary:
        """Derive and write summary, spec and snapshots.

        A dispatch without a final gets a provisional winner from its records. A run that leaves out tests keeps the
        spec of one that left out fewer. A file that cannot be written stays as it was, and the others are written all
        the same; see ``failures``.

        Args:
            complete: whether every test was run.
            why_stopped: returns the reason why no more of a dispatch's candidates were tried.
            candidates_tried: returns the number of a dispatch's candidates that had their chance.
            verify: verifies drafts that the run's tests did not verify: a test may have dropped an entry, and a
                snapshot may have other entries.

        Returns:
            The summary, as it is written.
        """
        results = self._results
        found = {name: results.winner(name, self._fingerprint, candidates_tried(name)) for name in results.tasks}
        won = {name: winner for name, winner in found.items() if winner is not None}
        verification = Verification(results.plans, results.tasks.keys(), results.checks, verify)
        dropped = results.dropped
        dropped |= self._settle(verification, won, dropped).dropped
        dropped |= self._update_snapshots(verification, won, dropped)
        settled = self._settle(verification, won, dropped)
        dropped |= settled.dropped
        coverage = self._collected.coverage if complete else Coverage.TESTS
        keeps_spec = self._keeps_spec(coverage, settled.draft)
        if not keeps_spec:
            with self._noting_failure():
                write_draft(self.spec_path, settled.draft, won.values())
            with self._noting_failure():
                self.form_paths += write_forms(results, self.spec_path, self._target, self._flags)
                write_wrong_parts(results, self.spec_path.parent)
        run = RunSummary(
            versions=self._versions,
            target=self._target,
            device=self._device,
            seconds=round(time.monotonic() - self._started, 3),
            complete=complete,
            unsteady=results.unsteady,
            coverage=coverage,
            spec_coverage=(self._earlier_spec if keeps_spec else coverage) if self.spec_path.exists() else None,
            keeps_spec=keeps_spec,
        )
        summary = summarise(run, results, won, dropped, why_stopped)
        with self._noting_failure():
            write_summary(self.summary_path, summary)
        return summary

    def _settle(
        self, verification: Verification, won: Mapping[str, WinnerRecord], dropped: Mapping[str, str]
    ) -> Settled:
        """Settle the draft of ``spec.mlir`` in each plan that ran its ``[spec]``."""
        draft = spec_of(won.values() if self._makes_specs else (), self._starter).without(dropped)
        plans = [key for key, model in self._results.checks if not model]
        return verification.settle(draft, plans) if draft.entries else Settled(draft, {})

    def _keeps_spec(self, coverage: Coverage, draft: Draft) -> bool:
        """Whether the spec of an earlier run stays: this run makes none, or covers less."""
        if self._earlier_spec is None:
            return False
        says_nothing = coverage is Coverage.TESTS and not draft.entries
        return not self._makes_specs or says_nothing or coverage.is_less_than(self._earlier_spec)

    def _update_snapshots(
        self, verification: Verification, won: Mapping[str, WinnerRecord], dropped: Mapping[str, str]
    ) -> dict[str, str]:
        """Bring the snapshots beside the suites up to date; return the winners that they left out, with the reasons."""
        left_out: dict[str, str] = {}
        for suite in sorted(self._suites.keys() - {""}):
            path = self.snapshot_of(suite)
            with self._noting_failure(), locked(path):
                winners = {name: winner for name, winner in won.items() if name not in {**dropped, **left_out}}
                change = update_snapshot(
                    path,
                    self._suites[suite],
                    self._results,
                    winners,
                    verification,
                    removable=self._at_first.get(suite, ()),
                    begins=self._makes_specs,
                )
                left_out |= {name: why for name, why in change.left_out.items() if name in winners}
                self.changes.append(change)
                self.form_paths += write_forms(self._results, path, path.stem, self._flags, self._suites[suite])
        return left_out

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failures.append(error)
