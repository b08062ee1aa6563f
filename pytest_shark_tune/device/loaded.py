"""Modules that are loaded on a device: a benchmark, or a function of a model."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import iree.runtime as rt
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device import elements, protocol
from pytest_shark_tune.device.buffers import BufferImage, BufferLayout, Output, end_of
from pytest_shark_tune.device.comparison import ResultComparer
from pytest_shark_tune.device.hal_device import HalDevice
from pytest_shark_tune.device.inputs import InputData, argument_bytes, at_once
from pytest_shark_tune.dispatch.types import Argument, BufferView
from pytest_shark_tune.measurement.product import product_of

__all__ = ["Loaded", "LoadedBenchmark", "LoadedFunction", "ReferenceResult", "RunResult"]


class RunResult(msgspec.Struct, frozen=True):
    """The effect of a run on one copy of the data."""

    outputs: tuple[Output, ...]
    stray: int = 0
    """The number of bytes changed outside the outputs."""
    copy: int = 0


class ReferenceResult(msgspec.Struct, frozen=True):
    """A reference's result for some data."""

    result: RunResult
    values: tuple[Any, ...]
    """The outputs as numbers."""
    magnitudes: tuple[float, ...]
    """The magnitude of each output, 0 for integers."""


class Loaded(ABC):
    """A module that can be filled with data and run."""

    filled = False
    """Whether the inputs hold anything yet."""
    copies = 1
    step = 0.0
    """The smallest part of themselves by which all inputs can be off; 0 if none can be."""
    comparer: ResultComparer | None = None
    """Compares results on the device, if that is possible."""
    image: BufferImage | None = None
    """The buffer as it was filled."""
    buffer: Any = None
    """The buffer, on the device."""
    views: Sequence[BufferView] = ()
    """The tensors in the buffer."""

    @abstractmethod
    def fill(self, data: InputData) -> None:
        """Write the inputs and poison the outputs."""

    @abstractmethod
    def run(self, batch: int) -> float:
        """Run a batch of dispatches or calls, and return the seconds that they took."""

    @abstractmethod
    def results(self) -> tuple[RunResult, ...]:
        """The results of the last run in the first copy of the data, and in those copies that differ from it."""

    @abstractmethod
    def tensors(self) -> tuple[protocol.TensorData, ...]:
        """All tensors as they are now."""

    def execute(self, data: InputData) -> None:
        """Fill, and run one dispatch on each copy of the data."""
        self.fill(data)
        self.run(self.copies)

    def run_once(self, data: InputData) -> tuple[RunResult, ...]:
        """Fill, run one dispatch on each copy of the data, and read the results."""
        self.execute(data)
        return self.results()

    def unconfirmed(self, kept: ReferenceResult) -> list[NDArray[np.bool_] | bool]:
        """Find the places of each output where an f64 reference does not confirm NaN and infinities.

        Returns:
            A mask for each output, or ``True`` for all its places.
        """
        return [True] * len(kept.values)


class LoadedBenchmark(Loaded):
    """A loaded benchmark module: one buffer that holds all its tensors."""

    def __init__(self, device: HalDevice, request: protocol.LoadBenchmark) -> None:
        module = request.module
        stride = module.buffer_bytes // module.copies
        for view in module.views:
            if view.offset_bytes < 0 or end_of(view) > stride:
                raise ValueError(f"view {view} does not lie in the buffer of {stride} bytes")
        self._device = device
        self.views = module.views
        self._product = module.product
        self._context, loaded = device.load(request.path)
        self._run = _lookup(loaded, module.run_function)
        results = rt.VmVariantList(1)
        self._context.invoke(_lookup(loaded, module.buffer_function), rt.VmVariantList(0), results)
        self.buffer = results.get_as_object(0, rt.HalBufferView).get_buffer()
        size = self.buffer.byte_length()
        if size < module.buffer_bytes:
            raise ValueError(f"the module's buffer has {size} bytes, not {module.buffer_bytes}")
        self._layout = BufferLayout(module.views, module.copies, stride if module.copies > 1 else size)
        self.copies = module.copies
        if request.comparer and self._layout.size == module.buffer_bytes:
            self.comparer = device.comparer(request.comparer, self._layout, request.mark)
        self.step = elements.disturbance_step(view.element for view in module.views if view.reads)

    def fill(self, data: InputData) -> None:
        """Write the inputs of every copy and poison the outputs."""
        self.image = self._device.image(self._layout, data)
        self._device.copy(self.image.staged(self._device.device), self.buffer)
        self.filled = True

    def run(self, batch: int) -> float:
        """Run a batch of dispatches in one call."""
        arguments = rt.VmVariantList(1)
        arguments.push_int(batch)
        results = rt.VmVariantList(0)
        started = time.perf_counter()
        self._context.invoke(self._run, arguments, results)
        return time.perf_counter() - started

    def unconfirmed(self, kept: ReferenceResult) -> list[NDArray[np.bool_] | bool]:
        """Compare the output of a sum of products with the same product in f64."""
        written = [position for position, view in enumerate(self.views) if view.writes]
        unconfirmed = super().unconfirmed(kept)
        if self._product is None or self.image is None:
            return unconfirmed
        views = [self.views[position] for position in self._product.views]
        out = self._product.views[2]
        if out not in written or not all(elements.element_type(view.element).is_signed_float for view in views):
            return unconfirmed
        shapes = self._product.shapes
        if any(math.prod(view.shape) != math.prod(shape) for view, shape in zip(views, shapes, strict=True)):
            return unconfirmed  # It reads or writes a part of what is stored.
        operands = (
            elements.to_array(self.image.slice(view), view.element, shape)
            for view, shape in zip(views[:2], shapes, strict=False)
        )
        product = product_of(self._product, *operands)
        if product is None:
            return unconfirmed
        number = written.index(out)
        with np.errstate(over="ignore"):
            rounded = product.astype(elements.element_type(views[2].element).dtype)
            exact = rounded.astype(np.float64).reshape(kept.values[number].shape)
        default = kept.values[number].astype(np.float64)
        agree = (np.isnan(exact) & np.isnan(default)) | (np.isfinite(exact) & np.isfinite(default)) | (exact == default)
        unconfirmed[number] = ~agree
        return unconfirmed

    def results(self) -> tuple[RunResult, ...]:
        """The results of the last run in the first copy of the data, and in those copies that differ from it."""
        first, *others = self._parts()
        if others:  # A reference is kept, and need not keep the other copies with it.
            first = first.copy()
        odd = [copy for copy, part in enumerate(others, 1) if not np.array_equal(part, first)]
        return (self._result(0, first), *(self._result(copy, others[copy - 1]) for copy in odd))

    def _result(self, copy: int, raw: elements.Bytes) -> RunResult:
        assert self.image is not None
        before = self.image.host[: self._layout.stride]
        written = [view for view in self.views if view.writes]
        outputs = []
        for view in written:
            place = slice(view.offset_bytes, end_of(view))
            outputs.append(Output(view.element, view.shape, raw[place], before[place], not view.reads))
        stray, position = 0, 0
        for view in sorted(written, key=lambda view: view.offset_bytes):
            stray += _differing(raw[position : view.offset_bytes], before[position : view.offset_bytes])
            position = max(position, end_of(view))
        return RunResult(tuple(outputs), stray + _differing(raw[position:], before[position:]), copy)

    def tensors(self) -> tuple[protocol.TensorData, ...]:
        """The tensors of all copies, in the order of the views."""
        return tuple(
            protocol.TensorData(view.shape, view.element, part[view.offset_bytes : end_of(view)].tobytes())
            for part in self._parts()
            for view in self.views
        )

    def _parts(self) -> list[elements.Bytes]:
        raw = self._device.read(self.buffer)[: self._layout.size]
        return list(raw.reshape(self._layout.copies, self._layout.stride))


class LoadedFunction(Loaded):
    """A loaded module of which one function is called on tensors and numbers."""

    def __init__(self, device: HalDevice, request: protocol.LoadFunction) -> None:
        self._device = device
        self._inputs = request.inputs
        self._files = request.files
        self._context, module = device.load(request.path, request.parameters)
        self._function = _lookup(module, request.function)
        self._arguments: list[Any] = []
        self._results: Any = ()
        self.step = elements.disturbance_step(tensor.element for tensor in request.inputs)

    def fill(self, data: InputData) -> None:
        """Make the arguments. Results are buffers of their own, which nobody can poison."""
        jobs = [
            partial(argument_bytes, tensor, number, data, self._files.get(number, ""))
            for number, tensor in enumerate(self._inputs)
        ]
        made = at_once(jobs, sum(math.prod(tensor.shape) for tensor in self._inputs))
        self._arguments = [self._argument(*pair) for pair in zip(made, self._inputs, strict=True)]
        self.filled = True

    def _argument(self, contents: elements.Bytes, tensor: Argument) -> Any:
        if tensor.is_scalar:
            return elements.to_array(contents, tensor.element, ())[()].item()
        kind = elements.hal_type(tensor.element)
        return rt.HalBufferView(self._device.allocate(contents), tensor.shape, kind)

    def _bytes_of(self, argument: Any, tensor: Argument) -> bytes:
        if tensor.is_scalar:
            return np.array(argument, elements.element_type(tensor.element).dtype).tobytes()
        return self._device.read(argument.get_buffer()).tobytes()

    def run(self, batch: int) -> float:
        """Call the function ``batch`` times."""
        lists = []
        for _ in range(batch):
            arguments = rt.VmVariantList(len(self._arguments))
            for argument in self._arguments:
                if isinstance(argument, float):
                    arguments.push_float(argument)
                elif isinstance(argument, int):
                    arguments.push_int(argument)
                else:
                    arguments.push_ref(argument)
            lists.append(arguments)
        results = None
        started = time.perf_counter()
        for arguments in lists:
            results = rt.VmVariantList(1)
            self._context.invoke(self._function, arguments, results)
        seconds = time.perf_counter() - started
        self._results = results
        return seconds

    def results(self) -> tuple[RunResult, ...]:
        """The tensors that the last call returned. Results of other types are left out."""
        outputs = []
        for number in range(len(self._results)):
            try:
                view = self._results.get_as_object(number, rt.HalBufferView)
            except (RuntimeError, ValueError, TypeError):
                continue
            element = elements.element_of_hal_type(int(view.element_type))
            shape = tuple(int(size) for size in view.shape)
            raw = self._device.read(view.get_buffer())[: elements.byte_size(element, shape)]
            outputs.append(Output(element, shape, raw))
        return (RunResult(tuple(outputs)),)

    def tensors(self) -> tuple[protocol.TensorData, ...]:
        """The inputs, then the results of the last call."""
        inputs = tuple(
            protocol.TensorData(tensor.shape, tensor.element, self._bytes_of(argument, tensor))
            for tensor, argument in zip(self._inputs, self._arguments, strict=False)
        )
        return inputs + tuple(
            protocol.TensorData(output.shape, output.element, output.raw.tobytes())
            for output in self.results()[0].outputs
        )


def _lookup(module: Any, name: str) -> Any:
    function = module.lookup_function(name)
    if function is None:
        raise KeyError(f"module {module.name!r} has no function {name!r}; it has {sorted(module.function_names)}")
    return function


def _differing(one: elements.Bytes, other: elements.Bytes) -> int:
    return 0 if np.array_equal(one, other) else int(np.count_nonzero(one != other))
