"""Lines of their own among pytest's dots."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from pytest_shark_tune.plugin import reporting

__all__ = ["show_line"]


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
