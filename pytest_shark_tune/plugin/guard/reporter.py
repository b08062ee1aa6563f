"""Reports the results of guarding from the process that controls the run: terminal, annotations, Markdown.

It is registered in every run that does not tune, with xdist in a process that never collects. It does nothing, and
imports nothing more, until a test has a result.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.guard.cache import clear_cache, cut_cache
from pytest_shark_tune.plugin.guard.options import GuardOptions
from pytest_shark_tune.plugin.guard.unguarded import unguarded_lines
from pytest_shark_tune.plugin.interrupts import Interrupts
from pytest_shark_tune.plugin.options import ReportOptions, is_dry, target_name
from pytest_shark_tune.plugin.report_files import append_step_summary, write_report
from pytest_shark_tune.plugin.xdist.messages import display_of, message_of, property_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_shark_tune.guard.history import HistoryPoint
    from pytest_shark_tune.guard.verdict import Verdict
    from pytest_shark_tune.plugin.guard.keeper import HistoryKeeper
    from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult

__all__ = ["FAILURE", "PROPERTY", "SNAPSHOTS", "UNGUARDED", "GuardReporter"]

PROPERTY = "shark_tune_guard"
"""The property of a report for the result of its test."""
FAILURE = "shark_tune_failure"
"""The property of a report for the failure of a test of ours that has no result."""
SNAPSHOTS = "__specs__"
"""The directory of a suite's specs, as in `records.snapshot`: importing that module would load the compiler."""
UNGUARDED = "tune"
"""The id of the parameter of a marked test that is skipped since there is nothing to guard."""


class GuardReporter:
    """Collects the results of tests in guard mode, and reports them."""

    def __init__(self, config: pytest.Config, options: GuardOptions) -> None:
        self._config = config
        self._options = options
        self._results: dict[str, GuardResult] = {}
        self._failures: dict[str, GuardFailure] = {}
        self._lost: dict[str, GuardFailure] = {}
        self._unguarded: dict[Path, None] = {}
        """The files of tests that were skipped since there is nothing to guard."""
        self._problems: list[str] = []
        self._ended = ""
        self._interrupts = Interrupts(terminate=True)
        self._history: HistoryKeeper | None = None

    def pytest_sessionstart(self) -> None:
        """Empty the cache before any process of the run takes something from it.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        clear_cache(self._config)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Store the error of a file that cannot be collected, if it may be one to guard."""
        path = self._config.rootpath / report.nodeid.partition("::")[0]
        if report.failed and self._guards(path):
            self._failures[report.nodeid] = _failure_from_report(report.nodeid or "collecting", path, report)

    def _guards(self, path: Path) -> bool:
        """Whether a test file that cannot be collected is probably one to guard."""
        is_asked = self._options.reports != ReportOptions() or bool(self._config.getoption("tune_guard"))
        return is_asked or any((path.parent / SNAPSHOTS).glob("*.mlir"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store the result of a test, and show the messages of workers."""
        if note := message_of(report):
            display_of(self._config).say(note)
        result = _result_of(report)
        if result is not None:
            if not self._results:
                self._interrupts.install()  # Without xdist, the guarding plugin has installed its own, which stay.
            self._results[report.nodeid] = result
        elif report.failed:
            self._keep_failure(report)
        if _is_unguarded(report):
            self._unguarded[self._config.rootpath / report.nodeid.partition("::")[0]] = None

    def _keep_failure(self, report: pytest.TestReport) -> None:
        """Store the failure of a test of ours, or of a test that crashed its worker, which may be ours."""
        failure = _decoded(report, FAILURE)
        if failure is not None:
            self._failures[report.nodeid] = failure
        elif report.when not in ("setup", "call", "teardown"):
            path = self._config.rootpath / report.nodeid.partition("::")[0]
            self._lost[report.nodeid] = _failure_from_report(report.nodeid, path, report)

    @property
    def _shown_failures(self) -> list[GuardFailure]:
        """The failures without a verdict, in the order of their tests."""
        guards = self._results or self._failures
        found = self._failures | (self._lost if guards else {})
        return [found[test] for test in sorted(found)]

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show the speed of an entry with ``-v``."""
        result = _result_of(report)
        if result is None or not report.passed:
            return None
        from pytest_shark_tune.report.guard_text import verdict_status

        words = verdict_status(result.verdict)
        return ("passed", ".", words) if words else None

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember why the run ends, if it is told."""
        self._ended = str(excinfo.value)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> Any:
        """Write the reports, however the run ended, and fail a run that should have guarded something and did not."""
        self._interrupts.wind_down()
        if not is_dry(session.config):
            self._keep_history(session)
            self._write_reports(session, exitstatus)
        if not self._results and not is_dry(session.config) and exitstatus in _UNALARMED:
            self._miss(session)
        if status := self._interrupts.status:
            session.exitstatus = status
        return (yield)

    def _keep_history(self, session: pytest.Session) -> None:
        """Append the speeds of this run to the history and to the baseline; fail it if the history asks for that."""
        recorded = [verdict.recorded for verdict in self._verdicts if verdict.recorded is not None]
        if recorded and self._options.baseline is not None:
            from pytest_shark_tune.plugin.guard.keeper import keep_baseline

            if problem := keep_baseline(self._options.baseline, recorded):
                self._fail(session, problem)
        if self._options.history is None or not self._results:
            return
        from pytest_shark_tune.plugin.guard.keeper import HistoryKeeper

        self._history = HistoryKeeper(self._options, self._config.rootpath)
        self._history.keep(result.point for result in self._results.values() if result.point is not None)
        if self._history.problem:
            self._fail(session, self._history.problem)

    def _write_reports(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        reports, has_results = self._options.reports, bool(self._results or self._failures)
        if not (has_results or reports.markdown or reports.page):
            return
        from pytest_shark_tune.report.guard_text import markdown

        found = self._results.values(), self._shown_failures, self._ended or _why_ended(session, exitstatus)
        text = markdown(*found)
        problems = [append_step_summary(text)] if has_results else []
        if reports.markdown is not None:
            problems.append(write_report("--tune-report-md", reports.markdown, text))
        if reports.page is not None:
            from pytest_shark_tune.report.html.page import guard_page

            problems.append(write_report("--tune-report-html", reports.page, guard_page(*found, self._points)))
        for problem in filter(None, problems):
            self._fail(session, problem)

    @property
    def _verdicts(self) -> Sequence[Verdict]:
        return [result.verdict for result in self._results.values()]

    @property
    def _points(self) -> Sequence[HistoryPoint]:
        return self._history.points if self._history is not None else ()

    def _miss(self, session: pytest.Session) -> None:
        """Fail a run that guarded nothing, if the command line asks for it: an ini file may be for other runs."""
        if self._config.getoption("tune_guard"):
            self._fail(session, "--tune-guard: no test that is marked tune, and no model, ran: nothing was guarded")
        elif self._options.strict and self._unguarded:
            self._fail(
                session,
                f"--tune-strict: no test that is marked tune has a snapshot for {target_name(self._config)}: nothing "
                "was guarded. Is it another --tune-target, or are the snapshots not committed?",
            )

    def _fail(self, session: pytest.Session, problem: str) -> None:
        self._problems.append(problem)
        if session.exitstatus in _UNALARMED:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the counts and the notable results and, on GitHub, annotations beside the code."""
        if self._results or self._failures:
            from pytest_shark_tune.report.guard_terminal import guard_lines
            from pytest_shark_tune.report.guard_text import github_lines

            reporting.section(terminalreporter, "shark-tune guard")
            columns = max(terminalreporter._tw.fullwidth, 80)
            for line in guard_lines(self._results.values(), self._shown_failures, columns):
                reporting.write_line(terminalreporter, line)
            for line in self._history.lines() if self._history is not None else ():
                reporting.write_line(terminalreporter, line)
            if os.environ.get("GITHUB_ACTIONS") == "true":
                workspace = Path(os.environ.get("GITHUB_WORKSPACE") or self._config.invocation_params.dir)
                annotations = github_lines(self._results.values(), workspace, self._shown_failures)
                reporting.write_annotations(terminalreporter, annotations)
        columns = max(terminalreporter._tw.fullwidth, 80)
        for line in unguarded_lines(list(self._unguarded), self._config, columns, guards=bool(self._results)):
            reporting.write_line(terminalreporter, line, yellow=True)
        for problem in self._problems:
            reporting.write_line(terminalreporter, problem, red=True)

    def pytest_unconfigure(self) -> None:
        """Cut the cache to its maximum size, once all processes of the run have finished with it."""
        self._interrupts.restore()
        if self._results:
            cut_cache(self._config)


_UNALARMED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def _why_ended(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> str:
    """Why the run did not check everything; empty if it did."""
    if session.shouldfail or session.shouldstop:
        return str(session.shouldfail or session.shouldstop)
    ended = {
        pytest.ExitCode.INTERRUPTED: "it was interrupted",
        pytest.ExitCode.INTERNAL_ERROR: "it failed with an internal error",
    }
    return ended.get(pytest.ExitCode(exitstatus), "") if exitstatus in list(pytest.ExitCode) else ""


def _result_of(report: pytest.TestReport | pytest.CollectReport) -> GuardResult | None:
    """The result of a test, from its report."""
    found: GuardResult | None = _decoded(report, PROPERTY)
    return found


def _decoded(report: pytest.TestReport | pytest.CollectReport, name: str) -> Any:
    """The result or the failure that a report carries under the name ``name``, if any."""
    carried = property_of(report, name)
    if carried is None:
        return None
    import msgspec

    from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult

    return msgspec.json.decode(carried, type=GuardResult if name == PROPERTY else GuardFailure)


def _failure_from_report(test: str, path: Path, report: pytest.TestReport | pytest.CollectReport) -> GuardFailure:
    """The failure in a report that does not come from a test of ours."""
    from pytest_shark_tune.report.guard_text import GuardFailure, said_first

    return GuardFailure(test=test, file=str(path), line=0, reason=said_first(str(report.longrepr)))


def _is_unguarded(report: pytest.TestReport) -> bool:
    """Whether a marked test was skipped since there is nothing to guard."""
    parts = report.nodeid.partition("[")[2].removesuffix("]").split("-")
    return report.skipped and report.when == "setup" and "tune" in report.keywords and UNGUARDED in parts
