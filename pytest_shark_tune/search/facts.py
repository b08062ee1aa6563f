"""What is known of a problem and its device besides the configs: it makes features of knobs comparable."""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import affine_map, loops_in
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts

__all__ = ["FACTS_VERSION", "ProblemFacts", "facts_of", "gpu_processors", "on_device"]

FACTS_VERSION: Final = 1
"""What a search knows of a dispatch.

Raise it where the same op has other facts: what is similar is then learned anew.
"""

_GPU_PROCESSORS = {
    "A100": 108,
    "A10": 72,
    "H100 PCIe": 114,
    "H100": 132,
    "H200": 132,
    "L40": 142,
    "L4": 58,
    "T4": 40,
    "V100": 80,
    "RTX 3090": 82,
    "RTX 4090": 128,
    "RTX 5090": 170,
    "MI100": 120,
    "MI210": 104,
    "MI250": 104,
    "MI300A": 228,
    "MI300X": 304,
    "MI325X": 304,
    "MI355X": 256,
}
"""Streaming multiprocessors or compute units by a part of the device's name, from the vendors' data sheets.

IREE's runtime does not tell them. Longer names stand for more: ``H100 PCIe`` before ``H100``.
"""


class ProblemFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a search may know; each part may be absent, and features that need it are then left out.

    ``loops`` are the loops' trip counts and ``reductions`` the positions of those that sum up. ``operands`` are, for
    each input, the loops that index it and its element's size in bytes. ``dims`` gives the loop of a class of
    dimensions by name (``m``, ``n``, ``k2``): the innermost, as that is the one with knobs. ``processors`` share a
    dispatch: cores of a CPU, multiprocessors of a GPU; 0 where their number is not known.
    """

    loops: tuple[int, ...] = ()
    reductions: tuple[int, ...] = ()
    operands: tuple[tuple[tuple[int, ...], float], ...] = ()
    dims: dict[str, int] = {}
    processors: int = 0


def facts_of(root: RootOp, target: TargetFacts, device: str) -> ProblemFacts:
    """The facts of a dispatch's root op on a target, measured on the device of that name."""
    classes = {"m": root.m, "n": root.n, "k": root.k, "k1": root.k1, "k2": root.k2}
    with ir.Context():
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
    """The facts of a dispatch, as they are on the device of that name."""
    processors = gpu_processors(device) if target.subgroup_sizes else target.processors
    return msgspec.structs.replace(facts, processors=processors)


def gpu_processors(device: str) -> int:
    """The multiprocessors of a GPU by its name as drivers give it; 0 where the name says nothing."""
    for part in sorted(_GPU_PROCESSORS, key=len, reverse=True):
        if part.lower() in device.lower():
            return _GPU_PROCESSORS[part]
    return 0


def _element_bytes(element: str) -> float:
    bits = "".join(takewhile(str.isdigit, element.lstrip("abcdefghijklmnopqrstuvwxyz")))
    return int(bits) / 8 if bits else 8.0
