"""Notes: what one of xdist's workers has to tell the user while its test runs, on its way to the terminal.

A worker has no terminal, and the controller hears of it by reports alone. So a note travels with a report of its
own, one that says that a setup passed, which pytest counts and shows nowhere.
"""

from __future__ import annotations

import pytest

__all__ = ["NoteSender", "note_of"]

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
    """The message that a report carries, if it is a note."""
    return next((str(value) for name, value in report.user_properties if name == _PROPERTY), None)
