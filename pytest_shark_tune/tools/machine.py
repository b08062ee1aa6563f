"""The one door to facts about the machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["driver_version", "last_level_cache_bytes", "processors"]

_DRIVER_FILES = {
    "cuda": Path("/proc/driver/nvidia/version"),
    "hip": Path("/sys/module/amdgpu/version"),
}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_level_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The size of all last-level caches together, 0 where the system (anything but Linux) does not tell.

    ``cpus`` is the folder of the kernel's files about processors. A chip may have several such caches, and a dispatch
    that runs on all processors uses them all.
    """
    sizes = {}
    for processor in cpus.glob("cpu[0-9]*"):
        caches = [found for folder in processor.glob("cache/index[0-9]*") if (found := _read_cache(folder))]
        if caches:
            level, shared, size = max(caches)
            sizes[level, shared] = size
    return sum(sizes.values())


def _read_cache(folder: Path) -> tuple[int, str, int] | None:
    """Level, sharing processors and size of a cache; ``None`` for one of instructions, or where these are not told."""
    try:
        kind, level, shared, size = (
            (folder / name).read_text(encoding="ascii").strip() for name in ("type", "level", "shared_cpu_list", "size")
        )
        return None if kind == "Instruction" else (int(level), shared, int(size[:-1]) * _UNITS[size[-1]])
    except (OSError, ValueError, KeyError):
        return None


def driver_version(driver: str) -> str:
    """What the kernel's module behind IREE's ``driver`` calls itself; empty where it does not say."""
    path = _DRIVER_FILES.get(driver)
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() if path else ""
    except OSError:
        return ""
