"""Messages of xdist's workers to the user while a test runs.

A worker has no terminal, and the controller gets nothing but reports from it. So a message travels with a report of its
own, of a setup that passed: pytest neither counts nor shows such a report.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from pytest_shark_tune.plugin import reporting

__all__ = ["MessageSender", "message_of", "progress_callback", "property_of", "show_line"]

_PROPERTY = "shark_tune_message"


class MessageSender:
    """A plugin of a worker that sends messages to the controller, on behalf of the test that is running."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._running: tuple[str, tuple[str, int | None, str]] | None = None

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Remember the test that begins."""
        self._running = nodeid, location

    def pytest_runtest_logfinish(self) -> None:
        """Forget the test that has ended."""
        self._running = None

    def send(self, message: str) -> None:
        """Send ``message``; between tests it is dropped, since there is no way to send it."""
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


def message_of(report: pytest.TestReport) -> str | None:
    """Return the message that a report carries, if it is one of these."""
    return property_of(report, _PROPERTY)


def property_of(report: pytest.TestReport | pytest.CollectReport, name: str) -> str | None:
    """Return the property ``name`` of a report, if it has that one."""
    # A report on collecting a file has no properties.
    return next((str(value) for key, value in getattr(report, "user_properties", ()) if key == name), None)


def progress_callback(config: pytest.Config) -> Callable[[str], None]:
    """Return a callback that shows the user a message on the terminal; a worker's goes through the controller."""
    if hasattr(config, "workerinput"):
        sender = MessageSender(config)
        config.pluginmanager.register(sender, "shark-tune-messages")
        return sender.send

    return lambda message: show_line(config, f"shark-tune: {message}")


def show_line(config: pytest.Config, line: str) -> None:
    """Write a line of its own, even in the middle of pytest's dots."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or reporter.verbosity < 0:
        return
    capturing = reporter.config.pluginmanager.get_plugin("capturemanager")
    # While a test runs, pytest captures the descriptor of the terminal: the line would become output of the test.
    with capturing.global_and_fixture_disabled() if capturing is not None else nullcontext():
        reporter.ensure_newline()
        if reporter._tw.width_of_current_line:  # With xdist, dots belong to no file, and the line above ends none.
            reporter.write("\n")
        reporting.write_line(reporter, line)
        reporter.flush()  # Otherwise a pipe or a file would get it at the end of the run.
