"""The pytest plugin of the process that controls a tuning run: the only process, or xdist's controller."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_shark_tune import __version__
from pytest_shark_tune.device.identity import device_slug, runtime_version
from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.items import manifest_entry_of
from pytest_shark_tune.plugin.tune.finish import Finished, finish_run, show, show_nothing_to_tune
from pytest_shark_tune.plugin.tune.header import header_lines
from pytest_shark_tune.plugin.tune.reports import result_of, result_status
from pytest_shark_tune.plugin.tune.run import TuningRun
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.plugin.xdist.messages import display_of, message_of
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.plugin.xdist.workers import TuneWorkers
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.tuning.manifest import TestEntry

__all__ = ["TuneController", "store_of"]


def store_of(setup: Setup) -> ResultStore:
    """Return the result store of a run that begins now."""
    settings, options = setup.settings, setup.options
    return ResultStore(
        options.out,
        setup.load_plan,
        target=str(options.target),
        device=settings.device_name,
        device_slug=device_slug(settings.devices[0]) if settings.devices else "",
        versions={
            "pytest-shark-tune": __version__,
            "iree-base-compiler": setup.session.compiler.version,
            "iree-base-runtime": runtime_version(),
        },
        starter=settings.starter,
        fingerprint=setup.session.fingerprint,
        makes_specs=setup.bundle is None,
        root=setup.root,
        flags=options.compile_flags,
        mirror=settings.run_directory,
    )


class TuneController:
    """Orders the tests of a run, stores their results, and writes and shows the summary."""

    def __init__(self, config: pytest.Config, setup: Setup, store: ResultStore) -> None:
        self._config = config
        self._setup = setup
        self._store = store
        self._run = TuningRun(setup, store)
        self._display = display_of(config)
        self._display.progress = self._run.progress
        self._workers = TuneWorkers(config, setup, store, self._begin)
        self._tests: pytest.Session | None = None
        self._finished = Finished()
        self._ended = ""
        self._has_cases: bool | None = None
        """Whether any test of the run is ours; unknown until its tests begin."""
        config.pluginmanager.register(self._workers, "shark-tune-workers")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session: its number of tests depends on the order of the run."""
        self._tests = session

    def pytest_report_header(self) -> list[str]:
        """Say what is tuned for, and how the time is shared out."""
        settings = self._setup.settings
        return list(header_lines(self._setup.options, settings.device_name))

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run the tests in the order of the phases, unless xdist does."""
        if self._config.pluginmanager.has_plugin("dsession") or session.config.option.collectonly:
            return None
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None
        order = self._begin([manifest_entry_of(item) for item in session.items])
        index = order.take()
        while index is not None:
            following = order.take()
            nextitem = session.items[following] if following is not None else None
            item = session.items[index]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            order.complete(index)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            index = following
        return True

    def _begin(self, entries: Sequence[TestEntry | None]) -> RunOrder:
        order = self._run.begin(entries)
        self._has_cases = any(entry is not None for entry in entries)
        if self._tests is not None and entries:
            # Pytest's progress is a part of this: most candidates are there to be chosen from only. Without any test
            # pytest would take the run for an empty one.
            self._tests.testscollected = max(order.unfinished, 1)
        return order

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store the result of a test as it comes; show a new best, and the messages of workers."""
        if note := message_of(report):
            self._setup.report(note)
        result = result_of(report)
        if result is not None and not self._setup.is_dry:
            self._run.add(report.nodeid, result)
            self._display.refresh(self._run.progress.stage)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show the result of a candidate with ``-v``, and no dot for it beside a live line."""
        result = result_of(report)
        if result is None:
            return None
        if self._display.is_live and not report.failed:
            return report.outcome, "", report.outcome.upper()  # The live line tells more.
        text = result_status(result) if report.passed else ""
        return ("passed", ".", text) if text else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, object, object]:
        """Write the results before any other plugin's turn: one that raises does not cost them."""
        self._setup.interrupts.wind_down()
        unfinished = self._run.order.unfinished if self._run.order is not None else 0
        ended_early = bool(self._ended or unfinished) or exitstatus == pytest.ExitCode.INTERNAL_ERROR
        if ended_early:
            self._setup.session.close()
        if self._store.has_results or self._setup.stops_after_compile:
            self._display.say(Step("writing the results", Stage.WRITE))
        self._finished = finish_run(self._setup, self._store, self._run, complete=not ended_early)
        if ended_early:
            left = f"; {unfinished} of its tests were not run to their end" if unfinished else ""
            self._ended = f"the run ended early: {self._why_ended(session)}{left}"
        stuck = any(change.problem for change in self._store.changes)
        is_broken = stuck or bool(self._store.failures or self._finished.problems)
        if (ended_early or is_broken) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if status := self._setup.interrupts.status:
            session.exitstatus = status
        return (yield)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember why the run ends."""
        self._ended = str(excinfo.value) or "Ctrl-C"

    def _why_ended(self, session: pytest.Session) -> str:
        if self._ended or session.shouldfail or session.shouldstop:
            return self._ended or str(session.shouldfail or session.shouldstop)
        return self._workers.why_ended() or "see above"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table, the funnel, and the files that were written or could not be written."""
        if self._has_cases is False and not self._ended and not self._setup.is_dry:
            show_nothing_to_tune(terminalreporter)
        show(self._config, terminalreporter, self._setup, self._store, self._finished)
        problems = [self._setup.storage.explain(error) or str(error) for error in self._store.failures]
        problems += self._finished.problems
        for line in dict.fromkeys([*problems, *filter(None, [self._ended])]):
            reporting.write_line(terminalreporter, line, red=True)
