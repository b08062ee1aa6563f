"""Architectures of the GPUs of this host, for targets that are named by their backend alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.identity import list_devices
from pytest_shark_tune.device.protocol import DeviceEntry
from pytest_shark_tune.errors import CommandFailed, DeviceChildDied, DeviceRequestFailed, InputError
from pytest_shark_tune.system.process import run

__all__ = [
    "GPU_DRIVERS",
    "amd_architectures",
    "architecture_of",
    "cuda_architecture",
    "describe_driver_error",
    "resolve_target",
    "unused_gpu",
    "vulkan_architecture",
]

GPU_DRIVERS = ("cuda", "hip", "vulkan")
"""The drivers of GPUs, which are named like the backends."""

_CAPABILITIES = (60, 61, 70, 72, 75, 80, 86, 87, 89, 120)
"""The compute capabilities that IREE 3.13 has a target for. A GPU also runs the code of a smaller one."""
_VULKAN = (
    (r"Radeon.*(RX 9\d{3})|RDNA ?4", "rdna4"),
    (r"Radeon.*(RX 7\d{3}|[78]\d0M)|RDNA ?3|PRO W7", "rdna3"),
    (r"Radeon.*(RX 6\d{3}|6\d0M)|RDNA ?2|PRO W6", "rdna2"),
    (r"Radeon.*RX 5\d{3}|RDNA ?1", "rdna1"),
    (r"RTX 40|RTX \d000 Ada|\bL40?S?\b|\bL4\b", "ada"),
    (r"RTX 30|RTX A\d|\bA[13]0\b|\bA100\b|\bA40\b", "ampere"),
    (r"RTX 20|GTX 16|\bT4\b|Quadro RTX", "turing"),
    (r"\bV100\b|TITAN V\b", "volta"),
    (r"GTX 10|\bP100\b|\bP40\b", "pascal"),
    (r"Adreno", "adreno"),
    (r"Mali-G[5-7]\d", "valhall"),
)
_ANY_VULKAN = "vp_android_baseline_2022"
"""The features that nearly every Vulkan device has, software ones included."""
_QUERY = ("nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader")
_TOPOLOGY = Path("/sys/class/kfd/kfd/topology/nodes")
_PRESENT = {"cuda": Path("/dev/nvidia0"), "hip": Path("/dev/kfd")}
"""Files that exist where there is a GPU for a driver."""


@lru_cache(maxsize=16)
def resolve_target(text: str) -> Target:
    """Read a target as `Target.parse` does; that of a GPU without an architecture gets the one of the device here.

    Raises:
        InputError: the backend is unknown, or there is no device to take the architecture from.
    """
    target = Target.parse(text, partial=True)
    if target.architecture:
        return target
    try:
        return Target(target.backend, architecture_of(target.backend, list_devices(target.driver)))
    except (DeviceRequestFailed, DeviceChildDied, CommandFailed, InputError) as error:
        try:
            return Target.parse(text)
        except InputError as incomplete:
            raise InputError(f"{incomplete}; no device here tells it: {describe_driver_error(error)}") from error


def architecture_of(
    driver: str, entries: Sequence[DeviceEntry], ask: Callable[[Sequence[str]], str] | None = None
) -> str:
    """Return the architecture of the devices that a driver lists.

    Args:
        driver: ``cuda``, ``hip`` or ``vulkan``.
        entries: its devices.
        ask: runs a command, and returns what it prints.

    Raises:
        InputError: there is no device, or their architectures differ.
        CommandFailed: a tool of the driver is missing.
    """
    if not entries:
        raise InputError(f"driver {driver} has no device here")
    if driver == "cuda":
        text = (ask or _output)(_QUERY)
        return cuda_architecture(text, [entry.path for entry in entries])
    if driver == "vulkan":
        return vulkan_architecture(entries[0].name)
    return _only_one(amd_architectures(_nodes()))


def cuda_architecture(text: str, uuids: Iterable[str]) -> str:
    """Return the target for GPUs by what ``nvidia-smi`` prints of all of them.

    Args:
        text: a line for each GPU: its UUID and its compute capability.
        uuids: the GPUs that are visible; if none is listed, all count.

    Raises:
        InputError: no capability can be read, or a GPU is too old.
    """
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    known = {cells[0].removeprefix("GPU-"): cells[1] for cells in lines if len(cells) == 2}
    visible = [known[name] for uuid in uuids if (name := uuid.removeprefix("GPU-")) in known] or list(known.values())
    numbers = [int(major) * 10 + int(minor) for major, minor in re.findall(r"^(\d+)\.(\d)$", "\n".join(visible), re.M)]
    fitting = [number for number in _CAPABILITIES if numbers and number <= min(numbers)]
    if not fitting:
        raise InputError(f"nvidia-smi names no compute capability of 6.0 or more: {text.strip()[:100]!r}")
    return f"sm_{fitting[-1]}"


def amd_architectures(nodes: Iterable[str]) -> list[str]:
    """Return the architectures of GPUs, by the properties of the kernel driver's nodes; those of CPUs have none."""
    found = []
    for text in nodes:
        properties = dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) == 2)
        version = int(properties.get("gfx_target_version", "0"))
        if version:
            major, minor, step = version // 10000, version // 100 % 100, version % 100
            found.append(f"gfx{major}{minor:x}{step:x}")
    return found


def vulkan_architecture(name: str) -> str:
    """Return the target for a Vulkan device by its name, or one that nearly all devices can run."""
    return next((target for pattern, target in _VULKAN if re.search(pattern, name, re.IGNORECASE)), _ANY_VULKAN)


def unused_gpu(target: Target, present: Mapping[str, Path] = _PRESENT) -> str:
    """Return the backend of a GPU that is here, and that a run on the CPU does not use; empty without one."""
    if target.backend in present or target.backend == "vulkan":
        return ""
    return next((backend for backend, path in present.items() if path.exists()), "")


def describe_driver_error(error: Exception) -> str:
    """Return the first sentence of an error, without the place in the runtime's sources that reports it."""
    line = str(error).strip().partition("\n")[0]
    status = re.search(r"\b[A-Z_]{6,}; ([^;]+)", line)
    return (status[1] if status else line).strip(" :")


def _only_one(names: Sequence[str]) -> str:
    if not names:
        raise InputError(f"{_TOPOLOGY} lists no GPU")
    if len(set(names)) > 1:
        raise InputError(f"the GPUs differ: {', '.join(sorted(set(names)))}")
    return names[0]


def _nodes() -> list[str]:
    try:
        return [path.read_text(encoding="utf-8") for path in sorted(_TOPOLOGY.glob("*/properties"))]
    except OSError as error:
        raise InputError(f"{_TOPOLOGY} cannot be read: {error.strerror}") from error


def _output(command: Sequence[str]) -> str:
    return run(command, timeout_s=30.0).stdout
