"""Facts of a problem and its device, which make features of knobs comparable."""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import msgspec

from pytest_shark_tune.dispatch.mlir import affine_map, loops_in, shared_context
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts

__all__ = ["FACTS_VERSION", "ProblemFacts", "device_class", "facts_of", "gpu_processors", "on_device"]

FACTS_VERSION: Final = 1
"""The version of the facts of a dispatch.

Raise it if the same op has other facts. Results of similar dispatches are then collected again.
"""

_GPUS = {
    "A100": (108, "NVIDIA 8.0"),
    "A10": (72, "NVIDIA 8.6"),
    "H100 PCIe": (114, "NVIDIA 9.0"),
    "H100": (132, "NVIDIA 9.0"),
    "H200": (132, "NVIDIA 9.0"),
    "L40": (142, "NVIDIA 8.9"),
    "L4": (58, "NVIDIA 8.9"),
    "T4": (40, "NVIDIA 7.5"),
    "V100": (80, "NVIDIA 7.0"),
    "RTX 3090": (82, "NVIDIA 8.6"),
    "RTX 4090": (128, "NVIDIA 8.9"),
    "RTX 5090": (170, "NVIDIA 12.0"),
    "MI100": (120, "gfx908"),
    "MI210": (104, "gfx90a"),
    "MI250": (104, "gfx90a"),
    "MI300A": (228, "gfx942"),
    "MI300X": (304, "gfx942"),
    "MI325X": (304, "gfx942"),
    "MI355X": (256, "gfx950"),
}
"""Streaming multiprocessors or compute units, and the architecture, by a part of the device's name.

They are from the vendors' data sheets; NVIDIA's architectures are compute capabilities.

IREE's runtime does not report them. Longer names take precedence: ``H100 PCIe`` before ``H100``.
"""


class ProblemFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that a search may use. Any of them may be absent, and features that need it are then left out."""

    loops: tuple[int, ...] = ()
    """The trip count of each loop."""
    reductions: tuple[int, ...] = ()
    """The loops that are reductions."""
    operands: tuple[tuple[tuple[int, ...], float], ...] = ()
    """The loops that index each input, and the size of its elements in bytes."""
    dims: dict[str, int] = {}
    """The innermost loop of each class of dimensions (``m``, ``n``, ``k2``), which is the one with knobs."""
    processors: int = 0
    """The cores of a CPU or multiprocessors of a GPU that share a dispatch; 0 if their number is unknown."""


def facts_of(root: RootOp, target: TargetFacts, device: str) -> ProblemFacts:
    """Return the facts of a dispatch's root op on a target; ``device`` is the name of the device that measures it."""
    classes = {"m": root.m, "n": root.n, "k": root.k, "k1": root.k1, "k2": root.k2}
    with shared_context():
        maps = [affine_map(text) for text in root.maps[: len(root.inputs)]]
        spans = [tuple(sorted({loop for result in affine.results for loop in loops_in(result)})) for affine in maps]
    facts = ProblemFacts(
        loops=root.loops,
        reductions=tuple(index for index, kind in enumerate(root.iterators) if kind == "reduction"),
        operands=tuple(
            (span, _element_bytes(tensor.element))
            for span, tensor in zip(spans, root.inputs, strict=bool(spans))
            if span
        ),
        dims={name: positions[-1] for name, positions in classes.items() if positions},
    )
    return on_device(facts, target, device)


def on_device(facts: ProblemFacts, target: TargetFacts, device: str) -> ProblemFacts:
    """Return the facts of a dispatch on the device of that name."""
    processors = gpu_processors(device) if target.subgroup_sizes else target.processors
    return msgspec.structs.replace(facts, processors=processors)


def gpu_processors(device: str) -> int:
    """Return the number of multiprocessors of a GPU by the driver's name for it, or 0 if the name is unknown."""
    return _gpu(device)[0]


def device_class(device: str, vector_bytes: int = 0) -> str:
    """Return the class of devices that a prior holds for: a GPU's architecture, or the vector width of a CPU.

    Args:
        device: The name of the device.
        vector_bytes: The width of a CPU's vectors; 0 if it is unknown, or on a GPU.

    Returns:
        The name of the device itself if nothing more general is known.
    """
    return _gpu(device)[1] or (f"CPU with vectors of {vector_bytes} bytes" if vector_bytes else device)


def _gpu(device: str) -> tuple[int, str]:
    for part in sorted(_GPUS, key=len, reverse=True):
        if part.lower() in device.lower():
            return _GPUS[part]
    return 0, ""


def _element_bytes(element: str) -> float:
    bits = "".join(takewhile(str.isdigit, element.lstrip("abcdefghijklmnopqrstuvwxyz")))
    return int(bits) / 8 if bits else 8.0
