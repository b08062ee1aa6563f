"""Modules that are loaded on a device: a benchmark, or a function of a model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import iree.runtime as rt
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device import protocol
from pytest_shark_tune.device.buffers import (
    _DISTURBED,
    _HAL_NAMES,
    Bytes,
    _byte_size,
    _comparable,
    _count,
    _Data,
    _disturbed,
    _generator,
    _given_bytes,
    _hal_type,
    _Image,
    _is_float,
    _Layout,
    _Output,
    _random_bytes,
    _step,
    _storage,
)
from pytest_shark_tune.measurement.product import product_of

if TYPE_CHECKING:
    from pytest_shark_tune.device.server import DeviceServer

__all__ = []


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
        shapes = zip(self._product.views, self._product.shapes, strict=True)
        sizes = [(_count(self._views[one].shape), _count(shape)) for one, shape in shapes]
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


def _differing(one: Bytes, other: Bytes) -> int:
    return 0 if np.array_equal(one, other) else int(np.count_nonzero(one != other))
