"""A session outside of pytest: its cache and a scratch directory that is removed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_shark_tune.commands.output import report
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.discovery import FoundDevices
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.plugin.options import default_cache
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["open_session"]


@contextmanager
def open_session(
    compiler: Compiler, devices: FoundDevices, models: ModelInput, cache_directory: Path | None, *, fresh: bool = False
) -> Iterator[GuardSession]:
    """Open a session that reports to stderr. ``cache_directory`` is the user's own cache without one."""
    cache = Cache(cache_directory or default_cache(), report)
    with scratch_directory() as directory:
        settings = RunSettings.in_directory(directory, devices["uris"], devices["name"], jobs=processors())
        session = GuardSession(replace(settings, fresh=fresh, models=models), compiler, cache, report=report)
        try:
            yield session
        finally:
            session.close()
