"""Notes: what one of xdist's workers has to tell the user while its test runs, on its way to the terminal.

A worker has no terminal, and the controller hears of it by reports alone. So a note travels with a report of its
own, one that says that a setup passed, which pytest counts and shows nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from pytest_shark_tune.plugin import reporting

__all__ = ["NoteSender", "note_of", "property_of", "show_line", "teller"]

_PROPERTY = "shark_tune_note"


class NoteSender:
    """A plugin of a worker that sends notes to whoever controls the run, on behalf of the test that is running."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._running: tuple[str, tuple[str, int | None, str]] | None = None

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """A test begins."""
        self._running = nodeid, location

    def pytest_runtest_logfinish(self) -> None:
        """The test has ended."""
        self._running = None

    def send(self, message: str) -> None:
        """Send ``message``; between tests there is no way to, and it is dropped."""
        if self._running is None:
            return
        nodeid, location = self._running
        report = pytest.TestReport(
            nodeid=nodeid,
            location=location,
            keywords={},
            outcome="passed",
            longrepr=None,
            when="setup",
            user_properties=[(_PROPERTY, message)],
        )
        self._config.hook.pytest_runtest_logreport(report=report)


def note_of(report: pytest.TestReport) -> str | None:
    """Return the message that a report carries, if it is one of these."""
    return property_of(report, _PROPERTY)


def property_of(report: pytest.TestReport | pytest.CollectReport, name: str) -> str | None:
    """Return the property ``name`` of a report, if it has that one."""
    # A report on collecting a file has no properties.
    return next((str(value) for key, value in getattr(report, "user_properties", ()) if key == name), None)


def teller(config: pytest.Config) -> Callable[[str], None]:
    """Tells the user what takes long, on the terminal; a worker has it told by the controller."""
    if hasattr(config, "workerinput"):
        sender = NoteSender(config)
        config.pluginmanager.register(sender, "shark-tune-notes")
        return sender.send

    return lambda message: show_line(config, f"shark-tune: {message}")


def show_line(config: pytest.Config, line: str) -> None:
    """Write a line of its own, in the middle of pytest's dots too; with xdist they belong to no file."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or reporter.verbosity < 0:
        return
    capturing = reporter.config.pluginmanager.get_plugin("capturemanager")
    # While a test runs, what reaches the terminal's own descriptor would become the test's captured output.
    with capturing.global_and_fixture_disabled() if capturing is not None else nullcontext():
        reporter.ensure_newline()
        if reporter._tw.width_of_current_line:
            reporter.write("\n")
        reporting.write_line(reporter, line)
        reporter.flush()  # Into a pipe or a file, too, where it would come with the end of the run.
