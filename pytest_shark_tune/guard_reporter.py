"""What the process that controls a run makes of what guarding found: terminal, annotations, Markdown.

It is there in every run that does not tune, with xdist in a process that never collects, and does nothing until a
test has found something out. So it imports what it works with only then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.interrupts import TERMINATED, Interrupts
from pytest_shark_tune.notes import note_of, write_line
from pytest_shark_tune.options import GuardOptions, TuneOptions

if TYPE_CHECKING:
    from pytest_shark_tune.guard_text import GuardFinding

__all__ = ["PROPERTY", "GuardReporter"]

PROPERTY = "shark_tune_guard"
"""The name under which a report carries a finding."""


class GuardReporter:
    """Gathers what tests of guard mode found out, and tells of it."""

    def __init__(self, config: pytest.Config, options: GuardOptions) -> None:
        self._config = config
        self._options = options
        self._findings: dict[str, GuardFinding] = {}
        self._problems: list[str] = []
        self._interrupts = Interrupts(terminate=True)

    def pytest_sessionstart(self) -> None:
        """Empty the cache before any process of the run takes something from it."""
        if self._config.getoption("tune_cache_clear"):
            from pytest_shark_tune.tools.cache import Cache

            Cache(TuneOptions.from_pytest_config(self._config).cache).clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test found out; tell what a worker has to tell."""
        if note := note_of(report):
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None and reporter.verbosity >= 0:
                write_line(reporter, f"shark-tune: {note}")
        finding = _finding_of(report)
        if finding is not None:
            if not self._findings:
                self._interrupts.install()  # Without xdist they are the guarding plugin's already, and stay so.
            self._findings[report.nodeid] = finding

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show with ``-v`` how fast an entry is."""
        finding = _finding_of(report)
        if finding is None or not report.passed:
            return None
        from pytest_shark_tune.guard_text import status_words

        words = status_words(finding.verdict)
        return ("passed", ".", words) if words else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> Any:
        """Write the Markdown, however the run ended; say so where a spec was named and nothing guarded."""
        self._interrupts.wind_down()
        if self._options.report is not None:
            from pytest_shark_tune.guard_text import markdown

            text = markdown(self._findings.values(), _why_ended(session, exitstatus))
            try:
                self._options.report.write_text(text, encoding="utf-8")
            except OSError as error:
                self._fail(session, f"--tune-report-md: cannot write {self._options.report}: {error.strerror}")
        collects_only = session.config.option.collectonly
        if self._options.spec is not None and not self._findings and not collects_only and exitstatus in _UNALARMED:
            self._fail(session, "--tune-guard: no test that is marked tune, and no model, ran: nothing was guarded")
        if self._interrupts.terminated:
            session.exitstatus = TERMINATED
        return (yield)

    def _fail(self, session: pytest.Session, problem: str) -> None:
        self._problems.append(problem)
        if session.exitstatus in _UNALARMED:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the counts, what is worth a line, and on GitHub what its pages show beside the code."""
        if self._findings:
            from pytest_shark_tune.guard_text import github_lines, terminal_lines

            terminalreporter.section("shark-tune guard")
            _write(terminalreporter, terminal_lines(self._findings.values()))
            if os.environ.get("GITHUB_ACTIONS") == "true":
                workspace = Path(os.environ.get("GITHUB_WORKSPACE") or self._config.invocation_params.dir)
                _write(terminalreporter, github_lines(self._findings.values(), workspace))
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True)

    def pytest_unconfigure(self) -> None:
        """Cut the cache to its size, once all processes of the run are through with it."""
        self._interrupts.restore()
        if self._findings:
            from pytest_shark_tune.tools.cache import Cache

            options = TuneOptions.from_pytest_config(self._config)
            Cache(options.cache).evict(options.cache_bytes)


_UNALARMED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def _write(terminalreporter: Any, lines: Iterable[str]) -> None:
    for line in lines:
        terminalreporter.write_line(line)


def _why_ended(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> str:
    """Why the run did not look at everything; empty where it did."""
    if session.shouldfail or session.shouldstop:
        return str(session.shouldfail or session.shouldstop)
    ended = {
        pytest.ExitCode.INTERRUPTED: "it was interrupted",
        pytest.ExitCode.INTERNAL_ERROR: "it failed with an internal error",
    }
    return ended.get(pytest.ExitCode(exitstatus), "") if exitstatus in list(pytest.ExitCode) else ""


def _finding_of(report: pytest.TestReport | pytest.CollectReport) -> GuardFinding | None:
    """What a test found out, from its report."""
    for name, value in getattr(report, "user_properties", ()):  # A report on collecting a file has none.
        if name == PROPERTY:
            import msgspec

            from pytest_shark_tune.guard_text import GuardFinding

            return msgspec.json.decode(str(value), type=GuardFinding)
    return None
