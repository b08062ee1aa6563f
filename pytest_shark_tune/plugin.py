"""What pytest calls. Each hook gathers, calls the session, returns."""

from __future__ import annotations

import os
import shlex
import types
from pathlib import Path
from typing import Any

import pytest

from pytest_shark_tune.options import TuneOptions, add_options, tuning_is_on

__all__ = [
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_xdist_auto_num_workers",
]

_MARKER = (
    "tune(*sources): tune the dispatches of the sources: an op (pytest_shark_tune.ops), or a path to .mlir, .mlirbc "
    "or .onnx, relative to the test's file; or a kernel of your own, as a pytest_shark_tune.CustomTask"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; start a session where this run tunes. What is switched off imports nothing."""
    config.addinivalue_line("markers", _MARKER)
    if tuning_is_on(config):
        from pytest_shark_tune.benchmark_bridge import BenchmarkBridge, DeviceStamp
        from pytest_shark_tune.fixtures import SESSION_KEY
        from pytest_shark_tune.tuning import TuningPlugin

        config.pluginmanager.register(TuningPlugin.start(config), "shark-tune-session")
        config.pluginmanager.register(DeviceStamp(config.stash[SESSION_KEY].settings.device_name))
        if not hasattr(config, "workerinput"):  # The process that controls the run.
            config.pluginmanager.register(BenchmarkBridge(config), "shark-tune-benchmark")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """``-n auto`` means a worker for each device; xdist asks before anything is configured."""
    if not tuning_is_on(config):
        return None
    from pytest_shark_tune.devices import find_devices

    return len(find_devices(TuneOptions.from_pytest_config(config))["uris"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without ``--tune``, a marked test is skipped with the command that tunes it."""
    if tuning_is_on(metafunc.config) or metafunc.definition.get_closest_marker("tune") is None:
        return
    if "candidate" in metafunc.fixturenames:
        file = os.path.relpath(metafunc.definition.path, metafunc.config.invocation_params.dir)
        skip = pytest.mark.skip(reason=f"not tuned without --tune: run pytest {shlex.quote(file)} --tune")
        metafunc.parametrize("candidate", [pytest.param(None, marks=skip)], ids=["tune"])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a model that is named on the command line; models found on the way are left alone."""
    if file_path.suffix not in (".mlir", ".mlirbc", ".onnx") or not parent.session.isinitpath(file_path):
        return None
    return ModelFile.from_parent(parent, path=file_path)


class ModelFile(pytest.Module):
    """A model file as a module with one test function that is marked to tune it."""

    def _getobj(self) -> types.ModuleType:
        @pytest.mark.tune(self.path)
        def test_dispatch(candidate: Any, artifact: Any, measurement: Any) -> None:
            """One test per pair of a dispatch of the model and a candidate."""

        module = types.ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        module.test_dispatch = test_dispatch  # type: ignore[attr-defined]
        return module
