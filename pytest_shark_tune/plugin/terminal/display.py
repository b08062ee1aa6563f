"""The progress of a run on pytest's terminal: a live line where that is possible, and a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from pytest_shark_tune.plugin.terminal.live_line import LiveLine
from pytest_shark_tune.plugin.terminal.plain import show_line
from pytest_shark_tune.report.progress_text import RunProgress
from pytest_shark_tune.report.tables import wrapped
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.system.terminal import escaped

__all__ = ["DISPLAY", "Display"]

DISPLAY = "shark-tune-display"
"""The name of the display among pytest's plugins."""

_COLUMNS = 80
_QUIET_S = 30.0
"""The least time between two lines about one stage, where there is no live line."""


class Display:
    """Shows messages and progress. It is a plugin of pytest's, so that it knows when the run ends.

    Args:
        config: pytest's configuration. It must be at work on it, since tests are not captured then.
        clock: returns the time in seconds.
    """

    def __init__(self, config: pytest.Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._live = LiveLine(sys.__stdout__.fileno()) if sys.__stdout__ and _may_be_live(config) else None
        self._shown_s = -_QUIET_S
        self._shown_stage: Stage | None = None
        self._step = ""
        self.progress: RunProgress | None = None
        config.pluginmanager.register(self, DISPLAY)

    @property
    def is_live(self) -> bool:
        """Whether a line is kept up to date, so that dots for candidates tell nothing more."""
        return self._live is not None

    def say(self, message: str) -> None:
        """Show a message; a step replaces the one before."""
        if not isinstance(message, Step):
            self._keep("\n".join(wrapped(f"shark-tune: {message}", _columns())))
            return
        if self.progress is not None:
            self.progress.add_step(message)
        self._step = str(message)
        self.refresh(message.stage)

    def refresh(self, stage: Stage) -> None:
        """Show the present progress: at once where it is live or a stage begins, and every half minute elsewhere."""
        if self._live is not None:
            self._take_line()
            self._live.show(lambda: f"shark-tune: {self._line()}")
        elif stage is not self._shown_stage or self._clock() >= self._shown_s + _QUIET_S:
            self._shown_stage, self._shown_s = stage, self._clock()
            line, columns = f"shark-tune: {self._line()}", _columns()
            show_line(self._config, line if len(line) <= columns else f"{line[: columns - 1]}…")

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self) -> None:
        """Remove the live line before the summary."""
        self._close()

    def pytest_unconfigure(self) -> None:
        """Remove the live line of a run without a summary."""
        self._close()

    def _line(self) -> str:
        return self.progress.line() if self.progress is not None else self._step

    def _keep(self, line: str) -> None:
        if self._live is None:
            show_line(self._config, line)
            return
        self._take_line()
        self._live.write_above(escaped(line))

    def _take_line(self) -> None:
        """End the line that pytest has begun: the live line takes a line of its own."""
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or self._live is None:
            return
        self._live.make_room_in(reporter)
        if reporter._tw.width_of_current_line:
            reporter._tw._current_line = ""
            self._live.write_above("")

    def _close(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, _COLUMNS)


def _may_be_live(config: pytest.Config) -> bool:
    """Whether this run has a terminal to itself, and its user has asked neither for more nor for less output."""
    if config.option.verbose or config.getoption("capture", "fd") == "no" or config.getoption("usepdb", False):
        return False
    out = sys.__stdout__
    is_terminal = out is not None and sys.stdout is out and out.isatty()
    return is_terminal and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")
