"""The workers of a guard run, as their controller sees them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.plugin.guard.reporter import PROPERTY
from pytest_shark_tune.plugin.xdist.messages import display_of, property_of

if TYPE_CHECKING:
    from pytest_shark_tune.system.directories import HeldDirectory

__all__ = ["RUN_DIRECTORY", "GuardWorkers"]

RUN_DIRECTORY = "shark_tune_guard_run_directory"
"""The key in a worker's input for the directory that all workers of a run share."""


class GuardWorkers:
    """Gives workers a directory to share, and goes on without those whose host is lost once something is guarded."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run_directory: HeldDirectory | None = None
        self._guards = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker the directory that it shares with the others, in case one of them has something to guard."""
        from pytest_shark_tune.system.directories import HeldDirectory

        with suppress(OSError):  # Every worker then makes one for itself, or says why it cannot.
            self._run_directory = self._run_directory or HeldDirectory()
            node.workerinput[RUN_DIRECTORY] = os.fspath(self._run_directory.path)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Have the loss of a host end no run that guards, from the first result on."""
        if self._guards or property_of(report, PROPERTY) is None:
            return
        self._guards = True
        controller = self._config.pluginmanager.get_plugin("dsession")
        if controller is not None:
            from pytest_shark_tune.plugin.xdist.hosts import survive_lost_hosts

            survive_lost_hosts(controller, display_of(self._config).say)

    def pytest_unconfigure(self) -> None:
        """Remove the directory."""
        if self._run_directory is not None:
            self._run_directory.remove()
