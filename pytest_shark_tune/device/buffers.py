"""The buffers of a benchmark module: their layout, their contents before a run, and the outputs after it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import iree.runtime as rt
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device.elements import Bytes, bit_patterns, byte_size, element_type
from pytest_shark_tune.device.inputs import InputData, at_once, view_bytes
from pytest_shark_tune.dispatch.types import BufferView

__all__ = ["BufferImage", "BufferLayout", "Output", "count_unwritten", "end_of", "hides_poison"]


class Output(msgspec.Struct, frozen=True):
    """One output of a run."""

    element: str
    shape: tuple[int, ...]
    raw: Any
    """Its bytes."""
    before: Any = None
    """The bytes that were there before the run; ``None`` for the result of a function."""
    poisoned: bool = False


class BufferLayout(msgspec.Struct, frozen=True):
    """A benchmark's buffer: ``copies`` of its views, ``stride`` bytes apart."""

    views: tuple[BufferView, ...]
    copies: int
    stride: int

    @property
    def size(self) -> int:
        """The number of bytes that the copies fill."""
        return self.copies * self.stride


class BufferImage:
    """The contents of a benchmark's buffer, on the host and, once used, as a buffer of the device."""

    def __init__(self, layout: BufferLayout, data: InputData) -> None:
        self.host: Bytes = np.zeros(layout.size, np.uint8)
        for view in layout.views:  # Poison first: a view that is read may share its bytes with one that is written.
            if view.writes and not view.reads:
                self.slice(view)[:] = element_type(view.element).poisons[data.poison]
        floats = [view for view in layout.views if view.reads and element_type(view.element).is_signed_float]
        special = max(floats, key=lambda view: math.prod(view.shape), default=None)
        read = [(number, view) for number, view in enumerate(layout.views) if view.reads]
        jobs = [partial(view_bytes, view, number, data, is_special=view is special) for number, view in read]
        made = at_once(jobs, sum(math.prod(view.shape) for _, view in read))
        for (_, view), contents in zip(read, made, strict=True):
            self.slice(view)[:] = contents
        copies = self.host.reshape(layout.copies, layout.stride)
        copies[1:] = copies[0]
        self._staged: Any = None

    def slice(self, view: BufferView) -> Bytes:
        """The bytes of a view in the first copy."""
        return self.host[view.offset_bytes : end_of(view)]

    def staged(self, device: Any) -> Any:
        """The same contents in a buffer that the device copies from: its own, or the host's if it has no room."""
        if self._staged is None:
            try:
                self._staged = device.allocator.allocate_buffer_copy(
                    memory_type=rt.MemoryType.DEVICE_LOCAL,
                    allowed_usage=rt.BufferUsage.DEFAULT,
                    device=device,
                    buffer=self.host,
                )
            except RuntimeError:
                self._staged = device.allocator.allocate_host_staging_buffer_copy(device, self.host)
        return self._staged


def end_of(view: BufferView) -> int:
    """The offset of the first byte behind a view."""
    return view.offset_bytes + byte_size(view.element, view.shape)


def count_unwritten(output: Output, reference: Output) -> int:
    """Count the elements that the reference changed and this run did not."""
    ours, theirs, before = (bit_patterns(raw, output.element) for raw in (output.raw, reference.raw, output.before))
    return int(np.count_nonzero((ours == before) & (theirs != before)))


def hides_poison(output: Output, values: NDArray[Any]) -> bool:
    """Whether an element of a reference looks like poison, so that a candidate that does not write it looks right."""
    if not output.poisoned:
        return False
    if values.dtype.kind == "f" and np.isnan(values).any():
        return True
    return bool((bit_patterns(output.raw, output.element) == bit_patterns(output.before, output.element)).any())
