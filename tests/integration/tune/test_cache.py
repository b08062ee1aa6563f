"""``--tune-cache-size`` and ``--tune-cache-clear``: what a run leaves in the cache."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.system.cache import Cache, content_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import MakeSuite, Suite

DAY_S = 86400.0
SEAL = len('{"sha256":"","value":""}') + 64
"""What is written around a text."""


@pytest.fixture
def suite(make_suite: MakeSuite) -> Suite:
    """One that has nothing to tune: the cache is looked after all the same."""
    return make_suite({"test_suite.py": "def test_plain(): pass\n"})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with an old value and a new one, of a kilobyte each."""
    kept = Cache(tmp_path / "cache")
    for name in ("old", "new"):
        kept.put("plans", content_key(name), "x" * (1024 - SEAL))
    yesterday_s = time.time() - DAY_S
    os.utime(kept.file("plans", content_key("old"), ".json"), (yesterday_s, yesterday_s))
    return kept


def names(cache: Cache) -> list[str]:
    return [name for name in ("old", "new") if cache.get("plans", content_key(name), str)]


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_run_cuts_the_cache_to_its_size(suite: Suite, cache: Cache, workers: str) -> None:
    suite.write("pytest.ini", "[pytest]\ntune_cache_size = 1K\n")
    outcome = suite.tune(f"--tune-cache={cache.directory}", workers)
    assert outcome.status == 0, outcome.text
    assert names(cache) == ["new"]


@pytest.mark.slow
def test_a_cache_within_its_size_is_left_alone_and_one_is_emptied_on_request(suite: Suite, cache: Cache) -> None:
    outcome = suite.tune(f"--tune-cache={cache.directory}", "--tune-cache-size=2K")
    assert outcome.status == 0, outcome.text
    assert names(cache) == ["old", "new"]
    outcome = suite.tune(f"--tune-cache={cache.directory}", "--tune-cache-clear")
    assert outcome.status == 0, outcome.text
    assert names(cache) == []
