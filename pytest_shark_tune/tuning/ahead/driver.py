"""The driver's share of compiling: PTX becomes code in processes beside the compile pool, not while a device is held.

Without this the driver compiles as the process that measures loads a module: 0.05 to 1 s for a candidate on an H200.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from pytest_shark_tune.device.driver.cache import cache_environment
from pytest_shark_tune.errors import DeviceChildDied
from pytest_shark_tune.system.child import Child

__all__ = ["DriverCompiler"]

_COMMAND = (sys.executable, "-P", "-m", "pytest_shark_tune.device.driver.helper")
_TIMEOUT_S = 60.0
_FAREWELL_S = 5.0
_MOST = 8
_JOBS_FOR_ONE = 2
"""The compiler needs about twice as long as the driver, so that one helper serves as many jobs."""

_logger = logging.getLogger(__name__)


class DriverCompiler:
    """Compiles what a driver would compile while it loads a module. Several threads may use it.

    The first failure ends it, and the driver compiles as it loads.

    Args:
        driver: the runtime's driver. Only CUDA's compiles as it loads and keeps the code.
        uris: the devices, of which the first one is opened.
        jobs: how many candidates are compiled at a time.
        directory: where the driver keeps code for this run, if its usual cache does not serve.
    """

    def __init__(self, driver: str, uris: Sequence[str], *, jobs: int, directory: Path) -> None:
        self._uri = uris[0] if driver == "cuda" and uris else ""
        own = cache_environment(driver, directory) if self._uri else {}
        self.environment = {**os.environ, **own} if own else None
        """The variables for processes that load modules; ``None`` where this process's own will do."""
        self._idle: SimpleQueue[Child | None] = SimpleQueue()
        self._helpers = max(1, min(_MOST, jobs // _JOBS_FOR_ONE)) if self._uri else 0
        for _ in range(self._helpers):
            self._idle.put(None)

    def compile(self, path: Path) -> None:
        """Compile a module, unless that is the work of nobody here, or has failed before."""
        if not self._uri:
            return
        try:
            child = self._idle.get(timeout=_TIMEOUT_S)
        except Empty:
            return
        try:
            child = child or Child([*_COMMAND, self._uri], env=self.environment)
            if problem := child.request(os.fsencode(path), timeout_s=_TIMEOUT_S).decode():
                self._give_up(problem)
        except DeviceChildDied as error:
            self._give_up(str(error))
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End the processes, once they have compiled the modules in hand."""
        self._uri = ""
        for _ in range(self._helpers):
            with suppress(Empty):
                if child := self._idle.get(timeout=_FAREWELL_S):
                    child.close()
        self._helpers = 0

    def _give_up(self, problem: str) -> None:
        if self._uri:
            _logger.info("the driver compiles while it loads: %s", problem)
        self._uri = ""
