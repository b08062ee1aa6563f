"""The only module that reads facts about the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = ["driver_version", "last_level_cache_bytes", "processors"]

_NVIDIA, _AMDGPU = Path("proc/driver/nvidia/version"), Path("sys/module/amdgpu/version")
_DRIVER_FILES = {"cuda": (_NVIDIA,), "hip": (_AMDGPU,), "vulkan": (_NVIDIA, _AMDGPU)}
"""The files with the versions of kernel modules. amdgpu has one only if it was built apart from the kernel."""
_MANIFESTS = ("etc/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "usr/share/vulkan/icd.d")
_MANIFEST_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_level_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The size of all last-level caches together; 0 on systems without such files (all but Linux).

    A chip may have several such caches, and a dispatch that runs on all processors uses them all.

    Args:
        cpus: The directory of the kernel's files about processors.
    """
    sizes = {}
    for processor in cpus.glob("cpu[0-9]*"):
        caches = [found for directory in processor.glob("cache/index[0-9]*") if (found := _read_cache(directory))]
        if caches:
            level, shared, size = max(caches)
            sizes[level, shared] = size
    return sum(sizes.values())


def _read_cache(directory: Path) -> tuple[int, str, int] | None:
    """The level, sharing processors and size of a cache; ``None`` for one of instructions, or without such files."""
    try:
        kind, level, shared, size = (
            (directory / name).read_text(encoding="ascii").strip()
            for name in ("type", "level", "shared_cpu_list", "size")
        )
        return None if kind == "Instruction" else (int(level), shared, int(size[:-1]) * _UNITS[size[-1]])
    except (OSError, ValueError, KeyError):
        return None


def driver_version(driver: str, *, root: Path = Path("/"), env: Mapping[str, str] = os.environ) -> str:
    """The version of the system's driver behind one of IREE's drivers of GPUs; empty for a CPU's.

    It is the version of the kernel's module, or the kernel's release if the module has none. Vulkan may drive the GPUs
    of any vendor, with drivers that lie mostly outside the kernel. So for Vulkan both count, with the manifests that
    its loader finds.

    Args:
        driver: IREE's driver.
        root: The directory of the system's files.
        env: The environment, where variables may name other manifests.
    """
    if driver.startswith("local"):
        return ""
    versions = [text for path in _DRIVER_FILES.get(driver, ()) if (text := _file_text(root / path))]
    if not versions or driver == "vulkan":
        versions.append(platform.release())
    if driver == "vulkan":
        versions += [_vulkan_driver(path) for path in _vulkan_manifests(root, env)]
    return "\n".join(versions)


def _vulkan_manifests(root: Path, env: Mapping[str, str]) -> list[Path]:
    """The files by which Vulkan's loader finds drivers, or those that its variables name instead."""
    for name in _MANIFEST_VARIABLES:
        if env.get(name):
            return [Path(path) for path in env[name].split(os.pathsep)]
    return sorted(path for directory in _MANIFESTS for path in (root / directory).glob("*.json"))


def _vulkan_driver(manifest: Path) -> str:
    """The text of a manifest, with the size and the time of the library that it names by a path."""
    text = _file_text(manifest)
    try:
        library = (manifest.parent / json.loads(text)["ICD"]["library_path"]).stat()
    except (OSError, ValueError, LookupError, TypeError):
        return text
    return f"{text} {library.st_size} {library.st_mtime_ns}"


def _file_text(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
