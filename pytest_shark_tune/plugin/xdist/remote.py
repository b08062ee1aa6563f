"""Workers in other directories, or on other hosts that share a file system with this one."""

from __future__ import annotations

import getpass
import os
import platform
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_shark_tune.device.discovery import FoundDevices, jobs_of_worker
from pytest_shark_tune.device.identity import runtime_version
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import find_devices
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.directories import HeldDirectory, check_owner, remove_if_free
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = [
    "ProcessShare",
    "end_with_run",
    "hand_over",
    "is_remote",
    "mark_lost",
    "paths_of_worker",
    "refuse_each",
    "share_of_worker",
    "shared_directory",
]

_RUNS = "runs"
_OLD_S = 86400.0
"""The age at which the directory of a run that was killed is removed."""
_LOST = "lost"
_LOOK_EVERY_S = 1.0


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


def refuse_each(config: pytest.Config) -> None:
    """Refuse ``--dist each``, which no run that tunes can do.

    Raises:
        pytest.UsageError: it is given, and there are workers.
    """
    if getattr(config.option, "dist", "no") == "each" and getattr(config.option, "tx", None):
        raise pytest.UsageError(
            "--dist each: a run that tunes shares the tests of one search among its workers, and runs none of them "
            "twice: use --dist load, or tune on each host by itself and join the results with shark-tune merge-records"
        )


def shared_directory(cache: Path) -> HeldDirectory:
    """Make a directory for the processes of one run in the cache, the directory that all of them share.

    Directories of killed runs are removed once they are old. A run holds its own, which therefore stays even if a clock
    jumps. On a file system without locks they all stay.
    """
    runs = cache / _RUNS
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        with suppress(OSError):  # Another run may have removed it.
            if time.time() - _last_used(old) > _OLD_S:
                remove_if_free(old)
    return HeldDirectory(runs, prefix="run-")


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
    workerinput["shark_tune_spent_s"] = settings.budget.spent_s
    workerinput["shark_tune_user"] = _user()
    workerinput["shark_tune_versions"] = _versions(options)
    workerinput["shark_tune_host"] = platform.node()
    workerinput["shark_tune_cache"] = os.fspath(options.cache)
    workerinput["shark_tune_out"] = os.fspath(options.out)
    workerinput["shark_tune_bundle"] = os.fspath(options.bundle) if options.bundle is not None else ""


def paths_of_worker(workerinput: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a worker takes from its controller, since its own working directory may differ.

    Raises:
        pytest.UsageError: the worker does not see the directory that the run shares, or may not use it.
    """
    run_directory = Path(workerinput["shark_tune_run_directory"])
    option = "--tune-cache" if workerinput["shark_tune_is_remote"] else "TMPDIR"
    here, controller = platform.node(), workerinput["shark_tune_host"]
    try:
        is_there = run_directory.is_dir() and os.access(run_directory, os.R_OK | os.W_OK | os.X_OK)
        if is_there:
            check_owner(run_directory)
    except (PermissionError, InputError) as error:
        raise pytest.UsageError(
            f"{option}: {run_directory} is the directory of a run of user {workerinput['shark_tune_user']} on "
            f"{controller}, and this worker on {here} runs as {_user()}: log in there as the user who starts the run"
        ) from error
    if not is_there:
        raise pytest.UsageError(
            f"{option}: there is no {run_directory} on {here} that can be written to: {option} has to name a directory "
            f"that all workers share with {controller}, under the same path"
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
        pytest.UsageError: the worker's host has other versions of IREE, or no devices like the controller's.
    """
    _check_versions(workerinput, options)
    jobs = jobs_of_worker(options.jobs, workerinput["workercount"], options.target, measures=not options.stop_after)
    return ProcessShare(
        devices=_devices_of_worker(workerinput, options),
        run_directory=Path(workerinput["shark_tune_run_directory"]),
        jobs=jobs,
        is_remote=workerinput["shark_tune_is_remote"],
        budget=_budget_of_worker(workerinput, options),
    )


def _budget_of_worker(workerinput: dict[str, Any], options: TuneOptions) -> TimeBudget:
    """The time of the run, by the clock of the worker's host."""
    began_s = time.monotonic() - workerinput["shark_tune_spent_s"]
    if workerinput["shark_tune_host"] == platform.node():
        began_s = workerinput["shark_tune_began_s"]
    return TimeBudget(total_s=options.time_s, began_s=began_s)


def _versions(options: TuneOptions) -> dict[str, str]:
    """The versions of IREE that a process of the run works with."""
    compiler = {} if options.bundle is not None else {"iree-base-compiler": options.compiler.version}
    return compiler | {"iree-base-runtime": runtime_version()}


def _check_versions(workerinput: dict[str, Any], options: TuneOptions) -> None:
    """Make sure that the worker has its controller's versions: results of others do not compare.

    Raises:
        pytest.UsageError: it has not.
    """
    for package, version in _versions(options).items():
        if version != (given := workerinput["shark_tune_versions"].get(package)):
            raise pytest.UsageError(
                f"--tx: {platform.node()} has {package} {version}, and {workerinput['shark_tune_host']} has {given}: "
                "install the same version on both"
            )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # An id without a name, as in containers.
        return str(os.geteuid())


def mark_lost(run_directory: Path, worker: str) -> None:
    """Tell a worker whose connection is lost that another one has taken its place."""
    with suppress(OSError):  # If nothing can be written there, the run ends.
        (run_directory / _LOST).mkdir(exist_ok=True)
        (run_directory / _LOST / worker).touch()


def end_with_run(run_directory: Path, worker: str) -> None:
    """Have this process end once its controller counts it as lost, or the run is over.

    If a network fails, the end of a connection reaches only the side that looks for it, and ssh servers do not by
    default. Without this, a worker would hold its device until somebody ended it by hand.
    """
    mark = run_directory / _LOST / worker

    def look() -> None:
        while run_directory.is_dir() and not mark.exists():
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="end-with-run", daemon=True).start()


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
