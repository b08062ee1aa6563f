"""The roofline: how fast a device can be at all. A time below that is wrong."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from pytest_shark_tune.dispatch.types import BenchmarkModule, RootOp

__all__ = [
    "IMPOSSIBLE",
    "SUSPICIOUS_RATIO",
    "Limits",
    "Rates",
    "Work",
    "least_us",
    "rates_of",
    "roofline_us",
    "why_impossible",
    "work_of",
]

IMPOSSIBLE: Final = "impossibly fast"
"""The beginning of the reason why a time is refused."""

SUSPICIOUS_RATIO = 3.0
"""From this many times the default's speed on, a candidate is compared with the roofline.

A slower candidate cannot be found impossible: every allowance below is at least 4, and the default's own speed counts.
"""

_MOVING, _LAUNCHING, _COMPUTING = 4.0, 4.0, 8.0
_MATRIX_UNITS = 16.0
_FULL_BITS = 32
_FIRST_NUMBER = re.compile(r"[0-9]+")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of a device with microbenchmarks: three dispatches that the compiler's default config is good at."""

    bytes_per_s: float
    """The bytes read and written, in the cache where that was fastest."""
    operations_per_s: float
    """The f32 multiplications and additions."""
    launch_us: float
    """The time of a dispatch that does next to nothing."""

    def better(self, other: Limits) -> Limits:
        """Combine the better values of both: a busy device seems slower than it is, never faster."""
        return Limits(
            bytes_per_s=max(self.bytes_per_s, other.bytes_per_s),
            operations_per_s=max(self.operations_per_s, other.operations_per_s),
            launch_us=min(self.launch_us, other.launch_us),
        )


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The least work of a dispatch, for any config."""

    bytes: int
    """The bytes that it has to move."""
    operations: int = 0
    """The operations that it has to make; 0 if they are not known."""
    bits: int = _FULL_BITS
    """The width of the narrowest operand."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of a dispatch in absolute terms."""

    gflops: float | None
    """The operations a second, in 10**9; ``None`` if its operations are not known."""
    gb_per_s: float
    """The bytes of its operands a second, in 10**9, as if each was moved once."""
    of_limit: float | None = None
    """Its speed as a part of what microbenchmarks reach on the device; ``None`` if they were not measured."""


def work_of(root: RootOp, module: BenchmarkModule) -> Work:
    """Compute the least work of a dispatch.

    Outputs count if they are written whole. Inputs count if they have as many elements as an operand of the root op
    that is read whole: slices, broadcasts, gathers and strides leave parts unread.
    """
    read = {math.prod(tensor.shape) for tensor in root.inputs if _is_read_whole(root, math.prod(tensor.shape))}
    moved = 0
    for view in module.views:
        elements = math.prod(view.shape)
        if (view.writes and not view.reads) or (view.reads and not view.writes and elements in read):
            moved += elements * _bits(view.element) // 8
    return Work(
        bytes=moved,
        operations=_operations_of(root),
        bits=min([_FULL_BITS, *(_bits(tensor.element) for tensor in root.inputs[:2])]),
    )


def _operations_of(root: RootOp) -> int:
    """Count the operations of a contraction or convolution: a multiplication and an addition at every point of its
    loops. They are not known of other ops, for which this returns 0.
    """
    return 2 * math.prod(root.loops) if root.kind in ("contraction", "scaled_contraction", "convolution") else 0


def _operand_bytes(root: RootOp) -> int:
    """Count the bytes of the root op's operands, as if each was moved once."""
    return sum(math.prod(tensor.shape) * _bits(tensor.element) // 8 for tensor in (*root.inputs, *root.outputs))


def rates_of(root: RootOp, us: float, least: float | None = None) -> Rates:
    """Compute the speed of a dispatch.

    Args:
        root: Its root op, with fixed sizes.
        us: Its time, in microseconds; more than 0.
        least: The least time that the device's limits leave, in microseconds, if it is known.
    """
    operations = _operations_of(root)
    return Rates(
        gflops=operations / us / 1e3 if operations else None,
        gb_per_s=_operand_bytes(root) / us / 1e3,
        of_limit=least / us if least else None,
    )


def least_us(work: Work, limits: Limits, *, shares_processor: bool) -> float:
    """Compute the least time of a dispatch that a search can hope for, in microseconds.

    Unlike `why_impossible` this takes the limits as they are: a product of matrices reaches a processor's arithmetic.
    The compiler's default config does not reach a GPU's, which may be eight times as fast. Types narrower than f32 may
    be faster, as there.

    Args:
        work: The least work of the dispatch.
        limits: The device's limits.
        shares_processor: Whether the device is the processor that compiles.
    """
    return roofline_us(work, limits, _narrow_allowance(work) * (1.0 if shares_processor else _COMPUTING))


def roofline_us(work: Work, limits: Limits, speed: float) -> float:
    """Compute the time of a dispatch by the roofline model, in microseconds.

    That is the longest of moving its bytes, making its operations and launching it. A limit of 0 is unknown.

    Args:
        work: The least work of the dispatch.
        limits: The device's limits.
        speed: The part of the limit on arithmetic that the dispatch reaches; more than 1 if it exceeds the limit.
    """
    rate = limits.operations_per_s * speed
    moving_us = work.bytes / limits.bytes_per_s * 1e6 if limits.bytes_per_s else 0.0
    computing_us = work.operations / rate * 1e6 if rate else 0.0
    return max(moving_us, computing_us, limits.launch_us)


def why_impossible(us: float, work: Work, limits: Limits, default_us: float = math.inf) -> str:
    """Explain why no config of a dispatch can be as fast as a measured time.

    A microbenchmark is not the fastest code there is, so the device may exceed it: four times the bytes (nearer caches,
    more units at work), a quarter of the launch, and eight times the arithmetic. Types narrower than f32 may be as many
    times faster as fit into 32 bits, times 16 for matrix units. The default may be faster than a microbenchmark: the
    same allowances then hold for its own speed.

    Args:
        us: The time of the dispatch, in microseconds.
        work: The least work of the dispatch.
        limits: The device's limits.
        default_us: The time of the default, in microseconds.

    Returns:
        The explanation; empty if the time is possible.
    """
    allowed = _COMPUTING * _narrow_allowance(work)
    rate = limits.operations_per_s * allowed
    moving = min(work.bytes / (limits.bytes_per_s * _MOVING) * 1e6, default_us / _MOVING)
    computing = min(work.operations / rate * 1e6, default_us / _COMPUTING)
    launching = min(limits.launch_us, default_us) / _LAUNCHING
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
    return f"{IMPOSSIBLE}: {us:.3g} us a dispatch, where {why}" if us < least else ""


def _narrow_allowance(work: Work) -> float:
    """How many times as fast as with f32 a device may compute with the narrowest operand of a dispatch."""
    return 1.0 if work.bits >= _FULL_BITS else _MATRIX_UNITS * _FULL_BITS / work.bits


def _is_read_whole(root: RootOp, elements: int) -> bool:
    """Whether the root op needs all elements of an operand that has this many."""
    if root.kind in ("contraction", "scaled_contraction", "attention"):
        return True
    if root.kind in ("convolution", "pooling"):
        return not {*root.strides, *root.dilations} - {1}
    return elements == math.prod(root.loops)


def _bits(element: str) -> int:
    """The width of an element type: the first number in its name, and 32 for ``index``, which has none.

    It is never more than the type takes in memory: i1 fills a byte there, and ``complex<f32>`` is two numbers.
    """
    number = _FIRST_NUMBER.search(element)
    return int(number[0]) if number else _FULL_BITS


def _amount(number: float) -> str:
    """Format a number with three digits and a prefix, ready for a unit (``3.1 M``). It ends in a space without one."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"
