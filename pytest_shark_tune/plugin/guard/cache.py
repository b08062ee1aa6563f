"""The cache around a run that guards: emptied before it if the user asks for that, and cut to its maximum after it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.parse import naming

__all__ = ["clear_cache", "cut_cache"]


def clear_cache(config: pytest.Config) -> None:
    """Empty the cache if ``--tune-cache-clear`` is given.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    if config.getoption("tune_cache_clear"):
        from pytest_shark_tune.system.cache import Cache

        with reporting.escaping_errors(), naming("--tune-cache"):
            Cache(TuneOptions.from_pytest_config(config).cache).clear()


def cut_cache(config: pytest.Config) -> None:
    """Remove what the cache holds beyond its maximum size.

    Only workers on other hosts may be able to use it, and then there is nothing to remove here.
    """
    from pytest_shark_tune.system.cache import Cache

    options = TuneOptions.from_pytest_config(config)
    with suppress(InputError, OSError):
        Cache(options.cache).evict(options.cache_bytes)
