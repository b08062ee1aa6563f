"""The contents of a device's inputs: random, exact, special and disturbed values, all made from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np

from pytest_shark_tune.device.elements import Bytes, as_bytes, byte_size, element_type, stored_shape
from pytest_shark_tune.dispatch.elements import SCALAR_FLOATS, SCALAR_INTEGERS
from pytest_shark_tune.dispatch.types import Argument, BufferView
from pytest_shark_tune.measurement.acceptance import ExactData
from pytest_shark_tune.system.machine import processors

__all__ = ["InputData", "argument_bytes", "at_once", "view_bytes"]

_EXACT, _EDGES, _DISTURBED = 1, 2, 3
_SWITCHED_ON, _SWITCHED_OFF = 1.0, -127.0
"""The exponential of their difference is 0 in every type, and both are numbers of all of them."""
_LARGE = {"f16": 2.0**8}
_LARGER = 2.0**20
_ENOUGH_FOR_SPECIALS = 64
_REMEMBERED_BYTES = 1 << 30
_WORTH_A_THREAD = 1 << 16
"""Fewer elements in all are not made in several threads."""

_T = TypeVar("_T")


class InputData(msgspec.Struct, frozen=True):
    """One kind of contents for all buffers of a run."""

    seed: int
    poison: int = 0
    """The number of the poison that fills outputs."""
    disturbed: float = 0.0
    """The part of itself by which each float is off."""
    trial: int = 0
    """Disturbed and exact data differ from trial to trial."""
    exact: ExactData | None = None
    """Small integers instead of random numbers."""
    edges: bool = False
    """Special values among random ones."""


class _Remembered:
    """The plain random contents that were made last. Many modules are filled with the same."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Bytes] = {}

    def get(self, key: tuple[object, ...], make: Callable[[], Bytes]) -> Bytes:
        """The contents of ``key``, which nobody may change."""
        made = self._kept.pop(key, None)
        if made is None:
            made = make()
            made.flags.writeable = False
        kept = {**self._kept, key: made}  # Other threads may do the same meanwhile.
        size = sum(part.nbytes for part in kept.values())
        while size > _REMEMBERED_BYTES:
            size -= kept.pop(next(iter(kept))).nbytes
        self._kept = kept
        return made


_remembered = _Remembered()


def at_once(jobs: Sequence[Callable[[], _T]], elements: int) -> Iterable[_T]:
    """Do several jobs that make contents, in threads if there are many elements: numpy works outside Python's lock."""
    if len(jobs) < 2 or elements < _WORTH_A_THREAD:
        return [job() for job in jobs]
    with ThreadPoolExecutor(min(len(jobs), processors())) as pool:
        return list(pool.map(lambda job: job(), jobs))


def view_bytes(view: BufferView, number: int, data: InputData, *, is_special: bool) -> Bytes:
    """The contents of a view that is read.

    Args:
        view: The view.
        number: Its position, so that views with the same type differ.
        data: The kind of contents.
        is_special: Put a NaN, infinities and a large number among the edges as well.
    """
    if data.exact is not None:
        return _integers(view.element, view.shape, _generator(data.seed, number, _EXACT, data.trial), data.exact)
    if data.edges:
        rng = _generator(data.seed, number, _EDGES)
        raw = _random_bytes(view.element, view.shape, rng, view.scale, wide=view.wide)
        return _with_edges(raw, view.element, rng, special=is_special)
    raw = _plain(view.element, view.shape, data.seed, number, wide=view.wide)
    return _disturbed(raw, view.element, number, data)


def argument_bytes(tensor: Argument, number: int, data: InputData, file: str = "") -> Bytes:
    """The contents of a function's argument: those of ``file`` (``.npy``) if there is one, else random."""
    if file:
        raw = as_bytes(np.load(file, allow_pickle=False))
        if raw.size != (size := byte_size(tensor.element, tensor.shape)):
            raise ValueError(f"{file} holds {raw.size} bytes, not {size}")
    elif tensor.is_scalar:
        raw = _scalar(tensor.element, _generator(data.seed, number))
    else:
        raw = _plain(tensor.element, tensor.shape, data.seed, number)
    return _disturbed(raw, tensor.element, number, data)


def _plain(element: str, shape: Sequence[int], seed: int, number: int, *, wide: bool = False) -> Bytes:
    make = partial(_random_bytes, element, shape, wide=wide)
    key = (element, tuple(shape), seed, number, wide)
    return _remembered.get(key, lambda: make(_generator(seed, number)))


def _scalar(element: str, rng: np.random.Generator) -> Bytes:
    kind = element_type(element)
    choices = SCALAR_FLOATS if kind.kind == "float" else SCALAR_INTEGERS[:1] if kind.kind == "bool" else SCALAR_INTEGERS
    return as_bytes(rng.choice(choices, 1).astype(kind.dtype))


def _random_bytes(
    element: str, shape: Sequence[int], rng: np.random.Generator, scale: float = 1.0, *, wide: bool = False
) -> Bytes:
    """Random elements. Sums of thousands of them neither overflow nor lose their sign.

    Floats are uniform in [-scale, scale) (scales in [1/4, 2]). Narrow integers take all bit patterns. i32, i64 and
    index are in [0, 8), since they may index something; with ``wide``, i32 and i64 have any number of bits, each as
    likely.
    """
    kind, count = element_type(element), math.prod(stored_shape(element, shape))
    if kind.bits < 8:
        return rng.integers(0, 256, byte_size(element, shape), dtype=np.uint8)
    if kind.kind == "bool":
        return rng.integers(0, 2, count, dtype=np.uint8)
    if kind.name == "f8E8M0FNU":
        return rng.integers(125, 129, count, dtype=np.uint8)
    if kind.kind == "int":
        limits = np.iinfo(kind.dtype)
        if wide and kind.bits > 16 and kind.name != "index":
            values = rng.integers(limits.min, limits.max, count, dtype=kind.dtype, endpoint=True)
            return as_bytes(values >> rng.integers(0, kind.bits - 1, count, dtype=kind.dtype))
        low, high = (limits.min, limits.max + 1) if kind.bits <= 16 else (0, 8)
        return as_bytes(rng.integers(low, high, count, dtype=kind.dtype))
    if kind.bits == 64:
        return as_bytes((rng.random(count) * 2 - 1) * scale)
    floats = rng.random(count, dtype=np.float32)
    floats *= 2
    floats -= 1
    floats *= np.float32(scale)
    return as_bytes(floats.astype(kind.dtype, copy=False))


def _integers(element: str, shape: Sequence[int], rng: np.random.Generator, data: ExactData) -> Bytes:
    """Small integers of either sign, as ``data`` describes them.

    Integer types get small integers too, since they may be cast to floats. Integers that may index something are 0 or
    1.
    """
    kind, count = element_type(element), math.prod(stored_shape(element, shape))
    if kind.name == "f8E8M0FNU" or kind.kind == "bool":
        return _random_bytes(element, shape, rng)
    if kind.kind == "int" and kind.bits > 16:
        return as_bytes(rng.integers(0, 2, count).astype(kind.dtype))
    if data.switched and kind.kind == "float":
        # One in each stretch: if a whole row were off, all of it would count, and that is more than the type counts to.
        stretch = max(1, int(1 / data.density))
        starts = np.arange(0, count, stretch)
        switches = np.full(count, _SWITCHED_OFF)
        switches[np.minimum(starts + rng.integers(0, stretch, starts.size), count - 1)] = _SWITCHED_ON
        return as_bytes(switches.astype(np.float32).astype(kind.dtype))
    values = rng.integers(1, max(1, data.amplitude) + 1, count) * (rng.integers(0, 2, count) * 2 - 1)
    values *= rng.random(count) < data.density
    if kind.bits >= 8:
        return as_bytes(values.astype(np.float32).astype(kind.dtype))
    stored = values.astype(np.int8) if kind.kind == "int" else values.astype(np.float32).astype(kind.dtype)
    raw = np.append(as_bytes(stored) & 0xF, np.zeros(count % 2, np.uint8)).astype(np.uint8)
    return np.asarray(raw[::2] | raw[1::2] << 4, np.uint8)


def _with_edges(raw: Bytes, element: str, rng: np.random.Generator, *, special: bool) -> Bytes:
    """Add negative zeros and denormals to stored floats; with ``special`` also a NaN, infinities and a large number.

    Denormals may be flushed, so they must be too small to show in a result. Those of f16 are not small enough.
    """
    kind = element_type(element)
    if not kind.is_signed_float or kind.bits < 16:
        return raw
    values = raw.view(kind.dtype).copy()
    share = values.size // 16  # Drawn with repetition: a permutation of a large tensor takes seconds.
    values[rng.integers(0, max(1, values.size), share)] = -0.0
    if element != "f16":
        values[rng.integers(0, max(1, values.size), share)] = kind.smallest_normal / 4
    if special and values.size >= _ENOUGH_FOR_SPECIALS:
        large = _LARGE.get(element, _LARGER)
        places = rng.choice(values.size, 4, replace=False, shuffle=True)
        values[places] = np.array([np.nan, np.inf, -np.inf, large]).astype(kind.dtype)
    return as_bytes(values)


def _disturbed(raw: Bytes, element: str, number: int, data: InputData) -> Bytes:
    """Move stored floats up or down by a part of themselves, at random. Other elements stay."""
    kind = element_type(element)
    if not data.disturbed or not kind.can_be_disturbed:
        return raw
    stored = raw.view(kind.dtype)
    rng = _generator(data.seed, number, _DISTURBED, data.trial)
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-stored.size // 8)), np.uint8), count=stored.size)
    # The product of a number of 16 bits and a factor that is one of them has no more bits than f32.
    wide = stored.astype(np.float32 if kind.bits <= 16 else np.float64)
    lower, upper = np.array([1 - data.disturbed, 1 + data.disturbed], wide.dtype)
    wide *= np.where(bits, upper, lower)
    return as_bytes(wide.astype(stored.dtype))


def _generator(seed: int, number: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, number, *purpose])))
