"""A session outside of pytest: its cache and a scratch folder that is removed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_shark_tune.commands.output import tell
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.discovery import FoundDevices
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.plugin.options import default_cache
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["open_session"]


@contextmanager
def open_session(
    compiler: Compiler, devices: FoundDevices, models: ModelInput, cache_folder: Path | None, *, fresh: bool = False
) -> Iterator[GuardSession]:
    """Open a session that reports to stderr. ``cache_folder`` is the user's own cache without one."""
    cache = Cache(cache_folder or default_cache(), tell)
    with scratch_folder() as folder:
        settings = RunSettings.in_folder(folder, devices["uris"], devices["name"], jobs=processors())
        session = GuardSession(replace(settings, fresh=fresh, models=models), compiler, cache, tell=tell)
        try:
            yield session
        finally:
            session.close()
