"""The contents of a device's buffers: random, exact and special inputs, poison, and outputs as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import iree.runtime as rt
import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device import protocol
from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.measurement.correctness import (
    ExactData,
)

__all__ = ["Bytes"]


Bytes: TypeAlias = NDArray[np.uint8]


_IMAGES_KEPT = 6


_IMAGES_KEPT_BYTES = 1 << 30


class _Element(msgspec.Struct, frozen=True):
    """How elements of a type lie in memory: ``bits`` each, as ``dtype`` where that is whole bytes.

    ``kind`` is ``float``, ``int`` or ``bool``. ``poisons`` are the bytes that fill what must be written: for the first
    run a NaN for floats that have one, an unlikely number else; where a right result looks the same, then for a second
    run another number. ``hal`` names the runtime's element type.
    """

    dtype: Any
    bits: int
    kind: str
    poisons: tuple[int, int] = (0xFF, 0x7B)
    hal: str = ""


_ODD = (0xA5, 0x5A)


_FNUZ = (0x80, 0x7B)


_ELEMENTS = {
    "f64": _Element(np.float64, 64, "float", hal="FLOAT_64"),
    "f32": _Element(np.float32, 32, "float", hal="FLOAT_32"),
    "f16": _Element(np.float16, 16, "float", hal="FLOAT_16"),
    "bf16": _Element(ml_dtypes.bfloat16, 16, "float", hal="BFLOAT_16"),
    "f8E4M3FN": _Element(ml_dtypes.float8_e4m3fn, 8, "float", hal="FLOAT_8_E4M3_FN"),
    "f8E4M3FNUZ": _Element(ml_dtypes.float8_e4m3fnuz, 8, "float", _FNUZ, "FLOAT_8_E4M3_FNUZ"),
    "f8E5M2": _Element(ml_dtypes.float8_e5m2, 8, "float", hal="FLOAT_8_E5M2"),
    "f8E5M2FNUZ": _Element(ml_dtypes.float8_e5m2fnuz, 8, "float", _FNUZ, "FLOAT_8_E5M2_FNUZ"),
    "f8E8M0FNU": _Element(ml_dtypes.float8_e8m0fnu, 8, "float", hal="FLOAT_8_E8M0_FNU"),
    "f4E2M1FN": _Element(ml_dtypes.float4_e2m1fn, 4, "float", _ODD),
    "i1": _Element(np.uint8, 8, "bool", _ODD, "BOOL_8"),
    "i4": _Element(np.uint8, 4, "int", _ODD, "INT_4"),
    "i8": _Element(np.int8, 8, "int", _ODD, "INT_8"),
    "i16": _Element(np.int16, 16, "int", _ODD, "INT_16"),
    "i32": _Element(np.int32, 32, "int", _ODD, "INT_32"),
    "i64": _Element(np.int64, 64, "int", _ODD, "INT_64"),
    "index": _Element(np.int64, 64, "int", _ODD, "INT_64"),
}


_SIGNED = re.compile(r"[su]i(\d+)\Z")


_COMPLEX = re.compile(r"complex<(f32|f64)>\Z")


def _storage(element: str, shape: Sequence[int]) -> tuple[str, _Element, tuple[int, ...]]:
    """The plain element and shape that a tensor is stored as: complex numbers become pairs."""
    plain, dims = element, tuple(shape)
    if inner := _COMPLEX.match(element):
        plain, dims = inner[1], (*dims, 2)
    elif signed := _SIGNED.match(element):
        plain = f"i{signed[1]}"
    if plain not in _ELEMENTS:
        raise ValueError(f"element type {element!r} is not supported")
    return plain, _ELEMENTS[plain], dims


def _byte_size(element: str, shape: Sequence[int]) -> int:
    _, traits, dims = _storage(element, shape)
    return (_count(dims) * traits.bits + 7) // 8


def _count(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


class _Data(msgspec.Struct, frozen=True):
    """What a buffer is filled with.

    ``poison`` is the number of the poison for what is only written. With ``disturbed`` inputs are off by this part of
    themselves, in another way for each ``trial``. ``exact`` stands for small integers, of another kind for each
    ``trial``, and ``edges`` for special values among random ones.
    """

    seed: int
    poison: int = 0
    disturbed: float = 0.0
    trial: int = 0
    exact: ExactData | None = None
    edges: bool = False


def _random_bytes(
    element: str, shape: Sequence[int], rng: np.random.Generator, scale: float = 1.0, *, wide: bool = False
) -> Bytes:
    """Random elements: sums of thousands neither overflow nor lose their sign.

    Floats are uniform in [-scale, scale) (scales in [1/4, 2]). i32, i64 and index are in [0, 8), since they may index
    something; with ``wide`` they are of any size, each as likely. Of narrower integers all bit patterns are used.
    """
    plain, traits, dims = _storage(element, shape)
    count = _count(dims)
    if traits.bits < 8:
        return rng.integers(0, 256, _byte_size(element, shape), dtype=np.uint8)
    if traits.kind == "bool":
        return rng.integers(0, 2, count, dtype=np.uint8)
    if plain == "f8E8M0FNU":
        return rng.integers(125, 129, count, dtype=np.uint8)
    if traits.kind == "int":
        limits = np.iinfo(traits.dtype)
        if wide and traits.bits > 16 and plain != "index":
            values = rng.integers(limits.min, limits.max, count, dtype=traits.dtype, endpoint=True)
            return _as_bytes(values >> rng.integers(0, traits.bits - 1, count, dtype=traits.dtype))
        low, high = (limits.min, limits.max + 1) if traits.bits <= 16 else (0, 8)
        return _as_bytes(rng.integers(low, high, count, dtype=traits.dtype))
    if traits.bits == 64:
        return _as_bytes((rng.random(count) * 2 - 1) * scale)
    values = rng.random(count, dtype=np.float32)
    values *= 2
    values -= 1
    values *= np.float32(scale)
    return _as_bytes(values.astype(traits.dtype, copy=False))


def _integer_bytes(element: str, shape: Sequence[int], rng: np.random.Generator, data: ExactData) -> Bytes:
    """Small integers of either sign, most of them 0 where ``data`` says so.

    Integers are as small, since they may be cast to floats; those that may index something are 0 or 1.
    """
    plain, traits, dims = _storage(element, shape)
    count = _count(dims)
    if plain == "f8E8M0FNU" or traits.kind == "bool":
        return _random_bytes(element, shape, rng)
    if traits.kind == "int" and traits.bits > 16:
        return _as_bytes(rng.integers(0, 2, count).astype(traits.dtype))
    if data.switched and traits.kind == "float":
        # One in each stretch: where none of a row is on all are equal, and are more than the type counts to.
        stretch = max(1, int(1 / data.density))
        starts = np.arange(0, count, stretch)
        values = np.full(count, _SWITCHED_OFF)
        values[np.minimum(starts + rng.integers(0, stretch, starts.size), count - 1)] = _SWITCHED_ON
        return _as_bytes(values.astype(np.float32).astype(traits.dtype))
    values = rng.integers(1, max(1, data.amplitude) + 1, count) * (rng.integers(0, 2, count) * 2 - 1)
    values *= rng.random(count) < data.density
    if traits.kind == "int":
        stored = values.astype(np.int8 if traits.bits < 8 else traits.dtype)
    else:
        stored = values.astype(np.float32).astype(traits.dtype)
    raw = _as_bytes(stored)
    if traits.bits < 8:
        raw = np.append(raw & 0xF, np.zeros(count % 2, np.uint8)).astype(np.uint8)
        return np.asarray(raw[::2] | raw[1::2] << 4, np.uint8)
    return raw


_SWITCHED_ON, _SWITCHED_OFF = 1.0, -127.0
"""The exponential of their difference is 0 in every type, and both are numbers of all of them."""


_LARGE = {"f16": 2.0**8}


_LARGER = 2.0**20


def _with_edges(raw: Bytes, element: str, rng: np.random.Generator, *, special: bool) -> Bytes:
    """Stored floats with negative zeros and denormals among them; with ``special`` a NaN, infinities, large numbers.

    Denormals may be flushed, so only such are used as no result shows: those of f16 are not small enough.
    """
    _, traits, _ = _storage(element, ())
    if not _is_float(element) or traits.bits < 16:
        return raw
    values = raw.view(traits.dtype).copy()
    share = values.size // 16  # Drawn with repetition: a permutation of a large tensor takes seconds.
    values[rng.integers(0, max(1, values.size), share)] = -0.0
    if element != "f16":
        values[rng.integers(0, max(1, values.size), share)] = _tiny(traits.dtype) / 4
    if special and values.size >= _ENOUGH_FOR_SPECIALS:
        large = _LARGE.get(element, _LARGER)
        places = rng.choice(values.size, 4, replace=False, shuffle=True)
        values[places] = np.array([np.nan, np.inf, -np.inf, large]).astype(traits.dtype)
    return _as_bytes(values)


_ENOUGH_FOR_SPECIALS = 64


def _is_float(element: str) -> bool:
    plain, traits, _ = _storage(element, ())
    return traits.kind == "float" and plain != "f8E8M0FNU"


def _disturbed(raw: Bytes, element: str, relative: float, rng: np.random.Generator) -> Bytes:
    """Stored floats, each off by ``relative`` of itself at most, up or down by chance; anything else as it is."""
    if not relative or not _can_be_disturbed(element):
        return raw
    stored = raw.view(_storage(element, ())[1].dtype)
    signs = rng.integers(0, 2, stored.size).astype(np.float64) * 2 - 1
    return _as_bytes((stored.astype(np.float64) * (1 + relative * signs)).astype(stored.dtype))


def _can_be_disturbed(element: str) -> bool:
    _, traits, _ = _storage(element, ())
    return traits.kind == "float" and traits.bits >= 16


def _step(elements: Sequence[str]) -> float:
    """By what part of themselves inputs of all these types can be off at least; 0 where none can."""
    return max((2 * unit_roundoff(element) for element in elements if _can_be_disturbed(element)), default=0.0)


def _given_bytes(tensor: protocol.Shape) -> Bytes:
    """What the file of a tensor holds."""
    given = _as_bytes(np.load(tensor.file, allow_pickle=False))
    if given.size != (size := _byte_size(tensor.element, tensor.shape)):
        raise ValueError(f"{tensor.file} holds {given.size} bytes, not {size}")
    return given


def _tiny(dtype: Any) -> float:
    """The smallest normal number of a float type."""
    return float(ml_dtypes.finfo(dtype).tiny)  # type: ignore[no-untyped-call]


def _smallest_step(element: str) -> float:
    """The distance of the smallest numbers of a float type, or its smallest normal number where they may be flushed."""
    _, traits, _ = _storage(element, ())
    if traits.kind != "float":
        return 0.0
    smallest = _tiny(traits.dtype)
    return smallest if smallest < 2.0**-100 else smallest * 2 * unit_roundoff(element)


def _as_bytes(array: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _comparable(raw: Bytes, element: str, shape: Sequence[int]) -> NDArray[Any]:
    """Stored bytes as an array that `check_output` compares: float32, float64 or an integer type."""
    _, traits, dims = _storage(element, shape)
    if traits.bits < 8:
        halves = np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(-1)[: _count(dims)]
        values = halves.view(traits.dtype) if traits.kind == "float" else halves
    else:
        values = raw.view(traits.dtype)
    if traits.kind == "float" and traits.bits < 64:
        values = values.astype(np.float32, copy=False)
    return np.asarray(values).reshape(dims)


def _patterns(raw: Bytes, element: str) -> NDArray[Any]:
    """Stored bytes as the bit patterns of their elements (a complex number's parts)."""
    _, traits, _ = _storage(element, ())
    if traits.bits < 8:
        return np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(-1)
    return raw.view(f"u{traits.bits // 8}")


def _unwritten(output: _Output, reference: _Output) -> int:
    """How many elements are as they were before the run where the reference has written something else."""
    ours, theirs, before = (_patterns(raw, output.element) for raw in (output.raw, reference.raw, output.before))
    return int(np.count_nonzero((ours == before) & (theirs != before)))


def _hides_poison(output: _Output, values: NDArray[Any]) -> bool:
    """Whether an element of a reference looks like poison, so that a candidate need not write it to be right."""
    if not output.poisoned:
        return False
    if values.dtype.kind == "f" and np.isnan(values).any():
        return True
    return bool((_patterns(output.raw, output.element) == _patterns(output.before, output.element)).any())


class _Layout(msgspec.Struct, frozen=True):
    """A benchmark's buffer: ``copies`` of its views, each ``stride`` bytes after the one before."""

    views: tuple[protocol.View, ...]
    copies: int
    stride: int

    @property
    def size(self) -> int:
        return self.copies * self.stride


class _Image:
    """What data of some kind puts into a benchmark's buffer, on the host and, once used, as a buffer of the device."""

    def __init__(self, layout: _Layout, data: _Data) -> None:
        self.host: Bytes = np.zeros(layout.size, np.uint8)
        for view in layout.views:  # Poison first: a view that is read may share its bytes with one that is written.
            if view.writes and not view.reads:
                self.slice(view)[:] = _storage(view.element, ())[1].poisons[data.poison]
        floats = [view for view in layout.views if view.reads and _is_float(view.element)]
        special = max(floats, key=lambda view: _count(view.shape), default=None)
        for number, view in enumerate(layout.views):
            if view.reads:
                self.slice(view)[:] = self._contents(view, number, data, is_special=view is special)
        copies = self.host.reshape(layout.copies, layout.stride)
        copies[1:] = copies[0]
        self._staged: Any = None

    @staticmethod
    def _contents(view: protocol.View, number: int, data: _Data, *, is_special: bool) -> Bytes:
        if data.exact is not None:
            rng = _generator(data.seed, number, _EXACT, data.trial)
            return _integer_bytes(view.element, view.shape, rng, data.exact)
        if data.edges:
            rng = _generator(data.seed, number, _EDGES)
            raw = _random_bytes(view.element, view.shape, rng, view.scale, wide=view.wide)
            return _with_edges(raw, view.element, rng, special=is_special)
        raw = _random_bytes(view.element, view.shape, _generator(data.seed, number), wide=view.wide)
        return _disturbed(raw, view.element, data.disturbed, _generator(data.seed, number, _DISTURBED, data.trial))

    def slice(self, view: protocol.View) -> Bytes:
        """The bytes of a view in the first copy."""
        return self.host[view.offset_bytes : view.offset_bytes + _byte_size(view.element, view.shape)]

    def staged(self, device: Any) -> Any:
        if self._staged is None:
            self._staged = device.allocator.allocate_host_staging_buffer_copy(device, self.host)
        return self._staged


_EXACT, _EDGES, _DISTURBED = 1, 2, 3


def _generator(seed: int, number: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, number, *purpose])))


class _Output(msgspec.Struct, frozen=True):
    """One output of a run: its bytes, those that were there ``before`` (``None`` for a result), whether poisoned."""

    element: str
    shape: tuple[int, ...]
    raw: Any
    before: Any = None
    poisoned: bool = False


def _hal_type(element: str) -> int:
    if inner := _COMPLEX.match(element):
        return int(rt.HalElementType.COMPLEX_64 if inner[1] == "f32" else rt.HalElementType.COMPLEX_128)
    _, traits, _ = _storage(element, ())
    if not traits.hal:
        raise ValueError(f"a function argument cannot have element type {element!r}")
    return int(getattr(rt.HalElementType, traits.hal))


_HAL_NAMES = {
    **{int(getattr(rt.HalElementType, traits.hal)): name for name, traits in _ELEMENTS.items() if traits.hal},
    **{
        int(getattr(rt.HalElementType, f"{sign}INT_{bits}")): f"i{bits}"
        for sign in ("S", "U", "")
        for bits in (4, 8, 16, 32, 64)
    },
    int(rt.HalElementType.COMPLEX_64): "complex<f32>",
    int(rt.HalElementType.COMPLEX_128): "complex<f64>",
}
