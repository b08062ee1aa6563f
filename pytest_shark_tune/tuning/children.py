"""Device children: one process per leased device, kept from candidate to candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.device.protocol import CHILD_COMMAND
from pytest_shark_tune.errors import CandidateFailed, DeviceChildDied, DeviceRequestFailed
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.child import Child
from pytest_shark_tune.tuning.ahead.driver import DriverCompiler
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["DeviceChildren", "driver_compiler"]

_PROBE = "probe"


def driver_compiler(driver: str, settings: RunSettings) -> DriverCompiler:
    """The compiler for the driver of a run's devices."""
    directory = settings.run_directory / "driver-cache"
    return DriverCompiler(driver, settings.devices, jobs=settings.jobs, directory=directory)


class DeviceChildren:
    """The device children of one process of a run, by URI.

    Args:
        leases: the devices that processes share.
        report: gets a message about a long wait for a device.
        driver: compiles for the drivers of the devices before modules are loaded.
        starts_ahead: whether the next process is started while one measures. It opens a device when it gets one.
    """

    def __init__(
        self,
        leases: DeviceLeases,
        report: Callable[[str], None],
        driver: DriverCompiler | None = None,
        *,
        starts_ahead: bool = False,
    ) -> None:
        self.driver = driver
        """Compiles for the drivers of the devices before modules are loaded; ``None`` if nothing does."""
        self._starts_ahead = starts_ahead
        self._spare: Child | None = None
        self._leases = leases
        self._report = report
        self._children: dict[str, DeviceChild] = {}

    def close(self) -> None:
        """End all children."""
        for uri in list(self._children):
            self.end(uri)
        if self._spare is not None:
            self._spare.close()
        if self.driver is not None:
            self.driver.close()

    def lease(self) -> AbstractContextManager[str]:
        """Hold a device until the context ends; the context gives its URI."""
        return self._leases.acquire(self._report)

    @contextmanager
    def leased(self) -> Iterator[DeviceChild]:
        """Hold a device and its child, which may have programs of earlier contexts loaded.

        Raises:
            CandidateFailed: the child died or refused a request.
        """
        with self.lease() as uri, self._failures(uri):
            yield self._child(uri)

    @contextmanager
    def fresh(self) -> Iterator[DeviceChild]:
        """Hold a device and a new child, which ends with the context.

        Raises:
            CandidateFailed: the child died or refused a request.
        """
        with self.lease() as uri:
            self.end(uri)
            try:
                with self._failures(uri):
                    yield self._child(uri)
            finally:
                self.end(uri)

    @contextmanager
    def side_by_side(self, environments: Iterable[Mapping[str, str] | None]) -> Iterator[list[DeviceChild]]:
        """Hold a device and a new child for each of some environments, all of which end with the context.

        Raises:
            CandidateFailed: a child died or refused a request.
        """
        with self.lease() as uri, self._failures(uri), ExitStack() as stack:
            self.end(uri)
            yield [stack.enter_context(DeviceChild(uri, env=env)) for env in environments]

    def end(self, uri: str) -> None:
        """End the child of a device, if there is one."""
        child = self._children.pop(uri, None)
        if child is not None:
            child.close()

    def _child(self, uri: str) -> DeviceChild:
        child = self._children.get(uri)
        if child is not None and child.alive:
            # A request that costs nothing: a child that died while it was idle is replaced, and costs no candidate.
            with suppress(DeviceChildDied):
                child.unload(_PROBE)
                return child
        self.end(uri)
        environment = self.driver.environment if self.driver else None
        spare, self._spare = self._spare, None
        if spare is not None and not spare.alive:
            spare.close()
            spare = None
        child = self._children[uri] = DeviceChild(uri, env=environment, process=spare)
        if self._starts_ahead:
            self._spare = Child(CHILD_COMMAND, env=environment)
        return child

    @contextmanager
    def _failures(self, uri: str) -> Iterator[None]:
        """Turn an error of a device's child into the candidate's state."""
        try:
            yield
        except DeviceChildDied as error:
            self.end(uri)
            raise CandidateFailed(State.RUN_TIMEOUT if error.timed_out else State.RUN_FAILED, str(error)) from error
        except DeviceRequestFailed as error:
            raise CandidateFailed(State.RUN_FAILED, str(error)) from error
