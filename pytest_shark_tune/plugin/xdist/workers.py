"""The workers of a tuning run, as their controller sees them: those that begin and those that crash."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

from pytest_shark_tune.device.discovery import crowding
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.reporting import end_run
from pytest_shark_tune.plugin.tune.reports import attach
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.plugin.xdist.remote import hand_over, mark_lost
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.tuning.manifest import TestEntry, TestManifest

__all__ = ["TuneWorkers"]


class TuneWorkers:
    """Hands tests to xdist's workers in the order of the phases, and records the candidates of those that crash."""

    def __init__(
        self,
        config: pytest.Config,
        setup: Setup,
        store: ResultStore,
        begin: Callable[[Sequence[TestEntry | None]], RunOrder],
    ) -> None:
        self._config = config
        self._setup = setup
        self._store = store
        self._begin = begin
        self._manifest: TestManifest | None = None
        self._lost = 0
        self._lost_in_a_row = 0
        if getattr(config.option, "maxworkerrestart", "") is None and config.option.numprocesses:
            from pytest_shark_tune.plugin.xdist.scheduling import MOST_LOST

            config.option.maxworkerrestart = str(MOST_LOST)  # The user did not say, and xdist's default is too few.

    def why_ended(self) -> str:
        """Return why the run ended, if too many workers crashed."""
        limit = getattr(self._config.option, "maxworkerrestart", None)
        if limit is None or self._lost <= int(limit):
            return ""
        crashed = "1 worker" if self._lost == 1 else f"{self._lost} workers"
        return f"{crashed} crashed, and --max-worker-restart={limit} lets no more be replaced; raise it"

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config) -> Any:
        """Let xdist hand out the tests in the order of the phases."""
        from pytest_shark_tune.plugin.xdist.hosts import survive_lost_hosts
        from pytest_shark_tune.plugin.xdist.scheduling import TuneScheduling

        scheduling = TuneScheduling(config, self._begin_with_workers)
        controller = config.pluginmanager.get_plugin("dsession")
        survive_lost_hosts(controller, self._setup.report, scheduling.leave_out_worker)
        if note := crowding(scheduling.workers, self._setup.settings.devices):
            self._setup.report(note)
        return scheduling

    def _begin_with_workers(self, names: Sequence[str]) -> RunOrder:
        run_directory = self._setup.settings.run_directory
        try:
            self._manifest = self._setup.session.run.read_manifest()
        except OSError as error:
            end_run(f"TMPDIR: the workers cannot write to {run_directory}: {error.strerror}; is it full?", returncode=1)
        self._store.add_collected(self._manifest.collected)
        return self._begin([self._manifest.entries.get(name) for name in names])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker the devices and paths of the controller."""
        hand_over(node.workerinput, self._setup.options, self._setup.settings, self._setup.is_remote)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Generator[None, object, object]:
        """Refuse a run whose workers cannot be started: xdist lets the error out."""
        try:
            return (yield)
        except Exception as error:
            if why := self._why_unreachable(error):
                end_run(why, returncode=pytest.ExitCode.USAGE_ERROR)
            raise

    def _why_unreachable(self, error: Exception) -> str:
        if not self._setup.is_remote:
            return ""
        from pytest_shark_tune.plugin.xdist.hosts import why_unreachable

        return why_unreachable(error)

    def pytest_runtest_logreport(self) -> None:
        """A worker is at work, so no more were lost in a row."""
        self._lost_in_a_row = 0

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Count the workers that are lost: xdist would replace for ever those that never come to run a test.

        A refusal is told before xdist shows the traceback of it.
        """
        if not error or self._setup.interrupts.is_ending:
            return
        mark_lost(self._setup.settings.run_directory, node.gateway.id)
        from pytest_shark_tune.plugin.xdist.scheduling import MOST_LOST_IN_A_ROW, how_it_ended, refusal

        if why := refusal(error):  # A worker in its place would refuse as well.
            end_run(f"{node.gateway.id}: {why}", returncode=pytest.ExitCode.USAGE_ERROR)
        self._lost += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row > MOST_LOST_IN_A_ROW * node.workerinput["workercount"]:
            end_run(
                f"{self._lost_in_a_row} workers in a row were lost before they had run a test, the last one by "
                f"{how_it_ended(node) or error}: run pytest with -n 0 to see why",
                returncode=1,
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Record the candidate that a lost worker was trying; any other test fails."""
        from pytest_shark_tune.plugin.xdist.scheduling import how_it_ended

        entry = self._manifest.entries.get(crashitem) if self._manifest is not None else None
        node: Any = report.node
        if entry is None or not entry.plan:
            return
        reason = f"the worker {node.gateway.id} that ran it crashed ({how_it_ended(node) or 'it is not known how'})"
        path, _, test = crashitem.partition("::")
        report.when, report.location = "call", (path, None, test)
        report.longrepr = f"{State.RUN_FAILED}: {reason}; run pytest with -n 0 and -k to see why"
        if entry.role is Role.CANDIDATE:
            report.outcome = "skipped"
            # Without a line, which nobody here knows; pytest then shows none.
            report.longrepr = (path, None, f"Skipped: {State.RUN_FAILED}: {reason}")  # type: ignore[assignment]
        if entry.candidate and not self._setup.stops_after_compile:
            attach(report, self._lost_candidate(entry, CandidateFailed(State.RUN_FAILED, reason)))
        self._count_failure(report)

    def _lost_candidate(self, entry: TestEntry, failure: CandidateFailed) -> TestResult | None:
        """The result of a candidate that lost its worker, unless it has one already."""
        self._store.add_plan(entry.plan, entry.suite)
        if any(record.id == entry.candidate for record in self._store.records(entry.dispatch)):
            return None
        task = self._store.task(entry.dispatch)
        record = self._setup.session.runner.record(task, task.candidate(entry.candidate), failure)
        return TestResult(plan=entry.plan, suite=entry.suite, record=record, is_ours=entry.is_ours)

    def _count_failure(self, report: pytest.TestReport) -> None:
        """Count a lost worker's test for ``-x`` and ``--maxfail``: xdist leaves it out."""
        controller = self._config.pluginmanager.get_plugin("dsession")
        if report.failed and controller is not None:
            controller.countfailures += 1
            if 0 < (controller.maxfail or 0) <= controller.countfailures and not controller.shouldstop:
                controller.shouldstop = f"stopping after {controller.countfailures} failures"
