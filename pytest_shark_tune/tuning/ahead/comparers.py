"""The modules that compare results on a device: compiled once for each layout and target."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.dispatch.comparison import comparison_module
from pytest_shark_tune.dispatch.types import BenchmarkModule
from pytest_shark_tune.errors import CommandFailed, SharkTuneError
from pytest_shark_tune.system.cache import BINARY, Cache, content_key, file_digest

__all__ = ["COMPARER_FLAGS", "Comparers"]

COMPARER_FLAGS = ("--iree-input-demote-f64-to-f32=false", "--iree-input-demote-i64-to-i32=false")
"""Elements are compared in their own types."""

_logger = logging.getLogger(__name__)


class Comparers:
    """Compiles comparison modules for devices with memory of their own; a CPU's results are compared by numpy.

    Args:
        compiler: the compiler of the run. The user's flags do not count.
        cache: holds the modules.
        pool: compiles them.
        loaded_ahead: gets a compiled module that a device will load.
    """

    def __init__(
        self,
        compiler: Compiler,
        cache: Cache,
        pool: Executor,
        loaded_ahead: Callable[[Path], None] = lambda path: None,
    ) -> None:
        timeout_s, memory_bytes = compiler.timeout_s, compiler.memory_bytes
        self._compiler = Compiler(compiler.target, timeout_s=timeout_s, memory_bytes=memory_bytes, tool=compiler.tool)
        self._cache = cache
        self._pool = pool
        self._loaded_ahead = loaded_ahead
        self._started: dict[str, Future[Path | None]] = {}

    def start(self, module: BenchmarkModule) -> None:
        """Begin to compile the comparison module of a benchmark module, unless it has been."""
        self._future(module)

    def path(self, module: BenchmarkModule) -> Path | None:
        """The compiled comparison module; ``None`` if the host has to compare the results."""
        future = self._future(module)
        return None if future is None else future.result()

    def _future(self, module: BenchmarkModule) -> Future[Path | None] | None:
        if self._compiler.target.shares_processor:
            return None
        text = comparison_module(module)
        if text is None:
            return None
        if text not in self._started:
            self._started[text] = self._pool.submit(self._built, text)
        return self._started[text]

    def _built(self, text: str) -> Path | None:
        try:
            key = content_key("comparer", text, self._compiler.identity, COMPARER_FLAGS)
            digest = self._cache.get("models", key, str)
            if digest is not None and (known := self._cache.binary("models", key, digest)) is not None:
                return known
            out = self._cache.file("models", key, BINARY)
            self._compiler.compile_module(text, out, "comparison", COMPARER_FLAGS)
            self._cache.put("models", key, file_digest(out))
        except CommandFailed as error:
            _logger.info("results are compared on the host: %s", first_error(error))
            return None
        except (SharkTuneError, OSError, ImportError) as error:  # As where a bundle is measured without a compiler.
            _logger.info("results are compared on the host: %s", error)
            return None
        self._loaded_ahead(out)
        return out
