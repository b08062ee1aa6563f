"""The only module that reads IREE's own profile of a running model: the time of each dispatch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from iree.runtime.benchmark import benchmark_exe

from pytest_shark_tune.device.parameters import load_seconds
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import process

__all__ = ["Cost", "NoProfile", "Profiled", "model_time_us", "profile"]

_UNITS_US = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
_STATISTICS = "--dispatch_statistics=true"
_SECONDS = 1.0
_TIMEOUT_S = 300.0
_STATUS = re.compile(r"\b[A-Z][A-Z_]+;")
"""How a line with a status of IREE's begins its message."""


class NoProfile(InputError):
    """The driver keeps no statistics of dispatches, or the model could not be run. The message says which."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The time that one entry point takes in one call of the function."""

    time_us: float
    """The time of all its calls together."""
    calls: int


class Profiled(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of one call of a model's function."""

    model_us: float
    exports: dict[str, Cost]
    """The cost of the entry points of executables, by name."""


class _Row(msgspec.Struct):
    name: str
    real_time: float = 0.0
    time_unit: str = "ns"
    run_type: str = ""
    calls: float | None = None
    error_message: str = ""

    @property
    def time_us(self) -> float:
        return self.real_time * _UNITS_US[self.time_unit]


class _Report(msgspec.Struct):
    benchmarks: list[_Row]


def profile(
    vmfb: Path,
    device: str,
    function: str,
    inputs: Sequence[str],
    parameters: Sequence[str] = (),
    *,
    seconds: float = _SECONDS,
    timeout_s: float = _TIMEOUT_S,
) -> Profiled:
    """Run a function of a compiled model and read its profile.

    Args:
        vmfb: The compiled model.
        device: The device's URI.
        function: The function's name.
        inputs: The arguments, as iree-benchmark-module takes them.
        parameters: The files that hold the model's parameters, as ``SCOPE=FILE``.
        seconds: About how long to run it.
        timeout_s: The number of seconds that the command may take.

    Raises:
        NoProfile: the driver keeps no statistics, or the command failed.
    """
    rows = _run(vmfb, device, function, inputs, parameters, _STATISTICS, seconds=seconds, timeout_s=timeout_s)
    whole = [row for row in rows if row.calls is None]
    prefix = f"BM_{function}/"
    exports = {
        row.name.removeprefix(prefix): Cost(time_us=row.time_us, calls=round(row.calls))
        for row in rows
        if row.calls is not None
    }
    if not whole or not exports:
        raise NoProfile("iree-benchmark-module reported the time of no dispatch")
    return Profiled(model_us=whole[0].time_us, exports=exports)


def model_time_us(
    vmfb: Path, device: str, function: str, inputs: Sequence[str], parameters: Sequence[str] = ()
) -> float | None:
    """The time of one call of the function without statistics, in microseconds; ``None`` if it cannot be run."""
    try:
        rows = _run(vmfb, device, function, inputs, parameters, seconds=_SECONDS, timeout_s=_TIMEOUT_S)
    except NoProfile:
        return None
    return rows[0].time_us if rows else None


def _run(
    vmfb: Path,
    device: str,
    function: str,
    inputs: Sequence[str],
    parameters: Sequence[str],
    *flags: str,
    seconds: float,
    timeout_s: float,
) -> list[_Row]:
    command = [
        benchmark_exe(),
        f"--module={vmfb}",
        f"--device={device}",
        f"--function={function}",
        *(f"--input={value}" for value in inputs),
        *(f"--parameters={value}" for value in parameters),
        *flags,
        "--benchmark_format=json",
        f"--benchmark_min_time={seconds:g}s",
        "--benchmark_min_warmup_time=0.2",
    ]
    try:
        out = process.run(command, timeout_s=timeout_s + load_seconds(parameters)).stdout
        rows = msgspec.json.decode(out, type=_Report).benchmarks
    except CommandFailed as error:
        raise NoProfile(_status_in(error.lines)) from error
    except msgspec.DecodeError as error:
        raise NoProfile(f"iree-benchmark-module printed no report: {error}") from error
    if failed := [row.error_message for row in rows if row.error_message]:
        raise NoProfile(failed[0])
    return rows


def _status_in(lines: Sequence[str]) -> str:
    """Return IREE's status among the lines of an error, without the stack that may follow it."""
    return next((line for line in lines if _STATUS.search(line)), lines[-1])
