"""A pytest plugin for ``overhead.py``: notes where the time of each test of a tuning run goes.

It wraps what the package does for a candidate, counts each call's own time (less that of the calls inside it) and
writes a file for each process into the directory ``OVERHEAD_PROBE``.
"""

from __future__ import annotations

import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.runner import Runner

__all__ = ["COMPILE", "DIRECTORY", "SAMPLES", "WAIT", "TestTimes"]

DIRECTORY = "OVERHEAD_PROBE"
COMPILE, SAMPLES, WAIT = "compile", "samples", "wait for the device"

_WRAPPED = (
    (Builder, "artifact", "look the artifact up"),
    (DeviceChild, "load_benchmark", "load"),
    (DeviceChild, "check", "check (fill, run once, read back, compare)"),
    (DeviceChild, "unload", "unload"),
    (Runner, "measure", "measure (claim, policy, statistics)"),
    (ResultStore, "add", "record and journal"),
)


class TestTimes(msgspec.Struct, frozen=True):
    """One test: the seconds from the end of the one before to its own end, by what they went into."""

    name: str
    started: float
    ended: float
    parts: dict[str, float]


_parts: defaultdict[str, float] = defaultdict(float)
_inner: list[float] = [0.0]
_tests: list[TestTimes] = []
_last_end: list[float] = []


def _counted(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose own time goes to ``part``; that of a batch in the child goes to the samples."""

    @functools.wraps(function)
    def counted(*given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        _inner.append(0.0)
        try:
            return function(*given, **named)
        finally:
            spent = time.perf_counter() - started
            _parts[part] += spent - _inner.pop()
            _inner[-1] += spent

    return counted


def _run(function: Callable[..., float]) -> Callable[..., float]:
    @functools.wraps(function)
    def run(*given: Any, **named: Any) -> float:
        started = time.perf_counter()
        seconds = function(*given, **named)
        spent = time.perf_counter() - started
        _parts[SAMPLES] += seconds
        _parts["ask the child for samples"] += spent - seconds
        _inner[-1] += spent
        return seconds

    return run


def _compile(function: Callable[..., float]) -> Callable[..., float]:
    """Runs in threads of a pool, so it only leaves a mark on the test that waits for it."""

    @functools.wraps(function)
    def compile_sources(*given: Any, **named: Any) -> float:
        started = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            _parts[COMPILE] += time.perf_counter() - started

    return compile_sources


class _Acquiring:
    """A lease of which the time to get it counts as waiting."""

    def __init__(self, lease: Any) -> None:
        self._lease = lease
        self._enter = _counted(WAIT, lease.__enter__)

    def __enter__(self) -> Any:
        return self._enter()

    def __exit__(self, *exception: Any) -> Any:
        return self._lease.__exit__(*exception)


def pytest_configure() -> None:
    """Wrap what is counted."""
    for owner, name, part in _WRAPPED:
        setattr(owner, name, _counted(part, getattr(owner, name)))
    Compiler.compile_sources = _compile(Compiler.compile_sources)  # type: ignore[method-assign]
    DeviceChild.run = _run(DeviceChild.run)  # type: ignore[method-assign]
    acquire = DeviceLeases.acquire
    DeviceLeases.acquire = lambda *given, **named: _Acquiring(acquire(*given, **named))  # type: ignore


def pytest_runtest_logstart() -> None:
    """Begin with the first test; later ones begin where the one before ends."""
    if not _last_end:
        _parts.clear()
        _last_end.append(time.perf_counter())


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Close a test's account."""
    now, started = time.perf_counter(), _last_end[-1]
    _parts["pytest and the rest"] += now - started - sum(_parts.values())
    _tests.append(TestTimes(nodeid, started, now, dict(_parts)))
    _parts.clear()
    _last_end.append(now)


def pytest_unconfigure() -> None:
    """Write down what this process saw."""
    Path(os.environ[DIRECTORY], f"{os.getpid()}.json").write_bytes(msgspec.json.encode(_tests))
