"""The requests that a device child answers, and the replies."""

from __future__ import annotations

import sys
from typing import Generic, TypeVar

import msgspec

from pytest_shark_tune.dispatch.types import Argument, BenchmarkModule
from pytest_shark_tune.errors import DeviceChildDied, DeviceRequestFailed
from pytest_shark_tune.measurement.acceptance import Acceptance
from pytest_shark_tune.system.child import Child

__all__ = [
    "CHILD_COMMAND",
    "CheckOutputs",
    "Describe",
    "DeviceEntry",
    "DeviceInfo",
    "Fill",
    "LearnResponse",
    "ListDevices",
    "ListParameters",
    "LoadBenchmark",
    "LoadFunction",
    "Open",
    "Read",
    "Reply",
    "Request",
    "RunBatch",
    "StoreReference",
    "TensorData",
    "Unload",
    "ask",
]


CHILD_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "pytest_shark_tune.device.server")
"""The command of a device child. With ``-P`` it imports no file of the working directory."""


_T = TypeVar("_T")


class Open(msgspec.Struct, frozen=True, tag=True):
    """Open the device at ``uri``. It precedes every request but `ListDevices` and `ListParameters`."""

    uri: str


class ListDevices(msgspec.Struct, frozen=True, tag=True):
    """List the devices of ``driver``."""

    driver: str


class ListParameters(msgspec.Struct, frozen=True, tag=True):
    """List the parameters in the file at ``path`` with their numbers of bytes."""

    path: str


class LoadBenchmark(msgspec.Struct, frozen=True, tag=True):
    """Load the compiled benchmark module at ``path`` under ``key``."""

    key: str
    path: str
    module: BenchmarkModule
    """The module without its text."""
    comparer: str = ""
    """The compiled module of `dispatch.comparison` that compares its results; empty to compare them on the host."""
    mark: str = ""
    """The file of the run that says that ``comparer`` found planted errors; empty to plant them in each process."""


class LoadFunction(msgspec.Struct, frozen=True, tag=True):
    """Load the compiled module at ``path`` under ``key``, to call ``function`` with ``inputs``."""

    key: str
    path: str
    function: str
    inputs: tuple[Argument, ...]
    files: dict[int, str]
    """The ``.npy`` files that hold inputs, by position. The other inputs are random."""
    parameters: tuple[str, ...] = ()
    """The files that hold its parameters, as ``SCOPE=FILE``."""


class Fill(msgspec.Struct, frozen=True, tag=True):
    """Write the inputs, from ``seed`` or from their files, and poison the outputs."""

    key: str
    seed: int


class RunBatch(msgspec.Struct, frozen=True, tag=True):
    """Run ``batch`` dispatches and answer with the seconds that they took."""

    key: str
    batch: int


class TensorData(msgspec.Struct, frozen=True):
    """A tensor with its contents."""

    shape: tuple[int, ...]
    element: str
    data: bytes
    """The elements, row-major, as IREE stores them (i4 in half a byte)."""


class StoreReference(msgspec.Struct, frozen=True, tag=True):
    """Fill, run once on each copy of the data and keep the outputs under ``name``, or the given ones in their place."""

    key: str
    name: str
    seed: int
    outputs: tuple[TensorData, ...] = ()


class CheckOutputs(msgspec.Struct, frozen=True, tag=True):
    """Fill as for reference ``name``, run once and compare the outputs; with ``edges`` on special values."""

    key: str
    name: str
    acceptance: Acceptance
    edges: bool = False


class LearnResponse(msgspec.Struct, frozen=True, tag=True):
    """Take the results of ``key`` for those of reference ``name`` with all sums off by ``relative``."""

    key: str
    name: str
    relative: float


class Read(msgspec.Struct, frozen=True, tag=True):
    """Answer with the tensors of ``key`` as they are now."""

    key: str


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Unload the module of ``key``. An unknown key is no error."""

    key: str


class Describe(msgspec.Struct, frozen=True, tag=True):
    """Answer with a `DeviceInfo`."""


Request = (
    Open
    | ListDevices
    | ListParameters
    | LoadBenchmark
    | LoadFunction
    | Fill
    | RunBatch
    | StoreReference
    | CheckOutputs
    | LearnResponse
    | Read
    | Unload
    | Describe
)


class Reply(msgspec.Struct, Generic[_T], frozen=True):
    """The answer to a request."""

    value: _T | None = None
    error: str | None = None
    """The message, if the request failed."""
    lost: bool = False
    """Whether the device has stopped working in this process, as a GPU does after an illegal access."""


class DeviceEntry(msgspec.Struct, frozen=True):
    """A device as its driver lists it."""

    uri: str
    """The URI that opens it."""
    name: str
    """The name of its model."""
    path: str
    """Its own name within the driver (a GPU's UUID); empty for a driver that gives none."""
    index: int


class DeviceInfo(msgspec.Struct, frozen=True):
    """The device that a child holds."""

    uri: str
    driver: str
    name: str
    """The name of its model."""
    slug: str
    """The same for file names."""
    runtime_version: str


def ask(child: Child, request: Request, kind: type[_T] | None, timeout_s: float) -> _T:
    """Send a request to a device child, and wait for the reply.

    Args:
        child: The child.
        request: The request.
        kind: The type of the reply's value.
        timeout_s: The number of seconds that it may take.

    Returns:
        The reply's value.

    Raises:
        DeviceChildDied: the child crashed, hung or lost its device.
        DeviceRequestFailed: the child answered with an error.
    """
    payload = child.request(msgspec.msgpack.encode(request), timeout_s=timeout_s)
    reply: Reply[_T] = msgspec.msgpack.decode(payload, type=Reply[kind])  # type: ignore[valid-type]
    if reply.lost:
        child.close()
        raise DeviceChildDied(f"the device is lost: {reply.error}")
    if reply.error is not None:
        raise DeviceRequestFailed(reply.error)
    return reply.value  # type: ignore[return-value]
