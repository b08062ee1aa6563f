"""The hooks that pytest calls in every run. They hand over to the plugins of tuning and guarding."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_shark_tune.errors import NoCompiler
from pytest_shark_tune.plugin import fixtures, options
from pytest_shark_tune.plugin.files import collect_file, named_path, read_commands_file, refuse_hidden_characters
from pytest_shark_tune.plugin.guard.options import GuardOptions
from pytest_shark_tune.plugin.guard.parameters import golden_parameters, guard_parameters, has_snapshots
from pytest_shark_tune.plugin.guard.reporter import GuardReporter
from pytest_shark_tune.plugin.guard.workers import GuardWorkers
from pytest_shark_tune.plugin.marker import guard_marks_of, marks_of
from pytest_shark_tune.plugin.option_table import add_options
from pytest_shark_tune.plugin.reporting import EscapedReports, escaping_errors, warn_of_release

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


_GUARD_MARKER = (
    "tune_guard(*models, golden=FILE): in runs without --tune, guard models against the times of --tune-baseline, and "
    "against golden_time_ms in a JSON file; paths are relative to the test's file"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, the fixtures and, in a run that tunes, its plugins: a mode that is off costs nothing."""
    config.addinivalue_line("markers", _MARKER)
    config.addinivalue_line("markers", _GUARD_MARKER)
    config.pluginmanager.register(fixtures, "shark-tune-fixtures")
    if not hasattr(config, "workerinput"):  # The process that controls the run shows the reports of all.
        config.pluginmanager.register(EscapedReports(), "shark-tune-reports")
    with escaping_errors():
        _configure_plugin(config)


def _configure_plugin(config: pytest.Config) -> None:
    refuse_hidden_characters(config)
    guard = GuardOptions.from_pytest_config(config)
    read_commands_file(config)
    if options.spec_is_trusted(config):
        _trust_specs(config)
    if options.tuning_is_on(config):
        _prepare_bindings(config)
        from pytest_shark_tune.plugin.tune.plugin import start_tuning

        if not options.bundle_is_given(config):
            warn_of_release(config)
        start_tuning(config)
    elif not hasattr(config, "workerinput"):
        config.pluginmanager.register(GuardReporter(config, guard), "shark-tune-guard-reporter")
        config.pluginmanager.register(GuardWorkers(config), "shark-tune-guard-workers")


def _trust_specs(config: pytest.Config) -> None:
    """Accept specs that hold anything until the end of this run."""
    _prepare_bindings(config)
    from pytest_shark_tune.dispatch.foreign.trust import trusting_specs

    trust = ExitStack()
    trust.enter_context(trusting_specs())
    config.add_cleanup(trust.close)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start a worker for every device with ``-n auto``; xdist calls this before anything is configured."""
    if not options.tuning_is_on(config) and not _guards_only(config):
        return None
    _prepare_bindings(config)
    from pytest_shark_tune.plugin.preflight import find_devices

    try:
        with escaping_errors():
            chosen = options.TuneOptions.from_pytest_config(config)
            devices = None if chosen.stop_after else find_devices(chosen)
        # Compiling takes no device, and one process keeps all processors busy.
        return 0 if devices is None else len(devices["uris"])
    except pytest.UsageError:
        if options.tuning_is_on(config):
            raise
        return None  # Static checks need no device and run on all processors.


def _prepare_bindings(config: pytest.Config) -> None:
    """Replace the compiler's bindings in a run that measures a bundle: they need not be installed.

    Raises:
        pytest.UsageError: they are not installed, and the run needs them.
    """
    from pytest_shark_tune.ops.bindings import check_installed, stand_in

    if options.bundle_is_given(config):
        stand_in()
        return
    try:
        check_installed()
    except NoCompiler as error:
        option = "--tx: " if hasattr(config, "workerinput") else "--tune: " if options.tuning_is_on(config) else ""
        raise pytest.UsageError(f"{option}{error}; only --tune-bundle does without it") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a marked test guard committed specs in a run without ``--tune``, and skip it if there are none."""
    marks = marks_of(metafunc.definition)
    if not options.tuning_is_on(metafunc.config) and marks is not None and "candidate" in metafunc.fixturenames:
        metafunc.parametrize("candidate", guard_parameters(metafunc, marks.sources), indirect=True)
    guarded = guard_marks_of(metafunc.definition)
    if marks is None and guarded is not None and "candidate" in metafunc.fixturenames:
        params = golden_parameters(metafunc, guarded, tunes=options.tuning_is_on(metafunc.config))
        metafunc.parametrize("candidate", params, indirect=True)


def _guards_only(config: pytest.Config) -> bool:
    """Whether this run guards all paths on the command line, as far as their directories tell."""
    if config.getoption("tune_guard"):  # A spec in the ini file may be for other runs.
        return True
    places = [named_path(config, argument) for argument in config.args]
    return bool(places) and all(has_snapshots(place if place.is_dir() else place.parent) for place in places)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a model or the list of commands."""
    return collect_file(file_path, parent)
