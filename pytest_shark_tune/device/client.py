"""The only module that calls IREE's runtime: a child process per device, and its requests.

No object of the runtime lives in this process, so crashes, hung kernels and a driver's threads do not reach pytest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from pytest_shark_tune.device import protocol
from pytest_shark_tune.device.parameters import load_seconds
from pytest_shark_tune.dispatch.types import Argument, BenchmarkModule, Tensor
from pytest_shark_tune.measurement.acceptance import Acceptance
from pytest_shark_tune.measurement.correctness import Check, Tolerance
from pytest_shark_tune.system.child import Child

__all__ = ["DeviceChild", "Timeouts"]


_generations = count(1)
_T = TypeVar("_T")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The number of seconds that requests may take before the child is killed."""

    open_s: float = 60.0
    load_s: float = 60.0
    fill_s: float = 60.0
    run_s: float = 30.0
    check_s: float = 90.0
    other_s: float = 10.0


class DeviceChild(AbstractContextManager["DeviceChild"]):
    """A child process that holds the device at ``uri``, loads artifacts, fills, runs and checks them.

    The caller names artifacts and references by keys. They live in the child: after `DeviceChildDied`, call `restart`
    and load again. The child starts in the constructor.

    Args:
        uri: The device's URI.
        timeouts: The limits of the requests.
        command: The command that starts the child.
        env: The child's environment, if it is not this process's.
        process: A process of that command and environment that was started before and has opened no device.

    Raises:
        DeviceChildDied: the child crashed, hung or lost its device. Every method raises it.
        DeviceRequestFailed: the child answered with an error and lives on. Every method raises it.
    """

    def __init__(
        self,
        uri: str,
        *,
        timeouts: Timeouts | None = None,
        command: Sequence[str] = protocol.CHILD_COMMAND,
        env: Mapping[str, str] | None = None,
        process: Child | None = None,
    ) -> None:
        self.uri = uri
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._command = tuple(command)
        self._env = env
        self._child = self._start(process)

    @property
    def alive(self) -> bool:
        """Whether the child answers requests. After a `DeviceChildDied` it does not until `restart`."""
        return self._child.alive

    @property
    def generation(self) -> int:
        """A number that changes with the child's process. Loaded artifacts and references end with that process."""
        return self._generation

    @property
    def pid(self) -> int:
        """The id of the child's process and of its process group."""
        return self._child.pid

    @property
    def stderr(self) -> str:
        """The end of the child's stderr."""
        return self._child.stderr

    def restart(self) -> None:
        """End the child if it lives and start a new one, without any loaded modules or references."""
        self._child.close()
        self._child = self._start()

    def close(self) -> None:
        """End the child and free its device."""
        self._child.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def info(self) -> protocol.DeviceInfo:
        """Describe the child's device."""
        return self._ask(protocol.Describe(), protocol.DeviceInfo, self._timeouts.other_s)

    def load_benchmark(
        self,
        key: str,
        path: Path,
        module: BenchmarkModule,
        *,
        comparer: Path | None = None,
        mark: Path | None = None,
    ) -> None:
        """Load a compiled benchmark module, without filling its buffer. It replaces the module of the same key.

        Args:
            key: The key of the loaded module.
            path: The compiled module.
            module: The benchmark module.
            comparer: The compiled module that compares its results on the device; without it the host does.
            mark: The file that says, between processes of a run, that ``comparer`` works on such a device.
        """
        text_free = msgspec.structs.replace(module, text="")
        compared = ("" if path is None else str(path) for path in (comparer, mark))
        request = protocol.LoadBenchmark(key, str(path), text_free, *compared)
        self._ask(request, None, self._timeouts.load_s)

    def load_function(
        self,
        key: str,
        path: Path,
        function: str,
        inputs: Sequence[Tensor],
        files: Mapping[int, str] = MappingProxyType({}),
        parameters: Sequence[str] = (),
    ) -> None:
        """Load a compiled module, to call one of its functions. It replaces the module of the same key.

        Args:
            key: The key of the loaded module.
            path: The compiled module.
            function: The name of the function.
            inputs: The types of the arguments.
            files: The ``.npy`` files that hold arguments, by position. The other arguments are random.
            parameters: The files that hold the module's parameters, as ``SCOPE=FILE``.
        """
        arguments = tuple(each if isinstance(each, Argument) else Argument(each.shape, each.element) for each in inputs)
        request = protocol.LoadFunction(key, str(path), function, arguments, dict(files), tuple(parameters))
        self._ask(request, None, self._timeouts.load_s + load_seconds(parameters))

    def fill(self, key: str, seed: int) -> None:
        """Fill the inputs of ``key`` with the random data of ``seed``, and poison its outputs.

        Keys with equal views get equal data.
        """
        self._ask(protocol.Fill(key, seed), None, self._timeouts.fill_s)

    def run(self, key: str, batch: int, *, timeout_s: float | None = None) -> float:
        """Run a batch of dispatches or function calls. A key without data is first filled from seed 0.

        Returns:
            The seconds that the batch took, without the filling.
        """
        return self._ask(protocol.RunBatch(key, batch), float, self._timeouts.run_s, timeout_s)

    def store_reference(
        self,
        key: str,
        name: str,
        seed: int,
        *,
        outputs: Sequence[protocol.TensorData] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Fill ``key`` from ``seed``, run it once and keep its outputs as the reference ``name``.

        Args:
            key: The key of the loaded module.
            name: The name of the reference.
            seed: The seed of the inputs.
            outputs: What the outputs should be, as computed elsewhere, with the types and shapes of its own.
            timeout_s: The number of seconds that it may take.
        """
        self._ask(protocol.StoreReference(key, name, seed, tuple(outputs)), None, self._timeouts.check_s, timeout_s)

    def check(
        self,
        key: str,
        name: str,
        acceptance: Acceptance | Tolerance,
        *,
        edges: bool = False,
        timeout_s: float | None = None,
    ) -> Check:
        """Run ``key`` on the data of a reference, and compare the outputs.

        It runs on every copy of the data. If the reference holds values that look like poison, it runs once more with
        another poison. Afterwards ``key`` is filled and warmed up.

        Args:
            key: The key of the module to check.
            name: The name of the reference.
            acceptance: The tolerances. Exact data runs the reference's module as well, which has to be loaded.
            edges: Compare on special values instead: NaN, infinities, large numbers, denormals and negative zeros
                among the inputs. The reference's module has to be loaded.
            timeout_s: The number of seconds that it may take.

        Raises:
            DeviceRequestFailed: among other reasons, the reference has other shapes.
        """
        asked = Acceptance(acceptance) if isinstance(acceptance, Tolerance) else acceptance
        return self._ask(protocol.CheckOutputs(key, name, asked, edges), Check, self._timeouts.check_s, timeout_s)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Learn from a disturbed module how a reference's outputs respond to errors of sums.

        Later checks allow errors of sums to be amplified as much.

        Args:
            key: The key of a module that computes the same with disturbed sums.
            name: The name of the reference.
            relative: By how much the sums are off in all, as a part of their magnitude.
        """
        self._ask(protocol.LearnResponse(key, name, relative), None, self._timeouts.check_s)

    def read(self, key: str) -> tuple[protocol.TensorData, ...]:
        """Read the tensors of ``key`` as the last fill or run left them.

        Returns:
            For a benchmark module the tensors of its views, copy after copy; for a function its inputs, then its
            results.
        """
        return self._ask(protocol.Read(key), tuple[protocol.TensorData, ...], self._timeouts.check_s)

    def unload(self, key: str) -> None:
        """Unload the module of ``key``. An unknown key is no error."""
        self._ask(protocol.Unload(key), None, self._timeouts.other_s)

    def _ask(
        self, request: protocol.Request, kind: type[_T] | None, limit_s: float, timeout_s: float | None = None
    ) -> _T:
        return protocol.ask(self._child, request, kind, limit_s if timeout_s is None else timeout_s)

    def _start(self, process: Child | None = None) -> Child:
        self._generation = next(_generations)
        child = process or Child(self._command, env=self._env)
        try:
            protocol.ask(child, protocol.Open(self.uri), None, self._timeouts.open_s)
        except BaseException:
            child.close()
            raise
        return child
