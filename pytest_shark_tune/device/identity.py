"""The devices of this host, and their models."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from pytest_shark_tune.device.protocol import CHILD_COMMAND, DeviceEntry, ListDevices, ask
from pytest_shark_tune.errors import DeviceRequestFailed, SharkTuneError
from pytest_shark_tune.system.child import Child
from pytest_shark_tune.system.cpu import cpu_identity

__all__ = [
    "available_drivers",
    "cpu_name",
    "device_slug",
    "find_device",
    "list_devices",
    "runtime_version",
    "slug",
    "ways_of_driving",
]


def available_drivers() -> tuple[str, ...]:
    """The names of the HAL drivers in the runtime, sorted. A driver need not find a device here."""
    import iree.runtime as rt

    return tuple(sorted(rt.query_available_drivers()))


def list_devices(driver: str, *, timeout_s: float = 60.0) -> list[DeviceEntry]:
    """List the devices of ``driver``, in a child, so that this process loads no driver.

    Raises:
        DeviceRequestFailed: the driver is unknown or cannot be loaded. The message is the runtime's.
        DeviceChildDied: the driver crashed or hung.
    """
    with Child(CHILD_COMMAND) as child:
        return ask(child, ListDevices(driver), list[DeviceEntry], timeout_s)


@lru_cache(maxsize=64)
def device_slug(uri: str) -> str:
    """The model of the CPU or GPU at ``uri``, for file names: ``amd-epyc``, ``nvidia-h100-80gb-hbm3``.

    Raises:
        DeviceRequestFailed: the driver cannot be loaded or has no such device.
    """
    driver = uri.partition("://")[0]
    if driver.startswith("local"):
        return slug(cpu_name())
    entry = find_device(uri, list_devices(driver))
    if entry is None:
        raise DeviceRequestFailed(f"driver {driver!r} has no device {uri!r}")
    return slug(entry.name)


def find_device(uri: str, entries: Sequence[DeviceEntry]) -> DeviceEntry | None:
    """Find the entry of the driver's list that ``uri`` opens, by path or index; the first if it names neither."""
    path = uri.partition("://")[2].partition("?")[0]
    if not path:
        return entries[0] if entries else None
    for entry in entries:
        if path in (entry.path, str(entry.index)):
            return entry
    return None


def ways_of_driving(uris: Iterable[str], driver: str) -> list[str]:
    """How devices are driven, independent of the devices.

    Returns:
        The schemes and options of their URIs, sorted; nothing if all are driven by ``driver`` without options.
    """
    parts = (uri.partition("?") for uri in uris)
    ways = {f"{address.partition('://')[0]}{mark}{options}" for address, mark, options in parts}
    return sorted(ways) if ways != {driver} else []


def cpu_name() -> str:
    """The identity of this CPU's model, or the machine's architecture if the system does not know the model."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return cpu_identity(text, platform.processor() or platform.machine() or "cpu")


def slug(name: str) -> str:
    """Reduce a name to lower-case letters, digits and hyphens; marks like (R), clock rates and core counts go."""
    plain = re.sub(r"\([^)]*\)", " ", name.partition("@")[0])
    plain = re.sub(r"\b(\d+-core\b.*|cpu\b|processor\b)", " ", plain, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unknown"


def runtime_version() -> str:
    """The version of the installed IREE runtime.

    Raises:
        SharkTuneError: it is not installed.
    """
    # Late, because the child imports this module and starts a fifth faster without it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("iree-base-runtime")
    except PackageNotFoundError:
        raise SharkTuneError("the package iree-base-runtime is not installed") from None
