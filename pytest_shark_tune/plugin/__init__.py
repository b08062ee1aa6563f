"""What pytest calls. Each hook gathers, calls the session, returns."""

from __future__ import annotations

import os
import shlex
import sys
import types
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin import fixtures
from pytest_shark_tune.plugin.guard.reporter import SNAPSHOTS, UNGUARDED, GuardReporter
from pytest_shark_tune.plugin.marker import marks_of
from pytest_shark_tune.plugin.options import (
    GuardOptions,
    TuneOptions,
    add_options,
    bundle_is_given,
    commands_file,
    given_options,
    guard_is_given,
    spec_is_trusted,
    target_name,
    tuning_is_on,
)
from pytest_shark_tune.plugin.reporting import EscapedReports, escaping_errors
from pytest_shark_tune.system.terminal import escaped_line

if TYPE_CHECKING:
    from pytest_shark_tune.ops import OpSource
    from pytest_shark_tune.plugin.cases import Trial

__all__ = [
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_xdist_auto_num_workers",
]

_COMMANDS = pytest.StashKey[tuple[Path, "tuple[OpSource, ...]"]]()
"""The list of commands that this run takes, and the ops in it."""
_MODELS = (".mlir", ".mlirbc", ".onnx")
_MARKER = (
    "tune(*sources): tune the dispatches of the sources: an op (pytest_shark_tune.ops), or a path to .mlir, .mlirbc "
    "or .onnx, relative to the test's file; or a kernel of your own, as a pytest_shark_tune.CustomTask"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the fixtures; start a session where this run tunes. What is off costs nothing."""
    config.addinivalue_line("markers", _MARKER)
    config.pluginmanager.register(fixtures, "shark-tune-fixtures")
    if not hasattr(config, "workerinput"):  # The process that controls the run shows what all of them say.
        config.pluginmanager.register(EscapedReports(), "shark-tune-reports")
    with escaping_errors():
        _configure(config)


def _configure(config: pytest.Config) -> None:
    _refuse_hidden_characters(config)
    guard = GuardOptions.from_pytest_config(config)
    _take_commands(config)
    if spec_is_trusted(config):
        _trust_specs(config)
    if tuning_is_on(config):
        _prepare_bindings(config)
        from pytest_shark_tune.plugin.benchmark import BenchmarkBridge, DeviceStamp
        from pytest_shark_tune.plugin.keys import SESSION_KEY
        from pytest_shark_tune.plugin.tune.plugin import TuningPlugin

        config.pluginmanager.register(TuningPlugin.start(config), "shark-tune-session")
        config.pluginmanager.register(DeviceStamp(config.stash[SESSION_KEY].settings.device_name))
        if not hasattr(config, "workerinput"):  # The process that controls the run.
            config.pluginmanager.register(BenchmarkBridge(config), "shark-tune-benchmark")
    elif not hasattr(config, "workerinput"):
        config.pluginmanager.register(GuardReporter(config, guard), "shark-tune-guard-reporter")


def _trust_specs(config: pytest.Config) -> None:
    """Let specs hold anything until the end of this run."""
    _prepare_bindings(config)
    from pytest_shark_tune.dispatch.trust import trusting_specs

    trust = ExitStack()
    trust.enter_context(trusting_specs())
    config.add_cleanup(trust.close)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """``-n auto`` means a worker for each device; xdist asks before anything is configured."""
    if not tuning_is_on(config) and not _guards_only(config):
        return None
    _prepare_bindings(config)
    from pytest_shark_tune.device.discovery import find_devices

    try:
        with escaping_errors():
            options = TuneOptions.from_pytest_config(config)
            devices = None if options.stop_after else find_devices(options)
        # Compiling takes no device, and one process keeps all processors busy.
        return 0 if devices is None else len(devices["uris"])
    except pytest.UsageError:
        if tuning_is_on(config):
            raise
        return None  # Guarding goes without a device, on all processors.


def _prepare_bindings(config: pytest.Config) -> None:
    """A run that measures a bundle goes without the compiler, which need not be installed."""
    if bundle_is_given(config):
        from pytest_shark_tune.ops.builders import stand_in

        stand_in()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without ``--tune``, a marked test guards what was tuned; where nothing was, it is skipped."""
    marks = marks_of(metafunc.definition)
    if tuning_is_on(metafunc.config) or marks is None or "candidate" not in metafunc.fixturenames:
        return
    path, config = metafunc.definition.path, metafunc.config
    kernels = _kernels(marks.sources)
    params = [
        _skipped(name, f"{name} is a kernel of the suite's own, so no spec has an entry to guard") for name in kernels
    ]
    if len(kernels) < len(marks.sources) or not marks.sources:
        trials: Sequence[Trial] = ()
        if guard_is_given(config) or (path.suffix == ".py" and _has_snapshots(path.parent)):
            from pytest_shark_tune.plugin.guard.plugin import guard_trials_of

            trials = guard_trials_of(metafunc, marks.sources)
        params += [pytest.param(trial, id=escaped_line(trial.id)) for trial in trials]
        params += [] if trials else [_skipped(UNGUARDED, _nothing_to_guard(path, config))]
    metafunc.parametrize("candidate", params, indirect=True)


def _kernels(given: Sequence[object]) -> list[str]:
    """The names of the custom tasks among what a marker names: whoever makes one has loaded that module."""
    custom = sys.modules.get("pytest_shark_tune.plan.custom")
    return [each.name for each in given if isinstance(each, custom.CustomTask)] if custom is not None else []


def _skipped(name: str, reason: str) -> Any:
    """The parameter of a test that is skipped."""
    return pytest.param(None, id=escaped_line(name), marks=pytest.mark.skip(reason=reason))


def _has_snapshots(folder: Path) -> bool:
    return any((folder / SNAPSHOTS).glob("*.mlir"))


def _guards_only(config: pytest.Config) -> bool:
    """Whether whatever is named on the command line is there to be guarded, as far as one can tell by its place."""
    if config.getoption("tune_guard"):  # An ini file may name one for other runs.
        return True
    places = [_place(config, each) for each in config.args]
    return bool(places) and all(_has_snapshots(place if place.is_dir() else place.parent) for place in places)


def _nothing_to_guard(path: Path, config: pytest.Config) -> str:
    """Why a test is skipped, with the command that changes that."""
    target = target_name(config)
    named = [os.path.relpath(path, config.invocation_params.dir)] if path != commands_file(config) else []
    words = ["pytest", *named, "--tune", *given_options(config)]
    if path.suffix == ".py":
        return f"there is no snapshot for {target} to guard: {shlex.join(words)} makes one"
    return f"there is nothing to guard: {shlex.join(words)} tunes it, --tune-guard SPEC checks a spec"


def _refuse_hidden_characters(config: pytest.Config) -> None:
    """Refuse a path that pytest would show, in ids and its progress, as something else than it is.

    Where nothing is tuned only models are ours to refuse.

    Raises:
        pytest.UsageError: a path has characters that are not printed, or a form that a CI system obeys.
    """
    for each in config.args:
        is_ours = tuning_is_on(config) or any(suffix in each for suffix in _MODELS)
        if is_ours and escaped_line(each) != each:
            raise pytest.UsageError(
                f"{escaped_line(each)}: this name has characters that are not shown: rename the file"
            )


def _take_commands(config: pytest.Config) -> None:
    """Read the list of commands and have it collected: alone, or besides what the command line names.

    A list that an ini file names is collected besides what pytest collects by itself, and not where something is named.

    Raises:
        pytest.UsageError: it cannot be read, or a line cannot be expressed.
    """
    path = commands_file(config)
    if path is None:
        return
    names = [Path(os.path.abspath(_place(config, each))) for each in config.args]  # noqa: PTH100
    if path not in names:
        is_named = config.args_source is pytest.Config.ArgsSource.ARGS
        is_asked = bool(config.getoption("tune_commands"))
        if is_named and not is_asked:
            return
        config.args[:] = [*(config.args if is_named or not is_asked else ()), str(path)]
    from pytest_shark_tune.ops.driver_commands import read_commands

    try:
        config.stash[_COMMANDS] = path, read_commands(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise pytest.UsageError(f"--tune-commands: {path} cannot be read: {problem}") from error
    except InputError as error:
        raise pytest.UsageError(f"--tune-commands: {error}") from error


def _place(config: pytest.Config, argument: str) -> Path:
    """The file or folder that an argument names."""
    return Path(config.invocation_params.dir, argument.partition("::")[0])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a model that is named on the command line; models found on the way are left alone.

    So is the list of commands: no other file of such a name is one.
    """
    commands, _ = parent.config.stash.get(_COMMANDS, (None, ()))
    if file_path == commands:
        return CommandsFile.from_parent(parent, path=file_path)
    if file_path.suffix not in _MODELS or not parent.session.isinitpath(file_path):
        return None
    return ModelFile.from_parent(parent, path=file_path)


class ModelFile(pytest.Module):
    """A model file as a module with one test function that is marked to tune it."""

    def _sources(self) -> Sequence[object]:
        return [self.path]

    def _getobj(self) -> types.ModuleType:
        @pytest.mark.tune(*self._sources())
        def test_dispatch(candidate: Any, artifact: Any, measurement: Any) -> None:
            """One test per pair of a dispatch of the file and a candidate."""

        module = types.ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        module.test_dispatch = test_dispatch  # type: ignore[attr-defined]
        return module


class CommandsFile(ModelFile):
    """A list of commands as such a module, whose function is marked to tune the ops in the list."""

    def _sources(self) -> Sequence[object]:
        return self.config.stash[_COMMANDS][1]
