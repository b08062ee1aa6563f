"""The one door to facts about the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = ["driver_version", "last_level_cache_bytes", "processors"]

_NVIDIA, _AMDGPU = Path("proc/driver/nvidia/version"), Path("sys/module/amdgpu/version")
_DRIVER_FILES = {"cuda": (_NVIDIA,), "hip": (_AMDGPU,), "vulkan": (_NVIDIA, _AMDGPU)}
"""Where kernel modules tell their versions; amdgpu does so only where it was built apart from the kernel."""
_MANIFESTS = ("etc/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "usr/share/vulkan/icd.d")
_MANIFEST_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
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


def driver_version(driver: str, *, root: Path = Path("/"), env: Mapping[str, str] = os.environ) -> str:
    """What tells the driver behind IREE's ``driver`` of a GPU from its other versions; empty for a CPU's.

    It is what the kernel's modules call themselves, or the kernel's release where they do not say. Vulkan may drive any
    vendor's GPU, and most of its drivers lies outside the kernel, so both count there, and what its loader finds.
    ``root`` is the folder of the system's files.
    """
    if driver.startswith("local"):
        return ""
    told = [text for path in _DRIVER_FILES.get(driver, ()) if (text := _text(root / path))]
    if not told or driver == "vulkan":
        told.append(platform.release())
    if driver == "vulkan":
        told += [_vulkan_driver(path) for path in _vulkan_manifests(root, env)]
    return "\n".join(told)


def _vulkan_manifests(root: Path, env: Mapping[str, str]) -> list[Path]:
    """The files by which Vulkan's loader finds drivers; its variables name others instead."""
    for name in _MANIFEST_VARIABLES:
        if env.get(name):
            return [Path(each) for each in env[name].split(os.pathsep)]
    return sorted(path for folder in _MANIFESTS for path in (root / folder).glob("*.json"))


def _vulkan_driver(manifest: Path) -> str:
    """A manifest with the size and the time of the library that it names, where it does so by a path."""
    text = _text(manifest)
    try:
        library = (manifest.parent / json.loads(text)["ICD"]["library_path"]).stat()
    except (OSError, ValueError, LookupError, TypeError):
        return text
    return f"{text} {library.st_size} {library.st_mtime_ns}"


def _text(path: Path) -> str:
    """What a file says, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
