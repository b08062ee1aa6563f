"""Messages of xdist's workers to the user while a test runs.

A worker has no terminal, and the controller gets nothing but reports from it. So a message travels with a report of its
own, of a setup that passed: pytest neither counts nor shows such a report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.system.steps import Step

if TYPE_CHECKING:  # It loads more than a run that neither tunes nor guards needs.
    from pytest_shark_tune.plugin.terminal.display import Display

__all__ = ["MessageSender", "display_of", "message_of", "progress_callback", "property_of"]

_PROPERTY = "shark_tune_message"
_STEP = "shark_tune_step"


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
            user_properties=[(_STEP, message.to_json()) if isinstance(message, Step) else (_PROPERTY, message)],
        )
        self._config.hook.pytest_runtest_logreport(report=report)


def display_of(config: pytest.Config) -> Display:
    """Return the display of the process that controls the run; the first call makes it."""
    from pytest_shark_tune.plugin.terminal.display import DISPLAY, Display

    display = config.pluginmanager.get_plugin(DISPLAY)
    return display if isinstance(display, Display) else Display(config)


def message_of(report: pytest.TestReport) -> str | None:
    """Return the message or the step that a report carries, if it is one of these."""
    step = property_of(report, _STEP)
    return Step.from_json(step) if step is not None else property_of(report, _PROPERTY)


def property_of(report: pytest.TestReport | pytest.CollectReport, name: str) -> str | None:
    """Return the property ``name`` of a report, if it has that one."""
    # A report on collecting a file has no properties.
    return next((str(value) for key, value in getattr(report, "user_properties", ()) if key == name), None)


def progress_callback(config: pytest.Config) -> Callable[[str], None]:
    """Return a callback that shows the user a message or a step; a worker's goes through the controller."""
    if hasattr(config, "workerinput"):
        sender = MessageSender(config)
        config.pluginmanager.register(sender, "shark-tune-messages")
        return sender.send

    return display_of(config).say
