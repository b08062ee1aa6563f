"""The run as its controller sees it: the order of its tests, its time and its progress. It knows no hooks of pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain

from pytest_shark_tune.plan.costs import model_costs
from pytest_shark_tune.plan.roles import Phase
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.plugin.reporting import end_run
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.records.reconcile import Requirements, Subject, Update, reconcile
from pytest_shark_tune.records.types import Record
from pytest_shark_tune.report.progress_text import RunProgress
from pytest_shark_tune.results.guides import Guides
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.spec.read import dropped_prints
from pytest_shark_tune.tuning.manifest import TestEntry
from pytest_shark_tune.tuning.scheduler import TaskScheduler, make_task_state

__all__ = ["TuningRun"]

_SMALLEST_BATCH, _LARGEST_BATCH = 4, 16
"""Limits of a batch. Its candidates are compiled together, so the last are chosen without results of the first."""


def _models_s(plans: Iterable[Plan]) -> float | None:
    """About the seconds that the whole models of plans take after the finals; ``None`` if that is not known."""
    found = [plan.models_s for plan in plans]
    return None if None in found else sum(filter(None, found))


class TuningRun:
    """Chooses the tests of a run, and takes in their results as they come.

    ``order`` and ``scheduler`` are there once the run has begun. In a run that stops after compiling, ``compiled`` are
    the candidates, by the names of their dispatches and their ids, and ``plans`` the plans' keys by test function.
    """

    def __init__(self, setup: Setup, store: ResultStore) -> None:
        self._setup = setup
        self._store = store
        self.progress = RunProgress()
        self.progress.begin(setup.settings.budget)
        self.order: RunOrder | None = None
        self.scheduler: TaskScheduler | None = None
        self.compiled: set[tuple[str, str]] = set()
        self.plans: dict[str, str] = {}

    def begin(self, entries: Sequence[TestEntry | None]) -> RunOrder:
        """Begin the run, and return the order of its tests.

        Args:
            entries: the entries of all collected tests in the test manifest; ``None`` for a test without the marker.
        """
        by_dispatch: dict[str, dict[int, TestEntry]] = {}
        for index, entry in enumerate(entries):
            if entry is not None and entry.plan and entry.dispatch:
                self._store.add_plan(entry.plan, entry.suite)
                by_dispatch.setdefault(entry.dispatch, {})[index] = entry
        update = self._reconcile(by_dispatch)
        kept = {index for name in update.kept for index in by_dispatch.pop(name)}
        self.scheduler = self._schedule(by_dispatch, update)
        if not self._setup.is_dry:
            self._reuse_results(by_dispatch, self.scheduler)
        phases = [entry.phase if entry else Phase.ORDINARY for entry in entries]
        needless = [index for index in kept if phases[index] is not Phase.CANDIDATE]
        settings = self._setup.settings
        self.progress.begin_search(
            Counter(phases) - Counter(phases[index] for index in needless),
            settings.budget,
            ops=len({source.name for plan in self._store.plans for source in plan.sources if source.is_op}),
            models_s=_models_s(self._store.plans),
            devices=len(settings.devices),
        )
        self.order = RunOrder(phases, self.scheduler, needless)
        return self.order

    def _reconcile(self, by_dispatch: Mapping[str, Mapping[int, TestEntry]]) -> Update:
        """Keep the entries of snapshots that are up to date, and report why the others are tuned again."""
        if self._setup.bundle is not None:  # Snapshots are brought up to date where specs are made.
            return Update()
        options, settings, session = self._setup.options, self._setup.settings, self._setup.session
        required = Requirements(
            target=str(options.target),
            fingerprint=session.fingerprint,
            iree=session.compiler.version,
            device=settings.device_name,
            candidates=options.candidates,
            fresh=options.fresh,
        )
        update = reconcile(self._subjects(by_dispatch), required, self._store.snapshot_of)
        for name, record in update.kept.items() if not self._setup.is_dry else ():
            self._store.add_kept(next(iter(by_dispatch[name].values())).plan, record)
        starter = session.planner.starter
        for name in by_dispatch:
            task = self._store.task(name)
            if isinstance(task, Task) and name not in update.kept and (own := starter.candidate_for(task)):
                update.add_starter(name, own)
        if update.incumbents or update.starters:
            try:
                session.run.write_incumbents(update.incumbents, update.starters)
            except OSError as error:
                end_run(self._setup.storage.explain(error) or str(error), returncode=1)
        dropped = (f"{options.starter}: {sentence}" for sentence in dropped_prints(settings.starter))
        for line in chain(dropped, update.describe()):
            self._setup.report(line)
        return update

    def _subjects(self, by_dispatch: Mapping[str, Mapping[int, TestEntry]]) -> Iterator[Subject]:
        """The dispatches of the suites, once for every suite that has them."""
        suites = {entry.suite for entries in by_dispatch.values() for entry in entries.values()} - {""}
        tasks = {suite: self._store.tasks_of(suite) for suite in suites}
        for name, entries in by_dispatch.items():
            for suite in dict.fromkeys(entry.suite for entry in entries.values()):
                if task := tasks.get(suite, {}).get(name):
                    is_ours = all(entry.is_ours for entry in entries.values() if entry.suite == suite)
                    yield Subject(task, str(self._setup.root / suite), is_ours=is_ours)

    def _schedule(self, by_dispatch: Mapping[str, dict[int, TestEntry]], update: Update) -> TaskScheduler:
        options, session = self._setup.options, self._setup.session
        guides = Guides(options.prior, self._setup.settings.device_name, session.compiler.version, self._setup.report)
        plans = dict.fromkeys(entry.plan for tests in by_dispatch.values() for entry in tests.values())
        states = [
            make_task_state(
                task := self._store.task(name),
                tests,
                strategy=options.search,
                seed=options.seed,
                most=options.candidates,
                device=self._setup.settings.device_name,
                jobs=options.jobs,
                by_time=options.time_s is not None,
                prior=partial(session.database.similar, task),
                first=update.first.get(name, ()),
                in_models=self._store.cost(name),
                guide=guides.guide_of(task),
            )
            for name, tests in by_dispatch.items()
        ]
        return TaskScheduler(
            states,
            models=[costs for plan in plans for costs in model_costs(self._store.plan(plan))],
            batch=min(max(options.jobs, _SMALLEST_BATCH), _LARGEST_BATCH),
            is_spent=self.progress.is_spent,
            publish=self._publish,
        )

    def _publish(self, dispatch: str, candidates: Sequence[str]) -> None:
        """Let those that compile know which candidates come next: a hint, so a full disk ends nothing here."""
        with suppress(OSError):
            self._setup.session.run.publish(self._store.task(dispatch), candidates)

    def _reuse_results(self, by_dispatch: Mapping[str, Mapping[int, TestEntry]], scheduler: TaskScheduler) -> None:
        """Take in the results of earlier runs as if they came from this one."""
        session = self._setup.session
        reused, damaged = 0, list[str]()
        for name, tests in by_dispatch.items():
            task = self._store.task(name)
            collected = {entry.candidate: entry for entry in tests.values()}
            if not isinstance(task, Task) or not all(entry.is_ours for entry in tests.values()):
                continue
            damaged += session.database.damaged(task)
            records = [record for record in session.database.records(task) if record.id in collected]
            for record in records:
                entry = collected[record.id]
                self._store.add(TestResult(plan=entry.plan, suite=entry.suite, record=record))
                scheduler.tell(record)
                self.progress.note(record)
            reused += len(records)
            with suppress(OSError):  # Then a binary may be measured twice.
                session.runner.reserve(task, records)
        if damaged:  # Nobody shows a log at this point of a run.
            lines = "1 line is" if len(damaged) == 1 else f"{len(damaged)} lines are"
            self._setup.report(
                f"of the results of earlier runs {lines} damaged, as where a run was killed, and left out: "
                f"{damaged[0]}{', ...' if damaged[1:] else ''}"
            )
        if reused:
            self._setup.report(f"{reused} results of earlier runs are taken from {session.results.directory}")

    def add(self, test: str, result: TestResult) -> None:
        """Take in the result of the test with the id ``test``."""
        record = result.record
        if result.compiled is not None:
            self.compiled.add(result.compiled)
            path, _, rest = test.partition("::")
            self.plans[f"{path}::{rest.partition('[')[0]}"] = result.plan
            if self.scheduler is not None:
                self.scheduler.pass_over(*result.compiled)
            return
        if record is not None and result.is_ours:
            self._store_for_later_runs(result, record)
        failures = len(self._store.failures)
        self._store.add(result)
        if len(self._store.failures) > failures:
            # A final reads the records: without some of them its winner would be a wrong one.
            end_run("results cannot be written", returncode=1)
        if record is None:
            self.progress.add_ended(result)
            return
        if self.scheduler is not None:
            self.scheduler.tell(record)
        self.progress.add_record(record, waiting=self.scheduler.expected if self.scheduler is not None else 0)

    def _store_for_later_runs(self, result: TestResult, record: Record) -> None:
        """Store a record for later runs before it is this run's: a run that is killed then loses no measurement."""
        self._store.add_plan(result.plan, result.suite)
        task = self._store.task(record.dispatch)
        if isinstance(task, Task):
            try:
                self._setup.session.database.add(task, record)
            except OSError as error:  # This run has its record all the same; a later one measures again.
                self._store.failures.append(error)
