"""Limits: how fast a device can be at all, so that a time below that is known to be wrong."""

from __future__ import annotations

import math
import re

import msgspec

from pytest_shark_tune.dispatch.types import BenchmarkModule, RootOp

__all__ = ["SUSPICIOUS_RATIO", "Limits", "Work", "why_impossible", "work_of"]

SUSPICIOUS_RATIO = 3.0
"""A candidate is looked at more closely from so many times the default's speed on.

One that is no faster cannot be found impossible as long as the default runs at no more than 4/3 of what the yardsticks
reach, since every allowance below is at least 4.
"""

_MOVING, _LAUNCHING, _COMPUTING = 4.0, 4.0, 8.0
_MATRIX_UNITS = 16.0
_FULL_BITS = 32
_FIRST_NUMBER = re.compile(r"[0-9]+")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a device reached with yardsticks of ours: three dispatches that the compiler's default config is good at.

    ``bytes_per_s`` counts what is read and what is written, in whichever cache that was fastest; ``operations_per_s``
    are f32 multiplications and additions; ``launch_us`` is the time of a dispatch that does next to nothing.
    """

    bytes_per_s: float
    operations_per_s: float
    launch_us: float

    def better(self, other: Limits) -> Limits:
        """The better of both in each: a device that was busy seems slower than it is, never faster."""
        return Limits(
            bytes_per_s=max(self.bytes_per_s, other.bytes_per_s),
            operations_per_s=max(self.operations_per_s, other.operations_per_s),
            launch_us=min(self.launch_us, other.launch_us),
        )


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What every config of a dispatch has to do: at least ``bytes`` are moved, ``operations`` made (0: not known).

    ``bits`` is the width of the narrowest operand.
    """

    bytes: int
    operations: int = 0
    bits: int = _FULL_BITS


def work_of(root: RootOp, module: BenchmarkModule) -> Work:
    """The least that the dispatch of ``module`` can do.

    Outputs count that are written whole. Inputs count that hold one element for each of a root op's operand that is
    read whole: a slice, a broadcast, a gather or a stride leaves parts unread, or reads less than it seems to. A
    multiplication and an addition count for each point of a contraction's or convolution's loops.
    """
    read = {math.prod(tensor.shape) for tensor in root.inputs if _is_read_whole(root, math.prod(tensor.shape))}
    moved = 0
    for view in module.views:
        elements = math.prod(view.shape)
        if (view.writes and not view.reads) or (view.reads and not view.writes and elements in read):
            moved += elements * _bits(view.element) // 8
    multiplies = root.kind in ("contraction", "convolution")
    return Work(
        bytes=moved,
        operations=2 * math.prod(root.loops) if multiplies else 0,
        bits=min([_FULL_BITS, *(_bits(tensor.element) for tensor in root.inputs[:2])]),
    )


def why_impossible(us: float, work: Work, limits: Limits) -> str:
    """Why no config can take so few microseconds, in words; empty where one can.

    A yardstick is not the fastest code there is, so the device is allowed more than it reached: four times the bytes
    (caches nearer to it, more of its units at work), a quarter of the launch, eight times the arithmetic, and of types
    narrower than f32 as many times more as fit into its 32 bits, times 16 for matrix units.
    """
    allowed = _COMPUTING if work.bits >= _FULL_BITS else _COMPUTING * _MATRIX_UNITS * _FULL_BITS / work.bits
    rate = limits.operations_per_s * allowed
    moving = work.bytes / (limits.bytes_per_s * _MOVING) * 1e6
    computing = work.operations / rate * 1e6
    launching = limits.launch_us / _LAUNCHING
    reasons = {
        f"moving its {_amount(work.bytes)}B takes at least {moving:.3g} us, at {_MOVING:g} times the "
        f"{_amount(limits.bytes_per_s)}B/s that copying reaches on this device": moving,
        f"its {work.operations:.3g} operations take at least {computing:.3g} us, at {allowed:g} times the "
        f"{limits.operations_per_s:.3g} f32 operations a second that a matrix product reaches on this device": (
            computing
        ),
        f"a dispatch that does nothing takes {limits.launch_us:.3g} us on this device": launching,
    }
    why, least = max(reasons.items(), key=lambda reason: reason[1])
    return f"impossibly fast: {us:.3g} us a dispatch, where {why}" if us < least else ""


def _is_read_whole(root: RootOp, elements: int) -> bool:
    """Whether each of an operand's elements is needed: it has no more of them than the loops have points for it."""
    if root.kind in ("contraction", "attention"):
        return True
    if root.kind in ("convolution", "pooling"):
        return not {*root.strides, *root.dilations} - {1}
    return elements == math.prod(root.loops)


def _bits(element: str) -> int:
    """The width of an element type, by the first number in its name; ``index``, which has none, is taken for 32 bits.

    Never more than it takes in memory: i1 fills a byte there, and ``complex<f32>`` is two numbers.
    """
    number = _FIRST_NUMBER.search(element)
    return int(number[0]) if number else _FULL_BITS


def _amount(number: float) -> str:
    """``3.1 M``: three digits and a prefix, ready for a unit to follow; a space where there is none."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"
