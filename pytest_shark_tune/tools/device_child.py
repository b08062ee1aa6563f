"""The process that holds a device: loads artifacts, fills their inputs, runs and checks them.

Started by `pytest_shark_tune.tools.runtime.DeviceChild`; ``python -m pytest_shark_tune.tools.device_child``
reads requests from stdin and writes replies to what was its stdout. Imports the runtime and numpy, not the
compiler and not pytest, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import iree.runtime as rt
import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.measurement.correctness import (
    Acceptance,
    Check,
    ExactData,
    Response,
    Tolerance,
    check_output,
    magnitude,
    merge_checks,
    response,
)
from pytest_shark_tune.measurement.product import product_of
from pytest_shark_tune.system.child import die_with_parent, read_frame, write_frame
from pytest_shark_tune.tools import runtime as protocol

__all__ = ["DeviceServer", "main"]

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


_READ_THROUGH_STAGING = ("vulkan",)
"""Drivers that take a host's memory only from the start of a page on, which IREE's copy to the host ignores."""


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


class _Result(msgspec.Struct, frozen=True):
    """What a run left in one copy of the data: the outputs, and how many bytes it changed outside of them."""

    outputs: tuple[_Output, ...]
    stray: int = 0
    copy: int = 0


class _Kept(msgspec.Struct, frozen=True):
    """A reference's result for some data, with its outputs as numbers and their magnitudes, 0 for integers."""

    result: _Result
    values: tuple[Any, ...]
    magnitudes: tuple[float, ...]


class _Reference(msgspec.Struct, frozen=True):
    """What a result is compared with: one ``kept`` for each poison that it takes to see what is never written.

    It is of what is loaded as ``key``.
    """

    key: str
    seed: int
    kept: tuple[_Kept, ...]


class _Benchmark:
    """A loaded benchmark module: one buffer that holds all its tensors."""

    def __init__(self, server: DeviceServer, request: protocol.LoadBenchmark) -> None:
        stride = request.buffer_bytes // request.copies
        for view in request.views:
            if view.offset_bytes < 0 or self._end(view) > stride:
                raise ValueError(f"view {view} does not lie in the buffer of {stride} bytes")
        self._server = server
        self._views = request.views
        self._product = request.product
        self._context, module = server.load(request.path)
        self._run = _lookup(module, request.run_function)
        results = rt.VmVariantList(1)
        self._context.invoke(_lookup(module, request.buffer_function), rt.VmVariantList(0), results)
        self._buffer_view = results.get_as_object(0, rt.HalBufferView)
        self._buffer = self._buffer_view.get_buffer()
        size = self._buffer.byte_length()
        if size < request.buffer_bytes:
            raise ValueError(f"the module's buffer has {size} bytes, not {request.buffer_bytes}")
        self._layout = _Layout(request.views, request.copies, stride if request.copies > 1 else size)
        self._image: _Image | None = None

    @property
    def filled(self) -> bool:
        return self._image is not None

    @property
    def copies(self) -> int:
        return self._layout.copies

    @property
    def step(self) -> float:
        return _step([view.element for view in self._views if view.reads])

    def fill(self, data: _Data) -> None:
        self._image = self._server.image(self._layout, data)
        self._server.copy(self._image.staged(self._server.device), self._buffer)

    def run(self, batch: int) -> float:
        arguments = rt.VmVariantList(1)
        arguments.push_int(batch)
        results = rt.VmVariantList(0)
        started = time.perf_counter()
        self._context.invoke(self._run, arguments, results)
        return time.perf_counter() - started

    def unsure(self, kept: _Kept) -> list[NDArray[np.bool_] | None]:
        """For each output, where no f64 reference confirms what the kept results hold beside finite numbers.

        ``None`` stands for everywhere.
        """
        written = [position for position, view in enumerate(self._views) if view.writes]
        unsure: list[NDArray[np.bool_] | None] = [None] * len(written)
        if self._product is None or self._image is None:
            return unsure
        left, right, out = self._product.views
        if out not in written or not all(_is_float(self._views[position].element) for position in (left, right, out)):
            return unsure
        sizes = [(_count(self._views[one].shape), _count(shape)) for one, shape in self._product_shapes()]
        if any(stored != taken for stored, taken in sizes):  # It reads or writes a part of what is stored.
            return unsure
        operands = (
            _comparable(self._image.slice(self._views[position]), self._views[position].element, shape)
            for position, shape in zip((left, right), self._product.shapes, strict=False)
        )
        product = product_of(self._product, *operands)
        if product is None:
            return unsure
        number = written.index(out)
        stored = _storage(self._views[out].element, ())[1].dtype
        with np.errstate(over="ignore"):
            exact = product.astype(stored).astype(np.float64).reshape(kept.values[number].shape)
        default = kept.values[number].astype(np.float64)
        agree = (np.isnan(exact) & np.isnan(default)) | (np.isfinite(exact) & np.isfinite(default)) | (exact == default)
        unsure[number] = ~agree
        return unsure

    def _product_shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        """The positions of the views of the product's tensors, each with its shape in the op."""
        return [] if self._product is None else list(zip(self._product.views, self._product.shapes, strict=True))

    def results(self) -> tuple[_Result, ...]:
        """What the last run left in the first copy of the data, and in those copies that differ from it."""
        first, *others = self._parts()
        if others:  # A reference is kept, and need not keep the other copies with it.
            first = first.copy()
        odd = [copy for copy, part in enumerate(others, 1) if not np.array_equal(part, first)]
        return (self._result(0, first), *(self._result(copy, others[copy - 1]) for copy in odd))

    def _result(self, copy: int, raw: Bytes) -> _Result:
        assert self._image is not None
        before = self._image.host[: self._layout.stride]
        written = [view for view in self._views if view.writes]
        outputs = []
        for view in written:
            place = slice(view.offset_bytes, self._end(view))
            outputs.append(_Output(view.element, view.shape, raw[place], before[place], not view.reads))
        stray, position = 0, 0
        for view in sorted(written, key=lambda view: view.offset_bytes):
            stray += _differing(raw[position : view.offset_bytes], before[position : view.offset_bytes])
            position = max(position, self._end(view))
        return _Result(tuple(outputs), stray + _differing(raw[position:], before[position:]), copy)

    def tensors(self) -> tuple[protocol.TensorData, ...]:
        return tuple(
            protocol.TensorData(view.shape, view.element, part[view.offset_bytes : self._end(view)].tobytes())
            for part in self._parts()
            for view in self._views
        )

    def _parts(self) -> list[Bytes]:
        raw = self._server.read(self._buffer_view)[: self._layout.size]
        return list(raw.reshape(self._layout.copies, self._layout.stride))

    @staticmethod
    def _end(view: protocol.View) -> int:
        return view.offset_bytes + _byte_size(view.element, view.shape)


class _Function:
    """A loaded module of which one function is called on tensors."""

    copies = 1

    def __init__(self, server: DeviceServer, request: protocol.LoadFunction) -> None:
        self._server = server
        self._inputs = request.inputs
        self._context, module = server.load(request.path)
        self._function = _lookup(module, request.function)
        self._arguments: list[Any] | None = None
        self._results: Any = None
        for tensor in request.inputs:
            _hal_type(tensor.element)

    @property
    def filled(self) -> bool:
        return self._arguments is not None

    @property
    def step(self) -> float:
        return _step([tensor.element for tensor in self._inputs])

    def fill(self, data: _Data) -> None:
        """Make the arguments; results are buffers of their own, which nobody can poison."""
        device = self._server.device
        self._arguments = [
            rt.HalBufferView(
                device.allocator.allocate_buffer_copy(
                    memory_type=rt.MemoryType.DEVICE_LOCAL,
                    allowed_usage=rt.BufferUsage.DEFAULT,
                    device=device,
                    buffer=self._contents(tensor, number, data),
                ),
                tensor.shape,
                _hal_type(tensor.element),
            )
            for number, tensor in enumerate(self._inputs)
        ]

    @staticmethod
    def _contents(tensor: protocol.Shape, number: int, data: _Data) -> Bytes:
        rng = _generator(data.seed, number)
        raw = _given_bytes(tensor) if tensor.file else _random_bytes(tensor.element, tensor.shape, rng)
        return _disturbed(raw, tensor.element, data.disturbed, _generator(data.seed, number, _DISTURBED, data.trial))

    def run(self, batch: int) -> float:
        assert self._arguments is not None
        lists = []
        for _ in range(batch):
            arguments = rt.VmVariantList(len(self._arguments))
            for view in self._arguments:
                arguments.push_ref(view)
            lists.append(arguments)
        results = None
        started = time.perf_counter()
        for arguments in lists:
            results = rt.VmVariantList(1)
            self._context.invoke(self._function, arguments, results)
        seconds = time.perf_counter() - started
        self._results = results
        return seconds

    def results(self) -> tuple[_Result, ...]:
        """The tensors that the last call returned; results of other types are left out."""
        outputs = []
        for number in range(0 if self._results is None else len(self._results)):
            try:
                view = self._results.get_as_object(number, rt.HalBufferView)
            except (RuntimeError, ValueError, TypeError):
                continue
            tensor = self._tensor(view)
            outputs.append(_Output(tensor.element, tensor.shape, np.frombuffer(tensor.data, np.uint8)))
        return (_Result(tuple(outputs)),)

    def tensors(self) -> tuple[protocol.TensorData, ...]:
        inputs = tuple(
            protocol.TensorData(tensor.shape, tensor.element, self._server.read(view).tobytes())
            for tensor, view in zip(self._inputs, self._arguments or (), strict=False)
        )
        return inputs + tuple(
            protocol.TensorData(each.shape, each.element, each.raw.tobytes()) for each in self.results()[0].outputs
        )

    def _tensor(self, view: Any) -> protocol.TensorData:
        element = _HAL_NAMES.get(int(view.element_type))
        if element is None:
            raise ValueError(f"a result has the element type {view.element_type}, which cannot be compared")
        shape = tuple(int(size) for size in view.shape)
        return protocol.TensorData(shape, element, self._server.read(view)[: _byte_size(element, shape)].tobytes())


def _lookup(module: Any, name: str) -> Any:
    function = module.lookup_function(name)
    if function is None:
        raise KeyError(f"module {module.name!r} has no function {name!r}; it has {sorted(module.function_names)}")
    return function


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


def _differing(one: Bytes, other: Bytes) -> int:
    return 0 if np.array_equal(one, other) else int(np.count_nonzero(one != other))


class DeviceServer:
    """Answers the requests of one device child. A method per request; what it raises becomes the reply's error."""

    def __init__(self) -> None:
        self.uri = ""
        self.device: Any = None
        self._instance = rt.VmInstance()
        self._hal_module: Any = None
        self._loaded: dict[str, _Benchmark | _Function] = {}
        self._references: dict[str, _Reference] = {}
        self._on_other_data: dict[str, dict[_Data, _Kept]] = {}
        self._unsure: dict[str, list[NDArray[np.bool_] | None]] = {}
        self._responses: dict[str, tuple[Response | None, ...]] = {}
        self._images: dict[tuple[_Layout, _Data], _Image] = {}

    def answer(self, request: protocol.Request) -> Any:
        """The value of the reply to ``request``."""
        match request:
            case protocol.Open(uri):
                self.open(uri)
            case protocol.ListDevices(driver):
                return _list_devices(driver)
            case protocol.Describe():
                return self.describe()
            case protocol.LoadBenchmark(key=key):
                self.unload(key)
                self._loaded[key] = _Benchmark(self, request)
            case protocol.LoadFunction(key=key):
                self.unload(key)
                self._loaded[key] = _Function(self, request)
            case protocol.Fill(key, seed):
                self._get(key).fill(_Data(seed))
            case protocol.RunBatch(key, batch):
                return self.run(key, batch)
            case protocol.KeepReference(key, name, seed):
                self.keep_reference(key, name, seed)
            case protocol.CheckOutputs(key, name, acceptance, edges):
                return self.check_edges(key, name, acceptance) if edges else self.check(key, name, acceptance)
            case protocol.LearnResponse(key, name, relative):
                self.learn_response(key, name, relative)
            case protocol.Read(key):
                return self._get(key).tensors()
            case protocol.Unload(key):
                self.unload(key)
        return None

    def open(self, uri: str) -> None:
        """Hold the device at ``uri`` from here on."""
        self.device = rt.get_device(uri)
        self.uri = uri
        self._hal_module = rt.create_hal_module(self._instance, self.device)

    def describe(self) -> protocol.DeviceInfo:
        """What the device is."""
        driver = self.uri.partition("://")[0]
        if driver.startswith("local"):
            name = protocol.cpu_name()
        else:
            entry = protocol.find_device(self.uri, _list_devices(driver))
            name = driver if entry is None else entry.name
        return protocol.DeviceInfo(self.uri, driver, name, protocol.slug(name), protocol.runtime_version())

    def run(self, key: str, batch: int) -> float:
        """Run ``batch`` dispatches; the seconds they took together."""
        loaded = self._get(key)
        if batch < 1:
            raise ValueError(f"a batch has at least one dispatch, not {batch}")
        if not loaded.filled:
            loaded.fill(_Data(0))
        return loaded.run(batch)

    def keep_reference(self, key: str, name: str, seed: int) -> None:
        """Fill from ``seed``, run once and keep the outputs as ``name``."""
        first = _kept(self._run_once(key, _Data(seed))[0])
        kept = [first]
        if any(map(_hides_poison, first.result.outputs, first.values)):
            kept.append(_kept(self._run_once(key, _Data(seed, poison=1))[0]))
        self._references[name] = _Reference(key, seed, tuple(kept))
        for known in (self._on_other_data, self._unsure, self._responses):
            known.pop(name, None)

    def check(self, key: str, name: str, acceptance: Acceptance) -> Check:
        """Fill and run as for reference ``name``, and compare the outputs with it, then on exact data.

        Where they are out of tolerance, it counts how far the reference itself is off if its inputs are.
        """
        reference = self._reference(name)
        for poison, kept in enumerate(reference.kept):
            results = self._run_once(key, _Data(reference.seed, poison))
            check = _check_results(results, kept, reference.seed, acceptance.tolerance, key, name)
            if not check.ok and (responses := self._responses_of(name)):
                check = _check_results(results, kept, reference.seed, acceptance.tolerance, key, name, responses)
            if not check.ok:
                return check
        if acceptance.data is not None and self._loaded.get(reference.key) is not None:
            try:
                for trial in range(acceptance.data.rounds):
                    data = _Data(reference.seed, trial=trial, exact=acceptance.data)
                    kept = self._kept_on(name, data)
                    exact = _check_results(self._run_once(key, data), kept, reference.seed, acceptance.exact, key, name)
                    if not exact.ok:
                        check = exact
                        break
            finally:
                self._restore(key, reference)
        return check

    def check_edges(self, key: str, name: str, acceptance: Acceptance) -> Check:
        """Compare the outputs with the reference's on special values among the inputs.

        The magnitude is that of most elements, as some are very large; those are off in proportion to themselves.
        """
        reference = self._reference(name)
        data = _Data(reference.seed, edges=True)
        try:
            kept = self._kept_on(name, data)
            if name not in self._unsure:
                loaded = self._get(reference.key)
                self._unsure[name] = (
                    loaded.unsure(kept) if isinstance(loaded, _Benchmark) else [None] * len(kept.values)
                )
            tolerance = acceptance.tolerance
            results = self._run_once(key, data)
            return _check_results(
                results, kept, reference.seed, tolerance, key, name, unsure=self._unsure[name], elementwise=True
            )
        finally:
            self._restore(key, reference)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Add how the results of ``key`` differ from reference ``name`` to what is known of its answers."""
        reference = self._reference(name)
        was, now = reference.kept[0], _kept(self._run_once(key, _Data(reference.seed))[0]).values
        if [values.shape for values in was.values] != [values.shape for values in now]:
            raise ValueError(f"outputs of {key!r} cannot be compared with reference {name!r}")
        found = _responses(was, [now], relative / 2**0.5)
        known = self._responses_of(name) or (None,) * len(found)
        self._responses[name] = tuple(map(_larger, known, found))

    def _reference(self, name: str) -> _Reference:
        if name not in self._references:
            raise KeyError(f"no reference {name!r} is kept")
        return self._references[name]

    def _kept_on(self, name: str, data: _Data) -> _Kept:
        """The reference's results on other data than its own."""
        known = self._on_other_data.setdefault(name, {})
        if data not in known:
            known[data] = _kept(self._run_once(self._references[name].key, data)[0])
        return known[data]

    def _restore(self, key: str, reference: _Reference) -> None:
        """Fill with the reference's own data what ran on other data, as timing may depend on it."""
        for filled in {key, reference.key}:
            self._get(filled).fill(_Data(reference.seed))

    def _responses_of(self, name: str) -> tuple[Response | None, ...]:
        """How each output of a reference answers to inputs that are off; empty where none can be."""
        if name not in self._responses:
            reference = self._references[name]
            loaded, was = self._loaded.get(reference.key), reference.kept[0]
            found: tuple[Response | None, ...] = ()
            if loaded is not None and loaded.step:
                runs = []
                started = time.perf_counter()
                for trial in range(_RESPONSE_RUNS):
                    data = _Data(reference.seed, disturbed=loaded.step, trial=trial)
                    runs.append(_kept(self._run_once(reference.key, data)[0]).values)
                    if trial + 1 >= _FEWEST_RESPONSE_RUNS and time.perf_counter() - started > _RESPONSE_S:
                        break
                loaded.fill(_Data(reference.seed))
                found = _responses(was, runs, loaded.step)
            self._responses[name] = found
        return self._responses[name]

    def unload(self, key: str) -> None:
        """Free what ``key`` holds."""
        self._loaded.pop(key, None)

    def works(self) -> bool:
        """Whether the device still copies data, which one that met an illegal access does not."""
        if self.device is None:
            return True
        try:
            probe = np.arange(64, dtype=np.uint8)
            buffer = self.device.allocator.allocate_buffer_copy(
                memory_type=rt.MemoryType.DEVICE_LOCAL,
                allowed_usage=rt.BufferUsage.DEFAULT,
                device=self.device,
                buffer=probe,
            )
            return bool(np.array_equal(self._bytes_of(buffer), probe))
        except Exception:
            return False

    def load(self, path: str) -> tuple[Any, Any]:
        """A context and the module in it."""
        if self.device is None:
            raise RuntimeError("no device has been opened")
        module = rt.VmModule.copy_buffer(self._instance, Path(path).read_bytes())
        return rt.VmContext(self._instance, modules=[self._hal_module, module]), module

    def image(self, layout: _Layout, data: _Data) -> _Image:
        """What such data puts into such a buffer; the last few are kept."""
        key = (layout, data)
        image = self._images.pop(key, None) or _Image(*key)
        while self._images and (
            len(self._images) >= _IMAGES_KEPT
            or sum(kept.size for kept, *_ in self._images) + layout.size > _IMAGES_KEPT_BYTES
        ):
            del self._images[next(iter(self._images))]
        self._images[key] = image
        return image

    def copy(self, source: Any, target: Any) -> None:
        """Copy the whole of ``source`` to the start of ``target`` on the device's queue, and wait."""
        semaphore = self.device.create_semaphore(0)
        self.device.queue_copy(
            source,
            target,
            wait_semaphores=rt.HalFence.create_at(semaphore, 0),
            signal_semaphores=rt.HalFence.create_at(semaphore, 1),
        )
        rt.HalFence.create_at(semaphore, 1).wait()

    def read(self, view: Any) -> Bytes:
        """The bytes of a buffer view, copied to the host."""
        return self._bytes_of(view.get_buffer())

    def _bytes_of(self, buffer: Any) -> Bytes:
        size = buffer.byte_length()
        if self.uri.partition("://")[0] in _READ_THROUGH_STAGING:
            staging = self.device.allocator.allocate_buffer(
                memory_type=rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE,
                allowed_usage=rt.BufferUsage.TRANSFER | rt.BufferUsage.MAPPING,
                allocation_size=size,
            )
            self.copy(buffer, staging)
            return np.array(staging.map().asarray((size,), np.dtype(np.uint8)), np.uint8)
        host = rt.DeviceArray(self.device, rt.HalBufferView(buffer, [size], rt.HalElementType.UINT_8)).to_host()
        copied = host if host.flags.owndata else host.copy()  # What is mapped changes with the next run.
        return np.asarray(copied, np.uint8).reshape(-1)

    def _get(self, key: str) -> _Benchmark | _Function:
        if key not in self._loaded:
            raise KeyError(f"nothing is loaded under {key!r}")
        return self._loaded[key]

    def _run_once(self, key: str, data: _Data) -> tuple[_Result, ...]:
        """Fill, and run one dispatch on each copy of the data."""
        loaded = self._get(key)
        loaded.fill(data)
        loaded.run(loaded.copies)
        return loaded.results()


_RESPONSE_RUNS = 8
_FEWEST_RESPONSE_RUNS = 4
_RESPONSE_S = 10.0
"""No more runs than the fewest are made once they have taken so long."""


def _kept(result: _Result) -> _Kept:
    values = tuple(_comparable(output.raw, output.element, output.shape) for output in result.outputs)
    return _Kept(result, values, tuple(magnitude(part) if part.dtype.kind == "f" else 0.0 for part in values))


def _responses(was: _Kept, runs: Sequence[tuple[Any, ...]], relative: float) -> tuple[Response | None, ...]:
    """How each output answers, ``None`` for integers."""
    return tuple(
        response(part, [run[number] for run in runs], relative) if part.dtype.kind == "f" else None
        for number, part in enumerate(was.values)
    )


def _larger(one: Response | None, other: Response | None) -> Response | None:
    if one is None or other is None:
        return one or other
    return Response(np.maximum(one.elements, other.elements))


def _check_results(
    results: Sequence[_Result],
    kept: _Kept,
    seed: int,
    tolerance: Tolerance,
    key: str,
    name: str,
    responses: Sequence[Response | None] = (),
    *,
    unsure: Sequence[NDArray[np.bool_] | None] = (),
    elementwise: bool = False,
) -> Check:
    """Compare what a run left in the copies of the data that differ with reference ``name``.

    ``responses`` are its outputs', or empty. ``unsure`` says where only finite numbers are compared, ``None`` for
    everywhere; where it is empty all are.
    """
    ours = [(output.element, output.shape) for output in results[0].outputs]
    theirs = [(output.element, output.shape) for output in kept.result.outputs]
    if ours != theirs:
        raise ValueError(f"outputs {ours} cannot be compared with reference {name!r}, which has {theirs}")
    if not ours:
        raise ValueError(f"{key!r} has no outputs to compare")
    merged = []
    for result in results:
        checks = []
        for number, (output, expected) in enumerate(zip(result.outputs, kept.result.outputs, strict=True)):
            allowed = tolerance
            if _storage(output.element, ())[1].kind == "float":
                allowed = tolerance.stored_as(output.element)
            scale = kept.magnitudes[number]
            if elementwise:
                scale = _usual(kept.values[number])
                allowed = msgspec.structs.replace(allowed, rtol=allowed.rtol + allowed.atol_scale)
            check = check_output(
                kept.values[number],
                _comparable(output.raw, output.element, output.shape),
                allowed,
                scale=scale,
                answers=responses[number] if responses else None,
                floor=_smallest_step(output.element),
                finite_only=_finite_only(unsure, number),
                seed=seed,
                output=number,
            )
            left = _unwritten(output, expected) if output.before is not None and not check.ok else 0
            checks.append(msgspec.structs.replace(check, copy=result.copy, poison_left=left))
        # What the reference changes outside its outputs too may be scratch memory.
        stray = 0 if kept.result.stray else result.stray
        one = merge_checks(checks)
        merged.append(msgspec.structs.replace(one, ok=one.ok and not stray, stray_bytes=stray))
    return merge_checks(merged)


def _finite_only(unsure: Sequence[NDArray[np.bool_] | None], number: int) -> NDArray[np.bool_] | bool:
    """Where only finite numbers of an output are compared."""
    if not unsure:
        return False
    places = unsure[number]
    return True if places is None else places


def _usual(values: NDArray[Any]) -> float:
    """The magnitude of most elements: of all but the twentieth that is largest."""
    if values.dtype.kind != "f":
        return 0.0
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _ENOUGH_FOR_A_QUANTILE)]
    finite = np.abs(some[np.isfinite(some)])
    if not finite.size:
        return 0.0
    return magnitude(finite[finite <= np.quantile(finite, 0.95)]) or magnitude(finite)


_ENOUGH_FOR_A_QUANTILE = 1 << 20


def _list_devices(driver: str) -> list[protocol.DeviceEntry]:
    entries = []
    for index, device in enumerate(rt.get_driver(driver).query_available_devices()):
        path = str(device.get("path") or "")
        uri = f"{driver}://{path}" if path else driver
        entries.append(protocol.DeviceEntry(uri, str(device.get("name") or driver), path, index))
    return entries


def main(serve: Callable[[], DeviceServer] = DeviceServer) -> None:
    """Answer requests until stdin ends. Whatever else is printed goes to stderr."""
    die_with_parent()
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    decode = msgspec.msgpack.Decoder(protocol.Request).decode
    encode = msgspec.msgpack.Encoder().encode
    server = serve()
    while (payload := read_frame(requests)) is not None:
        reply: protocol.Reply[Any]
        try:
            reply = protocol.Reply(value=server.answer(decode(payload)))
        except Exception as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            reply = protocol.Reply(error=f"{type(error).__name__}: {text}")
            error.__traceback__ = None
        if reply.error is not None and not server.works():
            reply = msgspec.structs.replace(reply, lost=True)
        write_frame(replies, encode(reply))
    sys.stderr.flush()
    os._exit(0)  # The order in which drivers are torn down is nobody's business any more.


if __name__ == "__main__":
    main()
