"""An opened device: loads modules and copies buffers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import iree.runtime as rt
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device import identity, protocol
from pytest_shark_tune.device.buffers import BufferImage, BufferLayout
from pytest_shark_tune.device.comparison import ResultComparer
from pytest_shark_tune.device.elements import Bytes, as_bytes
from pytest_shark_tune.device.inputs import InputData
from pytest_shark_tune.device.parameters import ParameterProviders

__all__ = ["HalDevice", "driver_entries"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "out of memory")
_MOST_IMAGES = 32
_MOST_IMAGE_BYTES, _MOST_IMAGE_BYTES_APART = 1 << 30, 8 << 30
"""The size of the images that are kept, of devices that share the host's memory and of others.

The host has no memory for the zeros between views, which are most of the buffer of a model's dispatch.
"""
_READ_THROUGH_STAGING = ("vulkan",)
"""Drivers that need page-aligned host memory, which IREE's copy to the host does not give them."""


class HalDevice:
    """The device at ``uri``, open as long as this object lives."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.driver = uri.partition("://")[0]
        self.device: Any = rt.get_device(uri)
        self._instance = rt.VmInstance()
        self._hal_module = rt.create_hal_module(self._instance, self.device)
        self._parameters = ParameterProviders(self._instance)
        self._comparers: dict[tuple[str, BufferLayout], ResultComparer | None] = {}
        is_host = self.driver.startswith("local")
        self._most_image_bytes = _MOST_IMAGE_BYTES if is_host else _MOST_IMAGE_BYTES_APART
        self._repeated: dict[tuple[float, int], Any] = {}
        self.frees: list[Callable[[], None]] = []
        """Free memory of the device that can be filled again, before a module is refused for lack of memory."""
        self._images: dict[tuple[BufferLayout, InputData], BufferImage] = {}

    def describe(self) -> protocol.DeviceInfo:
        """The device's model and the runtime's version."""
        if self.driver.startswith("local"):
            name = identity.cpu_name()
        else:
            entry = identity.find_device(self.uri, driver_entries(self.driver))
            name = self.driver if entry is None else entry.name
        return protocol.DeviceInfo(self.uri, self.driver, name, identity.slug(name), identity.runtime_version())

    def works(self) -> bool:
        """Whether the device still copies data. After an illegal access it does not."""
        try:
            probe = np.arange(64, dtype=np.uint8)
            return bool(np.array_equal(self.read(self.allocate(probe)), probe))
        except Exception:
            return False

    def load(self, path: str, parameters: Sequence[str] = ()) -> tuple[Any, Any]:
        """Load a compiled module. ``parameters`` are the files of its parameters, as ``SCOPE=FILE``.

        Returns:
            A context and the module in it.
        """
        module = rt.VmModule.copy_buffer(self._instance, Path(path).read_bytes())
        given = [self._parameters.module(parameters)] if parameters else []
        modules = [self._hal_module, *given, module]
        return self._with_room(lambda: rt.VmContext(self._instance, modules=modules)), module

    def image(self, layout: BufferLayout, data: InputData) -> BufferImage:
        """The contents of such a buffer with such data. The last few are kept."""
        key = (layout, data)
        image = self._images.pop(key, None) or BufferImage(*key)
        while self._images and (
            len(self._images) >= _MOST_IMAGES
            or sum(kept.size for kept, _ in self._images) + layout.size > self._most_image_bytes
        ):
            del self._images[next(iter(self._images))]
        self._images[key] = image
        return image

    def allocate(self, contents: Bytes) -> Any:
        """A new buffer of the device with these contents."""
        return self._with_room(
            lambda: self.device.allocator.allocate_buffer_copy(
                memory_type=rt.MemoryType.DEVICE_LOCAL,
                allowed_usage=rt.BufferUsage.DEFAULT,
                device=self.device,
                buffer=contents,
            )
        )

    def _with_room(self, make: Callable[[], _T]) -> _T:
        """Make something on the device; if its memory is used up, free what can be made again and try once more."""
        try:
            return make()
        except Exception as error:
            if not any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise
        self._images.clear()
        self._repeated.clear()
        for free in self.frees:
            free()
        return make()

    def repeated(self, value: float, count: int) -> Any:
        """A buffer of the device that holds an f32 so many times, made once."""
        if (value, count) not in self._repeated:
            self._repeated[value, count] = self.allocate(as_bytes(np.full(count, value, np.float32)))
        return self._repeated[value, count]

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

    def comparer(self, path: str, layout: BufferLayout, mark: str = "") -> ResultComparer | None:
        """The module at ``path`` that compares results in buffers of that layout; ``None`` if it does not load.

        ``mark`` is the path of the file that says that it works on such a device.
        """
        key = (path, layout)
        if key not in self._comparers:
            try:
                self._comparers[key] = ResultComparer(self, path, layout, mark)
            except Exception as error:  # The host compares then.
                _logger.warning("results are compared on the host: %s", error)
                self._comparers[key] = None
        return self._comparers[key]

    def read_array(self, view: Any) -> NDArray[Any]:
        """The elements of a buffer view, copied to the host."""
        dtype = np.dtype(rt.HalElementType.map_to_dtype(view.element_type))
        stored = self.read(view.get_buffer())[: math.prod(view.shape) * dtype.itemsize]
        return np.asarray(stored.view(dtype)).reshape(view.shape)

    def read(self, buffer: Any) -> Bytes:
        """The bytes of a buffer, copied to the host."""
        size = buffer.byte_length()
        if self.driver in _READ_THROUGH_STAGING:
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


def driver_entries(driver: str) -> list[protocol.DeviceEntry]:
    """List the devices of a driver, which is loaded into this process."""
    entries = []
    for index, device in enumerate(rt.get_driver(driver).query_available_devices()):
        path = str(device.get("path") or "")
        uri = f"{driver}://{path}" if path else driver
        entries.append(protocol.DeviceEntry(uri, str(device.get("name") or driver), path, index))
    return entries
