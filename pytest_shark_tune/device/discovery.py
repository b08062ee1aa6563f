"""The devices of a run: which of them the user chose, as URIs that name each physical device once."""

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
"""The variables that hide devices from a driver, and give those that are left other indices."""


class FoundDevices(TypedDict):
    """The devices to measure on: a URI for each, and the model's name, which they share."""

    uris: list[str]
    name: str


def devices_for(target: Target, asked: Sequence[str] = ()) -> FoundDevices:
    """The devices of a target that are asked for, or all of its driver, which can be locked.

    Raises:
        InputError: there is no such device, or the devices differ, or they cannot be locked; the message begins with
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
    """Those of the devices that ``listed`` gives for a GPU's driver that are asked for, or all; each of them once.

    Their URIs are the driver's own, by UUID where it tells one: an index means another device for whoever sets
    CUDA_VISIBLE_DEVICES to something else.

    Raises:
        InputError: a device is not there, or they differ; a variable of ``env`` that hides some is named.
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
    """How many compilations at a time are each worker's, of the ``jobs`` of the whole run.

    Where the compiler runs on what is measured, if the run ``measures``, one process at a time compiles, with all.
    """
    return jobs if target.shares_processor and measures else max(1, jobs // max(1, workers))


def crowding(workers: int, devices: Sequence[str]) -> str:
    """What to tell the user where workers have to take turns on devices; empty where they do not, or have none."""
    if workers <= len(devices) or not devices:
        return ""
    share = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    return (
        f"{workers} workers share {share} ({', '.join(devices)}) and measure in turns: more workers than devices "
        "bring no speed, and -n auto starts one for each device"
    )


def _processor(asked: Sequence[str], target: Target) -> list[str]:
    """The one URI of this host's processor that is asked for."""
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
    """The URI of one device, also of a driver that gives them no path."""
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
    """Refuse one device driven in two ways: its times would differ by the way, not by the candidate."""
    seen: dict[str, str] = {}
    for uri in uris:
        other = seen.setdefault(device_key(uri), uri)
        if other != uri:
            raise InputError(f"--tune-device: {other!r} and {uri!r} are one device: name it once")


def _absent(uri: str, driver: str, entries: Sequence[DeviceEntry], env: Mapping[str, str]) -> str:
    listed = ", ".join(_own_uri(entry) for entry in entries) or "none"
    what = f"there is no device {uri!r}" if uri else "there is no device"
    return f"--tune-device: {what}; driver {driver} has {listed}{_hidden(driver, env)}"


def _hidden(driver: str, env: Mapping[str, str]) -> str:
    """The variables that may hide the device in question, in words; empty without any."""
    given = [f"{name}={env[name]!r}" for name in _HIDING_VARIABLES.get(driver, ()) if name in env]
    return f" with {' and '.join(given)}, which hides every other" if given else ""


def _check_opens(uri: str) -> None:
    """Refuse a URI of this host's processor that its driver does not open; it lists none of them."""
    try:
        DeviceChild(uri).close()
    except (DeviceRequestFailed, DeviceChildDied) as error:
        raise InputError(f"--tune-device: there is no device {uri!r}: {error}") from error
