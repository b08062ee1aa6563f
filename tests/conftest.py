"""`python -m pytest` runs the suite in a worker for each processor, unless it names tests, workers or `--pdb`."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let what the tests of a worker start be no part of a run with workers."""
    if hasattr(config, "workerinput"):
        del os.environ["PYTEST_XDIST_WORKER"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the first slow test of each module, before `-m` looks at marks."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in {item.path: item for item in reversed(slow)}.values():
        item.add_marker("smoke")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the workers before pytest-xdist, if it is there, reads how many there are to be."""
    option = config.option
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    is_open = getattr(option, "numprocesses", 0) is None and not option.tx
    if is_whole and is_open and not (option.usepdb or option.collectonly):
        option.numprocesses = len(os.sched_getaffinity(0))
        option.dist = "loadfile"  # The fixtures of a module are made once.
