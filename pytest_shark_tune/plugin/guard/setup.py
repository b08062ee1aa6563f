"""Sets one process of a guard run up: its options and its session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_shark_tune.device.discovery import FoundDevices, jobs_of_worker
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plugin.guard.options import GuardOptions
from pytest_shark_tune.plugin.guard.workers import RUN_DIRECTORY
from pytest_shark_tune.plugin.interrupts import Interrupts
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import check_cache, check_compiler, check_temporary, find_devices
from pytest_shark_tune.plugin.reporting import warn_of_release
from pytest_shark_tune.plugin.xdist.messages import progress_callback
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.directories import is_marked, temporary_directory
from pytest_shark_tune.system.disk_errors import Storage
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["GuardSetup", "set_up_guard"]


@dataclass(frozen=True)
class GuardSetup:
    """One process's share of a guard run."""

    options: TuneOptions
    guard: GuardOptions
    session: GuardSession
    storage: Storage
    interrupts: Interrupts

    @property
    def settings(self) -> RunSettings:
        """The settings of the session."""
        return self.session.settings


def set_up_guard(config: pytest.Config) -> GuardSetup:
    """Check the options and start a session.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    options, guard = TuneOptions.from_pytest_config(config), GuardOptions.from_pytest_config(config)
    compiler = options.compiler
    warn_of_release(config)
    check_temporary()
    check_compiler(options, compiler)
    check_cache(options.cache)
    cleanup.remove_abandoned()
    report = progress_callback(config)
    session = GuardSession(
        _guard_settings(config, options, guard), compiler, Cache(options.cache, report), report=report
    )
    return GuardSetup(
        options=options,
        guard=guard,
        session=session,
        storage=Storage({"--tune-cache": options.cache, "TMPDIR": temporary_directory()}),
        interrupts=Interrupts(terminate=not hasattr(config, "workerinput")),
    )


def _guard_settings(config: pytest.Config, options: TuneOptions, guard: GuardOptions) -> RunSettings:
    worker = getattr(config, "workerinput", None)
    devices = _guard_devices(options)
    shared = Path(worker.get(RUN_DIRECTORY, "")) if worker is not None else Path()
    # The processes of a run share a directory, and leases know them by its name. Workers on other hosts do not see the
    # controller's.
    run_directory = shared if is_marked(shared) else cleanup.new_directory("guard")
    return RunSettings(
        devices=tuple(devices["uris"]),
        device_name=devices["name"],
        jobs=options.jobs if worker is None else jobs_of_worker(options.jobs, worker["workercount"], options.target),
        seed=options.seed,
        run_directory=run_directory,
        request=options.request,
        rotate_bytes=options.rotate_bytes,
        route=guard.route,
        tolerance=guard.tolerance,
        updates_baseline=guard.updates_baseline,
        share=options.share,
        trusts_identity=guard.trusts_identity,
        spread=guard.session_spread(devices["name"]),
        models=options.models,
    )


def _guard_devices(options: TuneOptions) -> FoundDevices:
    """The devices to measure on; none if the target has none here, and then only static checks run.

    Raises:
        pytest.UsageError: a device that is named is not there.
    """
    try:
        return find_devices(options)
    except pytest.UsageError:
        if options.devices:
            raise
        return {"uris": [], "name": ""}
