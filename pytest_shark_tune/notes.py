"""Notes: what one of xdist's workers has to tell the user while its test runs, on its way to the terminal.

A worker has no terminal, and the controller hears of it by reports alone. So a note travels with a report of its
own, one that says that a setup passed, which pytest counts and shows nowhere.
"""

from __future__ import annotations

import os

import pytest

__all__ = ["note_of", "send_note"]

_PROPERTY = "shark_tune_note"


def send_note(config: pytest.Config, message: str) -> None:
    """Send ``message`` to whoever controls the run; between tests there is no way, and nothing is sent."""
    nodeid, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")
    if not nodeid:
        return
    report = pytest.TestReport(
        nodeid=nodeid,
        location=(nodeid.partition("::")[0], None, nodeid),
        keywords={},
        outcome="passed",
        longrepr=None,
        when="setup",
        user_properties=[(_PROPERTY, message)],
    )
    config.hook.pytest_runtest_logreport(report=report)


def note_of(report: pytest.TestReport) -> str | None:
    """The message that a report carries, if it is a note."""
    return next((str(value) for name, value in report.user_properties if name == _PROPERTY), None)
