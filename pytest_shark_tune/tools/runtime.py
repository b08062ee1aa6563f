"""The door to IREE's runtime: a child process per device, with the requests it answers.

No IREE runtime object lives in this process, so neither a crash nor a hung kernel, nor a driver's own
threads, reach pytest.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Generic, TypeVar

import msgspec

from pytest_shark_tune.dispatch.types import BenchmarkModule, Product, Tensor
from pytest_shark_tune.errors import DeviceChildDied, SharkTuneError
from pytest_shark_tune.measurement.correctness import Acceptance, Check, Tolerance
from pytest_shark_tune.system.child import Child
from pytest_shark_tune.system.cpu import cpu_identity

__all__ = [
    "CHILD_COMMAND",
    "CheckOutputs",
    "Describe",
    "DeviceChild",
    "DeviceEntry",
    "DeviceInfo",
    "DeviceRequestFailed",
    "Fill",
    "KeepReference",
    "LearnResponse",
    "ListDevices",
    "LoadBenchmark",
    "LoadFunction",
    "Open",
    "Read",
    "Reply",
    "Request",
    "RunBatch",
    "Shape",
    "TensorData",
    "Timeouts",
    "Unload",
    "View",
    "available_drivers",
    "cpu_name",
    "device_slug",
    "find_device",
    "list_devices",
    "runtime_version",
    "slug",
    "ways_of_driving",
]

CHILD_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "pytest_shark_tune.tools.device_child")
"""What a device child runs: ``-P``, so that no file of the working directory is imported."""

_T = TypeVar("_T")
_generations = count(1)


class DeviceRequestFailed(SharkTuneError):
    """The device child answered with an error and goes on: a bad artifact, a missing function, a failed run."""


class Open(msgspec.Struct, frozen=True, tag=True):
    """Hold the device at ``uri``. Comes before every request but `ListDevices`."""

    uri: str


class ListDevices(msgspec.Struct, frozen=True, tag=True):
    """Name the devices of ``driver``."""

    driver: str


class Shape(msgspec.Struct, frozen=True):
    """A tensor on its way to the child: `Tensor`'s fields, and the ``.npy`` file that holds it; random without one."""

    shape: tuple[int, ...]
    element: str
    file: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in a benchmark's buffer on its way to the child: `BufferView`'s fields."""

    offset_bytes: int
    shape: tuple[int, ...]
    element: str
    reads: bool
    writes: bool
    scale: float = 1.0
    wide: bool = False


class LoadBenchmark(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load the compiled benchmark module at ``path`` under ``key``; the fields are `BenchmarkModule`'s."""

    key: str
    path: str
    run_function: str
    buffer_function: str
    buffer_bytes: int
    views: tuple[View, ...]
    copies: int
    product: Product | None = None


class LoadFunction(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load the compiled module at ``path`` under ``key``, to call ``function`` with ``inputs``."""

    key: str
    path: str
    function: str
    inputs: tuple[Shape, ...]


class Fill(msgspec.Struct, frozen=True, tag=True):
    """Write the inputs made from ``seed``, or from their files, and poison what is only written."""

    key: str
    seed: int


class RunBatch(msgspec.Struct, frozen=True, tag=True):
    """Run ``batch`` dispatches and answer with the seconds."""

    key: str
    batch: int


class KeepReference(msgspec.Struct, frozen=True, tag=True):
    """Fill, run once on each copy of the data and keep the outputs under ``name``."""

    key: str
    name: str
    seed: int


class CheckOutputs(msgspec.Struct, frozen=True, tag=True):
    """Fill as for reference ``name``, run once and compare the outputs with it; with ``edges`` on special values."""

    key: str
    name: str
    acceptance: Acceptance
    edges: bool = False


class LearnResponse(msgspec.Struct, frozen=True, tag=True):
    """Take the results of ``key`` for those of reference ``name`` with each sum off by ``relative``."""

    key: str
    name: str
    relative: float


class Read(msgspec.Struct, frozen=True, tag=True):
    """Answer with the tensors of ``key`` as they are now."""

    key: str


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Forget what ``key`` holds; an unknown key is no error."""

    key: str


class Describe(msgspec.Struct, frozen=True, tag=True):
    """Answer with a `DeviceInfo`."""


Request = (
    Open
    | ListDevices
    | LoadBenchmark
    | LoadFunction
    | Fill
    | RunBatch
    | KeepReference
    | CheckOutputs
    | LearnResponse
    | Read
    | Unload
    | Describe
)


class Reply(msgspec.Struct, Generic[_T], frozen=True):
    """The answer to a request: its ``value``, or the text of an ``error``.

    ``lost`` says that the device does not work any more in this process, as after an illegal access on a GPU.
    """

    value: _T | None = None
    error: str | None = None
    lost: bool = False


class TensorData(msgspec.Struct, frozen=True):
    """A tensor with its contents: ``data`` is row-major, elements as IREE stores them (i4 in half a byte)."""

    shape: tuple[int, ...]
    element: str
    data: bytes


class DeviceEntry(msgspec.Struct, frozen=True):
    """A device as its driver lists it. ``uri`` opens it, ``path`` is what it calls itself (a GPU's UUID)."""

    uri: str
    name: str
    path: str
    index: int


class DeviceInfo(msgspec.Struct, frozen=True):
    """The device a child holds: ``name`` is the model's, ``slug`` the same for file names."""

    uri: str
    driver: str
    name: str
    slug: str
    runtime_version: str


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How many seconds each request may take before the child is killed."""

    open_s: float = 60.0
    load_s: float = 60.0
    fill_s: float = 60.0
    run_s: float = 30.0
    check_s: float = 90.0
    other_s: float = 10.0


class DeviceChild:
    """A child process that holds the device at ``uri``, loads artifacts, fills, runs and checks them.

    Artifacts and references are named by the caller's keys and live in the child: after `DeviceChildDied`
    call `restart` and load again. Every method raises `DeviceChildDied` where the child crashed, hung or
    lost its device, and `DeviceRequestFailed` where it answered with an error and lives on.
    """

    def __init__(
        self,
        uri: str,
        *,
        timeouts: Timeouts | None = None,
        command: Sequence[str] = CHILD_COMMAND,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._command = tuple(command)
        self._env = env
        self._child = self._start()

    @property
    def alive(self) -> bool:
        """Whether the child can be asked; false after a `DeviceChildDied` until `restart`."""
        return self._child.alive

    @property
    def generation(self) -> int:
        """A number that changes with the child's process: loaded artifacts and references end with that process."""
        return self._generation

    @property
    def pid(self) -> int:
        """The child's process id, which is also its process group's."""
        return self._child.pid

    @property
    def stderr(self) -> str:
        """The end of what the child wrote to its stderr."""
        return self._child.stderr

    def restart(self) -> None:
        """End the child if it lives and start a new one, which has nothing loaded and no references."""
        self._child.close()
        self._child = self._start()

    def close(self) -> None:
        """End the child and free its device."""
        self._child.close()

    def __enter__(self) -> DeviceChild:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def info(self) -> DeviceInfo:
        """What the child's device is."""
        return _ask(self._child, Describe(), DeviceInfo, self._timeouts.other_s)

    def load_benchmark(self, key: str, path: Path, module: BenchmarkModule) -> None:
        """Load a compiled benchmark module under ``key``, replacing what was there. Its buffer is not filled."""
        request = LoadBenchmark(
            key=key,
            path=str(path),
            run_function=module.run_function,
            buffer_function=module.buffer_function,
            buffer_bytes=module.buffer_bytes,
            views=tuple(View(**msgspec.structs.asdict(view)) for view in module.views),
            copies=module.copies,
            product=module.product,
        )
        _ask(self._child, request, None, self._timeouts.load_s)

    def load_function(
        self,
        key: str,
        path: Path,
        function: str,
        inputs: Sequence[Tensor],
        files: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Load a compiled module under ``key``, to call ``function`` on tensors like ``inputs``.

        ``files`` are the paths of the ``.npy`` files that hold some of them, by position; the others are random.
        """
        shapes = (Shape(each.shape, each.element, files.get(number, "")) for number, each in enumerate(inputs))
        request = LoadFunction(key=key, path=str(path), function=function, inputs=tuple(shapes))
        _ask(self._child, request, None, self._timeouts.load_s)

    def fill(self, key: str, seed: int) -> None:
        """Give ``key`` the random inputs of ``seed``, the same for every key of equal views, and poison its outputs."""
        _ask(self._child, Fill(key, seed), None, self._timeouts.fill_s)

    def run(self, key: str, batch: int, *, timeout_s: float | None = None) -> float:
        """Run ``batch`` dispatches (or function calls) and return the seconds they took together.

        What nobody has filled is first filled with seed 0, outside the time.
        """
        return _ask(self._child, RunBatch(key, batch), float, self._timeouts.run_s if timeout_s is None else timeout_s)

    def keep_reference(self, key: str, name: str, seed: int, *, timeout_s: float | None = None) -> None:
        """Fill ``key`` from ``seed``, run it once and keep its outputs as the reference ``name``."""
        limit = self._timeouts.check_s if timeout_s is None else timeout_s
        _ask(self._child, KeepReference(key, name, seed), None, limit)

    def check(
        self,
        key: str,
        name: str,
        acceptance: Acceptance | Tolerance,
        *,
        edges: bool = False,
        timeout_s: float | None = None,
    ) -> Check:
        """Fill ``key`` with the seed of reference ``name``, run it once and compare its outputs with it.

        Where there are several copies of the data it runs on each of them, and where the reference holds what looks
        like poison, once more with another poison. Leaves ``key`` filled and warmed up. A reference of other shapes is
        a `DeviceRequestFailed`.

        Args:
            key: What is checked.
            name: The reference.
            acceptance: What a right result is. Exact data asks the reference's key as well, which has to be loaded.
            edges: Compare on special values instead: NaN, infinities, large numbers, denormals and negative zeros
                among the inputs. The reference's key has to be loaded.
            timeout_s: The most seconds that it may take.
        """
        limit = self._timeouts.check_s if timeout_s is None else timeout_s
        asked = Acceptance(acceptance) if isinstance(acceptance, Tolerance) else acceptance
        return _ask(self._child, CheckOutputs(key, name, asked, edges), Check, limit)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Run ``key`` on the inputs of reference ``name``, and take the difference for an answer to disturbed sums.

        ``key`` computes the same with its sums off, by ``relative`` of their magnitude in all. Later checks allow the
        errors of sums such an amplification.
        """
        _ask(self._child, LearnResponse(key, name, relative), None, self._timeouts.check_s)

    def read(self, key: str) -> tuple[TensorData, ...]:
        """The tensors of ``key`` as the last fill or run left them.

        Those of a benchmark module come in the order of its views, copy after copy; those of a function are its
        inputs, then its results.
        """
        return _ask(self._child, Read(key), tuple[TensorData, ...], self._timeouts.check_s)

    def unload(self, key: str) -> None:
        """Free what ``key`` holds; an unknown key is no error."""
        _ask(self._child, Unload(key), None, self._timeouts.other_s)

    def _start(self) -> Child:
        self._generation = next(_generations)
        child = Child(self._command, env=self._env)
        try:
            _ask(child, Open(self.uri), None, self._timeouts.open_s)
        except BaseException:
            child.close()
            raise
        return child


def available_drivers() -> tuple[str, ...]:
    """The names of the HAL drivers built into the runtime, sorted, whether or not they find a device here."""
    import iree.runtime as rt

    return tuple(sorted(rt.query_available_drivers()))


def list_devices(driver: str, *, timeout_s: float = 60.0) -> list[DeviceEntry]:
    """The devices of ``driver``, asked in a child of its own, so that no driver is loaded here.

    Raises:
        DeviceRequestFailed: the driver is unknown or cannot be loaded; the message is the runtime's.
        DeviceChildDied: the driver crashed or hung.
    """
    with Child(CHILD_COMMAND) as child:
        return _ask(child, ListDevices(driver), list[DeviceEntry], timeout_s)


@lru_cache(maxsize=64)
def device_slug(uri: str) -> str:
    """The model name of the CPU or GPU at ``uri`` as part of a file name: ``amd-epyc``, ``nvidia-h100-80gb-hbm3``.

    Raises:
        DeviceRequestFailed: the driver cannot be loaded or has no such device.
    """
    driver = uri.partition("://")[0]
    if driver.startswith("local"):
        return slug(cpu_name())
    entry = find_device(uri, list_devices(driver))
    if entry is None:
        raise DeviceRequestFailed(f"driver {driver!r} has no device {uri!r}")
    return slug(entry.name)


def find_device(uri: str, entries: Sequence[DeviceEntry]) -> DeviceEntry | None:
    """The entry of its driver's list that ``uri`` opens: by path or index, the first where it names none."""
    path = uri.partition("://")[2].partition("?")[0]
    if not path:
        return entries[0] if entries else None
    for entry in entries:
        if path in (entry.path, str(entry.index)):
            return entry
    return None


def ways_of_driving(uris: Iterable[str], driver: str) -> list[str]:
    """How devices are driven, whichever they are: schemes and options of their URIs; nothing for ``driver`` alone."""
    parts = (uri.partition("?") for uri in uris)
    ways = {f"{address.partition('://')[0]}{mark}{options}" for address, mark, options in parts}
    return sorted(ways) if ways != {driver} else []


def cpu_name() -> str:
    """What tells this CPU's model from others, or the machine's architecture where the system tells no model."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return cpu_identity(text, platform.processor() or platform.machine() or "cpu")


def slug(name: str) -> str:
    """``name`` in lower-case letters, digits and hyphens, without marks such as (R), clock rates and core counts."""
    plain = re.sub(r"\([^)]*\)", " ", name.partition("@")[0])
    plain = re.sub(r"\b(\d+-core\b.*|cpu\b|processor\b)", " ", plain, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unknown"


def runtime_version() -> str:
    """The version of the installed IREE runtime.

    Raises:
        SharkTuneError: it is not installed.
    """
    # Late, because the child, which imports this module, starts a fifth faster without.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("iree-base-runtime")
    except PackageNotFoundError:
        raise SharkTuneError("the package iree-base-runtime is not installed") from None


def _ask(child: Child, request: Request, kind: type[_T] | None, timeout_s: float) -> _T:
    """Send ``request``; the value of its reply, which is of type ``kind``."""
    payload = child.request(msgspec.msgpack.encode(request), timeout_s=timeout_s)
    reply: Reply[_T] = msgspec.msgpack.decode(payload, type=Reply[kind])  # type: ignore[valid-type]
    if reply.lost:
        child.close()
        raise DeviceChildDied(f"the device is lost: {reply.error}")
    if reply.error is not None:
        raise DeviceRequestFailed(reply.error)
    return reply.value  # type: ignore[return-value]
