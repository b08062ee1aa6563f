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

from pytest_shark_tune.stages.check import (
    PLAIN,
    Check,
    Conditioning,
    Tolerance,
    check_output,
    conditioning,
    magnitude,
    merge_checks,
    unit_roundoff,
)
from pytest_shark_tune.tools import runtime as protocol
from pytest_shark_tune.tools.child import die_with_parent, read_frame, write_frame

__all__ = ["DeviceServer", "main"]

Bytes: TypeAlias = NDArray[np.uint8]

_IMAGES_KEPT = 4
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


def _random_bytes(element: str, shape: Sequence[int], rng: np.random.Generator) -> Bytes:
    """Random elements of modest size: sums of thousands neither overflow nor lose their sign.

    Floats are uniform in [-1, 1) (scales in [1/4, 2]), i8 and i16 in [-8, 8), and i32, i64 and index in
    [0, 8), since they may index something. All bit patterns of types below a byte are used.
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
        low = -8 if traits.bits <= 16 else 0
        return _as_bytes(rng.integers(low, 8, count, dtype=traits.dtype))
    if traits.bits == 64:
        return _as_bytes(rng.random(count) * 2 - 1)
    values = rng.random(count, dtype=np.float32)
    values *= 2
    values -= 1
    return _as_bytes(values.astype(traits.dtype, copy=False))


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
    """What a seed puts into a benchmark's buffer, on the host and, once used, as a buffer of the device.

    Inputs are off by ``disturbed`` of themselves.
    """

    def __init__(self, layout: _Layout, seed: int, poison: int, disturbed: float) -> None:
        self.host: Bytes = np.zeros(layout.size, np.uint8)
        for view in layout.views:  # Poison first: a view that is read may share its bytes with one that is written.
            if view.writes and not view.reads:
                self._slice(view)[:] = _storage(view.element, ())[1].poisons[poison]
        for number, view in enumerate(layout.views):
            if view.reads:
                rng = _generator(seed, number)
                data = _random_bytes(view.element, view.shape, rng)
                self._slice(view)[:] = _disturbed(data, view.element, disturbed, rng)
        copies = self.host.reshape(layout.copies, layout.stride)
        copies[1:] = copies[0]
        self._staged: Any = None

    def _slice(self, view: protocol.View) -> Bytes:
        return self.host[view.offset_bytes : view.offset_bytes + _byte_size(view.element, view.shape)]

    def staged(self, device: Any) -> Any:
        if self._staged is None:
            self._staged = device.allocator.allocate_host_staging_buffer_copy(device, self.host)
        return self._staged


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, number])))


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
    """A reference's result for one poison, with its outputs as numbers."""

    result: _Result
    values: tuple[Any, ...]


class _Reference(msgspec.Struct, frozen=True):
    """What a result is compared with: one ``kept`` for each poison that it takes to see what is never written.

    It is of what is loaded as ``key``. ``magnitudes`` are of its outputs, 0 for integers.
    """

    key: str
    seed: int
    kept: tuple[_Kept, ...]
    magnitudes: tuple[float, ...]


class _Benchmark:
    """A loaded benchmark module: one buffer that holds all its tensors."""

    def __init__(self, server: DeviceServer, request: protocol.LoadBenchmark) -> None:
        stride = request.buffer_bytes // request.copies
        for view in request.views:
            if view.offset_bytes < 0 or self._end(view) > stride:
                raise ValueError(f"view {view} does not lie in the buffer of {stride} bytes")
        self._server = server
        self._views = request.views
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

    def fill(self, seed: int, poison: int = 0, disturbed: float = 0.0) -> None:
        self._image = self._server.image(self._layout, seed, poison, disturbed)
        self._server.copy(self._image.staged(self._server.device), self._buffer)

    def run(self, batch: int) -> float:
        arguments = rt.VmVariantList(1)
        arguments.push_int(batch)
        results = rt.VmVariantList(0)
        started = time.perf_counter()
        self._context.invoke(self._run, arguments, results)
        return time.perf_counter() - started

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

    def fill(self, seed: int, poison: int = 0, disturbed: float = 0.0) -> None:
        """Make the arguments; results are buffers of their own, which nobody can poison."""
        device = self._server.device
        self._arguments = [
            rt.HalBufferView(
                device.allocator.allocate_buffer_copy(
                    memory_type=rt.MemoryType.DEVICE_LOCAL,
                    allowed_usage=rt.BufferUsage.DEFAULT,
                    device=device,
                    buffer=self._data(tensor, _generator(seed, number), disturbed),
                ),
                tensor.shape,
                _hal_type(tensor.element),
            )
            for number, tensor in enumerate(self._inputs)
        ]

    @staticmethod
    def _data(tensor: protocol.Shape, rng: np.random.Generator, disturbed: float) -> Bytes:
        data = _given_bytes(tensor) if tensor.file else _random_bytes(tensor.element, tensor.shape, rng)
        return _disturbed(data, tensor.element, disturbed, rng)

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
        self._conditioned: dict[str, tuple[Conditioning, ...]] = {}
        self._images: dict[tuple[_Layout, int, int, float], _Image] = {}

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
                self._get(key).fill(seed)
            case protocol.RunBatch(key, batch):
                return self.run(key, batch)
            case protocol.KeepReference(key, name, seed):
                self.keep_reference(key, name, seed)
            case protocol.CheckOutputs(key, name, tolerance):
                return self.check(key, name, tolerance)
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
            loaded.fill(0)
        return loaded.run(batch)

    def keep_reference(self, key: str, name: str, seed: int) -> None:
        """Fill from ``seed``, run once and keep the outputs as ``name``."""
        first = _kept(self._run_once(key, seed)[0])
        kept = [first]
        if any(map(_hides_poison, first.result.outputs, first.values)):
            kept.append(_kept(self._run_once(key, seed, poison=1)[0]))
        magnitudes = tuple(magnitude(each) if each.dtype.kind == "f" else 0.0 for each in first.values)
        self._references[name] = _Reference(key, seed, tuple(kept), magnitudes)
        self._conditioned.pop(name, None)

    def check(self, key: str, name: str, tolerance: Tolerance) -> Check:
        """Fill and run as for reference ``name``, and compare the outputs with it.

        Where they are out of tolerance, it counts how far the reference itself is off if its inputs are.
        """
        reference = self._references.get(name)
        if reference is None:
            raise KeyError(f"no reference {name!r} is kept")
        for poison, kept in enumerate(reference.kept):
            results = self._run_once(key, reference.seed, poison)
            ours = [(each.element, each.shape) for each in results[0].outputs]
            theirs = [(each.element, each.shape) for each in kept.result.outputs]
            if ours != theirs:
                raise ValueError(f"outputs {ours} cannot be compared with reference {name!r}, which has {theirs}")
            if not ours:
                raise ValueError(f"{key!r} has no outputs to compare")
            check = merge_checks([_compared(each, kept, reference, (), tolerance) for each in results])
            if not check.ok and (conditioned := self._conditioning(name)):
                check = merge_checks([_compared(each, kept, reference, conditioned, tolerance) for each in results])
            if not check.ok:
                break
        return check

    def _conditioning(self, name: str) -> tuple[Conditioning, ...]:
        """How each output of a reference answers to inputs that are off; empty where none can be."""
        if name not in self._conditioned:
            reference = self._references[name]
            loaded, was = self._loaded.get(reference.key), reference.kept[0]
            answers: tuple[Conditioning, ...] = ()
            if loaded is not None and loaded.step:
                now = _kept(self._run_once(reference.key, reference.seed, disturbed=loaded.step)[0])
                answers = tuple(
                    conditioning(one, other, loaded.step) if one.dtype.kind == "f" else PLAIN
                    for one, other in zip(was.values, now.values, strict=True)
                )
            self._conditioned[name] = answers
        return self._conditioned[name]

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

    def image(self, layout: _Layout, seed: int, poison: int, disturbed: float) -> _Image:
        """What ``seed`` puts into such a buffer; the last few are kept."""
        key = (layout, seed, poison, disturbed)
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

    def _run_once(self, key: str, seed: int, poison: int = 0, disturbed: float = 0.0) -> tuple[_Result, ...]:
        """Fill, and run one dispatch on each copy of the data."""
        loaded = self._get(key)
        loaded.fill(seed, poison, disturbed)
        loaded.run(loaded.copies)
        return loaded.results()


def _kept(result: _Result) -> _Kept:
    return _Kept(result, tuple(_comparable(each.raw, each.element, each.shape) for each in result.outputs))


def _compared(
    result: _Result,
    kept: _Kept,
    reference: _Reference,
    conditioned: Sequence[Conditioning],
    tolerance: Tolerance,
) -> Check:
    """Compare what a run left in one copy of the data with the reference; ``conditioned`` is its outputs', or empty."""
    checks = []
    for number, (output, expected) in enumerate(zip(result.outputs, kept.result.outputs, strict=True)):
        check = check_output(
            kept.values[number],
            _comparable(output.raw, output.element, output.shape),
            _at_least_stored(tolerance, output.element),
            scale=reference.magnitudes[number],
            conditioned=conditioned[number] if conditioned else PLAIN,
            seed=reference.seed,
            output=number,
        )
        left = _unwritten(output, expected) if output.before is not None and not check.ok else 0
        checks.append(msgspec.structs.replace(check, copy=result.copy, poison_left=left))
    # What the reference changes outside its outputs too may be scratch memory.
    stray = 0 if kept.result.stray else result.stray
    merged = merge_checks(checks)
    return msgspec.structs.replace(merged, ok=merged.ok and not stray, stray_bytes=stray)


def _at_least_stored(tolerance: Tolerance, element: str) -> Tolerance:
    """``tolerance``, but never finer than the rounding of an output that is stored in a coarser type."""
    roundoff = 0.0 if _storage(element, ())[1].kind != "float" else unit_roundoff(element)
    return msgspec.structs.replace(tolerance, rtol=max(tolerance.rtol, 4 * roundoff))


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
