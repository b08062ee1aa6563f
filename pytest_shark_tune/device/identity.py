"""Which devices there are, and which model each of them is."""

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
    """The names of the HAL drivers built into the runtime, sorted, whether or not they find a device here."""
    import iree.runtime as rt

    return tuple(sorted(rt.query_available_drivers()))


def list_devices(driver: str, *, timeout_s: float = 60.0) -> list[DeviceEntry]:
    """The devices of ``driver``, asked in a child of its own, so that no driver is loaded here.

    Raises:
        DeviceRequestFailed: the driver is unknown or cannot be loaded; the message is the runtime's.
        DeviceChildDied: the driver crashed or hung.
    """
    with Child(CHILD_COMMAND) as child:
        return ask(child, ListDevices(driver), list[DeviceEntry], timeout_s)


@lru_cache(maxsize=64)
def device_slug(uri: str) -> str:
    """The model name of the CPU or GPU at ``uri`` as part of a file name: ``amd-epyc``, ``nvidia-h100-80gb-hbm3``.

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
    """The entry of its driver's list that ``uri`` opens: by path or index, the first where it names none."""
    path = uri.partition("://")[2].partition("?")[0]
    if not path:
        return entries[0] if entries else None
    for entry in entries:
        if path in (entry.path, str(entry.index)):
            return entry
    return None


def ways_of_driving(uris: Iterable[str], driver: str) -> list[str]:
    """How devices are driven, whichever they are: schemes and options of their URIs; nothing for ``driver`` alone."""
    parts = (uri.partition("?") for uri in uris)
    ways = {f"{address.partition('://')[0]}{mark}{options}" for address, mark, options in parts}
    return sorted(ways) if ways != {driver} else []


def cpu_name() -> str:
    """What tells this CPU's model from others, or the machine's architecture where the system tells no model."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return cpu_identity(text, platform.processor() or platform.machine() or "cpu")


def slug(name: str) -> str:
    """``name`` in lower-case letters, digits and hyphens, without marks such as (R), clock rates and core counts."""
    plain = re.sub(r"\([^)]*\)", " ", name.partition("@")[0])
    plain = re.sub(r"\b(\d+-core\b.*|cpu\b|processor\b)", " ", plain, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unknown"


def runtime_version() -> str:
    """The version of the installed IREE runtime.

    Raises:
        SharkTuneError: it is not installed.
    """
    # Late, because the child, which imports this module, starts a fifth faster without.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("iree-base-runtime")
    except PackageNotFoundError:
        raise SharkTuneError("the package iree-base-runtime is not installed") from None
