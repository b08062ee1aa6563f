"""The devices of a run: the user's choice, as URIs that name every physical device once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.identity import available_drivers, cpu_name, find_device, list_devices
from pytest_shark_tune.device.lease import DeviceLeases, device_key
from pytest_shark_tune.device.protocol import DeviceEntry
from pytest_shark_tune.errors import DeviceChildDied, DeviceRequestFailed, InputError

__all__ = ["FoundDevices", "choose_devices", "crowding", "devices_for", "jobs_of_worker"]

_HIDING_VARIABLES = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "hip": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}
"""The variables that hide devices from a driver and renumber the others."""


class FoundDevices(TypedDict):
    """The devices to measure on."""

    uris: list[str]
    name: str
    """The model, which is the same for all of them."""


def devices_for(target: Target, asked: Sequence[str] = ()) -> FoundDevices:
    """Find the devices of a target, and make sure that they can be locked.

    Args:
        target: The target.
        asked: The URIs that the user chose; by default all devices of the target's driver.

    Raises:
        InputError: there is no such device, or the devices differ, or they cannot be locked. The message begins with
            the option ``--tune-device``.
    """
    driver = target.driver
    if driver.startswith("local"):
        found: FoundDevices = {"uris": _processor(asked or (driver,), target), "name": cpu_name()}
    else:
        found = choose_devices(asked, target, _devices_of_driver, os.environ)
    try:
        DeviceLeases(found["uris"]).check()
    except InputError as error:
        raise InputError(f"--tune-device: {error}") from error
    return found


def choose_devices(
    asked: Sequence[str], target: Target, listed: Callable[[str], Sequence[DeviceEntry]], env: Mapping[str, str]
) -> FoundDevices:
    """Choose among the devices of a GPU's driver. A device that is named twice counts once.

    The URIs in the result are the driver's own, by UUID if it has one: an index means another device under another
    CUDA_VISIBLE_DEVICES.

    Args:
        asked: The URIs that the user chose; by default all devices.
        target: The target.
        listed: Lists the devices of a driver.
        env: The environment. A message names its variables that hide devices.

    Raises:
        InputError: there is no such device, or the devices differ.
    """
    driver = target.driver
    for uri in asked:
        _check_scheme(uri, target)
    entries = listed(driver)
    chosen: dict[str, DeviceEntry] = {}
    for uri in asked or [_own_uri(entry) for entry in entries]:
        entry = find_device(uri, entries)
        if entry is None:
            raise InputError(_absent(uri, driver, entries, env))
        _, mark, settings = uri.partition("?")
        chosen.setdefault(f"{_own_uri(entry)}{mark}{settings}", entry)
    if not chosen:
        raise InputError(_absent("", driver, entries, env))
    _refuse_one_device_twice(list(chosen))
    names = {entry.name for entry in chosen.values()}
    if len(names) > 1:
        raise InputError(
            f"--tune-device: the devices differ ({', '.join(sorted(names))}): a time on one says nothing of another"
        )
    return {"uris": list(chosen), "name": names.pop()}


def jobs_of_worker(jobs: int, workers: int, target: Target, *, measures: bool = True) -> int:
    """Divide the compilations that run at a time among the workers.

    If the compiler runs on the processor that is measured, only one worker compiles at a time, and gets all jobs.

    Args:
        jobs: The compilations at a time of the whole run.
        workers: The number of workers.
        target: The target.
        measures: Whether the run measures at all.
    """
    return jobs if target.shares_processor and measures else max(1, jobs // max(1, workers))


def crowding(workers: int, devices: Sequence[str]) -> str:
    """The message about workers that take turns on devices; empty if there are enough devices, or none at all."""
    if workers <= len(devices) or not devices:
        return ""
    share = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    return (
        f"{workers} workers share {share} ({', '.join(devices)}) and measure in turns: more workers than devices "
        "bring no speed, and -n auto starts one for each device"
    )


def _processor(asked: Sequence[str], target: Target) -> list[str]:
    """The URI of this host's processor, of which the user may name one."""
    uris = list(dict.fromkeys(asked))
    for uri in uris:
        _check_scheme(uri, target)
    _refuse_one_device_twice(uris)
    if uris != [target.driver]:
        _check_opens(uris[0])
    return uris


def _devices_of_driver(driver: str) -> list[DeviceEntry]:
    try:
        return list_devices(driver)
    except (DeviceRequestFailed, DeviceChildDied) as error:
        hidden = _hidden(driver, os.environ)
        raise InputError(f"--tune-device: driver {driver} finds no device here{hidden}: {error}") from error


def _own_uri(entry: DeviceEntry) -> str:
    """The URI of a device, which is by index if the driver gives devices no path."""
    return entry.uri if entry.path or not entry.index else f"{entry.uri}://{entry.index}"


def _check_scheme(uri: str, target: Target) -> None:
    scheme = uri.partition("://")[0].partition("?")[0]
    schemes = ("local-task", "local-sync") if target.driver.startswith("local") else (target.driver,)
    if scheme not in available_drivers():
        raise InputError(
            f"--tune-device: there is no driver {scheme!r} for {uri!r}; this runtime has "
            f"{', '.join(available_drivers())}"
        )
    if scheme not in schemes:
        raise InputError(f"--tune-device: code for {target} runs on {' or '.join(schemes)}, not on {uri!r}")


def _refuse_one_device_twice(uris: Sequence[str]) -> None:
    """Refuse one device driven in two ways, as its times would differ by the way and not by the candidate."""
    seen: dict[str, str] = {}
    for uri in uris:
        other = seen.setdefault(device_key(uri), uri)
        if other != uri:
            raise InputError(f"--tune-device: {other!r} and {uri!r} are one device: name it once")


def _absent(uri: str, driver: str, entries: Sequence[DeviceEntry], env: Mapping[str, str]) -> str:
    listed = ", ".join(_own_uri(entry) for entry in entries) or "none"
    absent = f"there is no device {uri!r}" if uri else "there is no device"
    return f"--tune-device: {absent}; driver {driver} has {listed}{_hidden(driver, env)}"


def _hidden(driver: str, env: Mapping[str, str]) -> str:
    """A phrase that names the variables that may hide a device; empty without any."""
    given = [f"{name}={env[name]!r}" for name in _HIDING_VARIABLES.get(driver, ()) if name in env]
    return f" with {' and '.join(given)}, which hides every other" if given else ""


def _check_opens(uri: str) -> None:
    """Refuse a URI of this host's processor that its driver does not open. The driver does not list such URIs."""
    try:
        DeviceChild(uri).close()
    except (DeviceRequestFailed, DeviceChildDied) as error:
        raise InputError(f"--tune-device: there is no device {uri!r}: {error}") from error
