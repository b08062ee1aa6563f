"""Registers the plugins of a process of a tuning run."""

from __future__ import annotations

import pytest

from pytest_shark_tune.plugin.benchmark import BenchmarkBridge, DeviceStamp
from pytest_shark_tune.plugin.tune.controller import TuneController, store_of
from pytest_shark_tune.plugin.tune.plugin import TuningPlugin
from pytest_shark_tune.plugin.tune.setup import set_up

__all__ = ["start_tuning"]


def start_tuning(config: pytest.Config) -> None:
    """Check the options, and register what this process of the run needs.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    setup = set_up(config)
    store = None if hasattr(config, "workerinput") else store_of(setup)
    config.pluginmanager.register(TuningPlugin(config, setup, store), "shark-tune-session")
    config.pluginmanager.register(DeviceStamp(setup.settings.device_name))
    if store is not None:  # After the first plugin, so that at the end of the run its turn comes before.
        config.pluginmanager.register(TuneController(config, setup, store), "shark-tune-controller")
        config.pluginmanager.register(BenchmarkBridge(config), "shark-tune-benchmark")
