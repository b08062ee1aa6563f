"""The door to IREE's runtime: a child process per device, with the requests it answers.

No IREE runtime object lives in this process, so neither a crash nor a hung kernel, nor a driver's own
threads, reach pytest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from pytest_shark_tune.device.protocol import (
    CHILD_COMMAND,
    CheckOutputs,
    Describe,
    DeviceInfo,
    Fill,
    KeepReference,
    LearnResponse,
    LoadBenchmark,
    LoadFunction,
    Open,
    Read,
    Request,
    RunBatch,
    TensorData,
    Unload,
    ask,
)
from pytest_shark_tune.dispatch.types import BenchmarkModule, Tensor
from pytest_shark_tune.measurement.acceptance import Acceptance
from pytest_shark_tune.measurement.correctness import Check, Tolerance
from pytest_shark_tune.system.child import Child

__all__ = ["DeviceChild", "Timeouts"]


_generations = count(1)
_T = TypeVar("_T")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How many seconds each request may take before the child is killed."""

    open_s: float = 60.0
    load_s: float = 60.0
    fill_s: float = 60.0
    run_s: float = 30.0
    check_s: float = 90.0
    other_s: float = 10.0


class DeviceChild(AbstractContextManager["DeviceChild"]):
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def info(self) -> DeviceInfo:
        """What the child's device is."""
        return self._ask(Describe(), DeviceInfo, self._timeouts.other_s)

    def load_benchmark(self, key: str, path: Path, module: BenchmarkModule) -> None:
        """Load a compiled benchmark module under ``key``, replacing what was there. Its buffer is not filled."""
        self._ask(LoadBenchmark(key, str(path), msgspec.structs.replace(module, text="")), None, self._timeouts.load_s)

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
        request = LoadFunction(key, str(path), function, tuple(inputs), dict(files))
        self._ask(request, None, self._timeouts.load_s)

    def fill(self, key: str, seed: int) -> None:
        """Give ``key`` the random inputs of ``seed``, the same for every key of equal views, and poison its outputs."""
        self._ask(Fill(key, seed), None, self._timeouts.fill_s)

    def run(self, key: str, batch: int, *, timeout_s: float | None = None) -> float:
        """Run ``batch`` dispatches (or function calls) and return the seconds they took together.

        What nobody has filled is first filled with seed 0, outside the time.
        """
        return self._ask(RunBatch(key, batch), float, self._timeouts.run_s, timeout_s)

    def keep_reference(self, key: str, name: str, seed: int, *, timeout_s: float | None = None) -> None:
        """Fill ``key`` from ``seed``, run it once and keep its outputs as the reference ``name``."""
        self._ask(KeepReference(key, name, seed), None, self._timeouts.check_s, timeout_s)

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
        asked = Acceptance(acceptance) if isinstance(acceptance, Tolerance) else acceptance
        return self._ask(CheckOutputs(key, name, asked, edges), Check, self._timeouts.check_s, timeout_s)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Run ``key`` on the inputs of reference ``name``, and take the difference for an answer to disturbed sums.

        ``key`` computes the same with its sums off, by ``relative`` of their magnitude in all. Later checks allow the
        errors of sums such an amplification.
        """
        self._ask(LearnResponse(key, name, relative), None, self._timeouts.check_s)

    def read(self, key: str) -> tuple[TensorData, ...]:
        """The tensors of ``key`` as the last fill or run left them.

        Those of a benchmark module come in the order of its views, copy after copy; those of a function are its
        inputs, then its results.
        """
        return self._ask(Read(key), tuple[TensorData, ...], self._timeouts.check_s)

    def unload(self, key: str) -> None:
        """Free what ``key`` holds; an unknown key is no error."""
        self._ask(Unload(key), None, self._timeouts.other_s)

    def _ask(self, request: Request, kind: type[_T] | None, limit_s: float, timeout_s: float | None = None) -> _T:
        return ask(self._child, request, kind, limit_s if timeout_s is None else timeout_s)

    def _start(self) -> Child:
        self._generation = next(_generations)
        child = Child(self._command, env=self._env)
        try:
            ask(child, Open(self.uri), None, self._timeouts.open_s)
        except BaseException:
            child.close()
            raise
        return child
