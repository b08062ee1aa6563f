"""Workers in other directories, or on other hosts that share a file system with this one."""

from __future__ import annotations

import os
import platform
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_shark_tune.device.discovery import FoundDevices, jobs_of_worker
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import find_devices
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.directories import is_marked, make_marked
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["ProcessShare", "hand_over", "is_remote", "paths_of_worker", "share_of_worker", "shared_directory"]

_RUNS = "runs"
_OLD_S = 86400.0
"""The age at which a run's directory is removed: hosts do not see each other's processes, so a killed run stays."""


@dataclass(frozen=True)
class ProcessShare:
    """The part of a process in a run, as far as it differs from the part of other processes."""

    devices: FoundDevices
    run_directory: Path
    """The directory that all processes of the run see."""
    jobs: int
    is_remote: bool
    """Whether workers run in other directories or on other hosts."""
    budget: TimeBudget
    """The time that the run may take."""


def is_remote(config: pytest.Config) -> bool:
    """Return whether xdist starts workers in other directories or on other hosts."""
    if not getattr(config.option, "tx", None):
        return False
    from execnet import XSpec
    from xdist.workermanage import parse_tx_spec_config

    specs = map(XSpec, parse_tx_spec_config(config))
    return any(not spec.popen or spec.chdir for spec in specs)


def shared_directory(cache: Path) -> Path:
    """Make a directory for the processes of one run in the cache, the directory that all of them share."""
    runs = cache / _RUNS
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        with suppress(OSError):  # Another run may have removed it.
            if is_marked(old) and time.time() - _last_used(old) > _OLD_S:
                shutil.rmtree(old, ignore_errors=True)
    return make_marked("run-", runs)


def _last_used(directory: Path) -> float:
    """When a file in a run's directory was last written: the controller writes every record there.

    Raises:
        OSError: a file was removed in the meantime.
    """
    return max(path.stat().st_mtime for path in (directory, *directory.rglob("*")))


def hand_over(workerinput: dict[str, Any], options: TuneOptions, settings: RunSettings, remote: bool) -> None:
    """Give a worker the devices and the absolute paths of its controller."""
    workerinput["shark_tune_devices"] = {"uris": list(settings.devices), "name": settings.device_name}
    workerinput["shark_tune_run_directory"] = os.fspath(settings.run_directory)
    workerinput["shark_tune_is_remote"] = remote
    workerinput["shark_tune_began_s"] = settings.budget.began_s
    workerinput["shark_tune_host"] = platform.node()
    workerinput["shark_tune_cache"] = os.fspath(options.cache)
    workerinput["shark_tune_out"] = os.fspath(options.out)
    workerinput["shark_tune_bundle"] = os.fspath(options.bundle) if options.bundle is not None else ""


def paths_of_worker(workerinput: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a worker takes from its controller, since its own working directory may differ.

    Raises:
        pytest.UsageError: the worker does not see the directory that the run shares.
    """
    run_directory = Path(workerinput["shark_tune_run_directory"])
    if not run_directory.is_dir():
        option = "--tune-cache" if workerinput["shark_tune_is_remote"] else "TMPDIR"
        raise pytest.UsageError(
            f"{option}: there is no {run_directory} on {platform.node()}: {option} has to name a directory that all "
            f"workers share with {workerinput['shark_tune_host']}, under the same path"
        )
    bundle = workerinput["shark_tune_bundle"]
    return {
        "cache": Path(workerinput["shark_tune_cache"]),
        "out": Path(workerinput["shark_tune_out"]),
        "bundle": Path(bundle) if bundle else None,
    }


def share_of_worker(workerinput: dict[str, Any], options: TuneOptions) -> ProcessShare:
    """Return the share of a worker in its run.

    Raises:
        pytest.UsageError: the worker's host has no devices like the controller's.
    """
    jobs = jobs_of_worker(options.jobs, workerinput["workercount"], options.target, measures=not options.stop_after)
    return ProcessShare(
        devices=_devices_of_worker(workerinput, options),
        run_directory=Path(workerinput["shark_tune_run_directory"]),
        jobs=jobs,
        is_remote=workerinput["shark_tune_is_remote"],
        budget=TimeBudget(total_s=options.time_s, began_s=workerinput["shark_tune_began_s"]),
    )


def _devices_of_worker(workerinput: dict[str, Any], options: TuneOptions) -> FoundDevices:
    """The devices of a worker: the controller's on the same host, otherwise those of its own host.

    Raises:
        pytest.UsageError: there are none, or they are of another model.
    """
    given: FoundDevices = workerinput["shark_tune_devices"]
    if workerinput["shark_tune_host"] == platform.node() or options.stop_after:
        return given
    found = find_devices(options)
    if found["name"] != given["name"]:
        raise pytest.UsageError(
            f"--tx: {platform.node()} has {found['name']}, {workerinput['shark_tune_host']} has {given['name']}: "
            "a time on one says nothing of another"
        )
    return found
