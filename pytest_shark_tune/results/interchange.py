"""Reading the recorded searches of other tuners: T4 results and Kernel Tuner's cache files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.replay import Landscape, LandscapeCandidate, read_landscape
from pytest_shark_tune.system.files import decode_json, read_packed

__all__ = ["read_any_landscape"]

_UNITS_US = {
    "s": 1e6,
    "seconds": 1e6,
    "ms": 1e3,
    "milliseconds": 1e3,
    "": 1e3,
    "us": 1.0,
    "microseconds": 1.0,
    "ns": 1e-3,
}
"""Microseconds by unit. Kernel Tuner's times are in milliseconds."""
_STATES = {
    "compile": State.COMPILE_FAILED,
    "CompilationFailedConfig": State.COMPILE_FAILED,
    "correctness": State.WRONG_RESULT,
    "timeout": State.RUN_TIMEOUT,
}
"""States by the reasons of both formats. Any other failure happened while the config ran."""
_OUTSIDE = ("constraints", "InvalidConfig")
"""The reasons of configs that are not in the space at all, so that no search proposes them."""
_OPEN_END = b"}}"
"""The end that a cache file lacks while its run goes on."""

_T = TypeVar("_T")
_Value: TypeAlias = int | float | str | bool


class _Measurement(msgspec.Struct, frozen=True):
    name: str
    value: float | int | str | None = None
    unit: str = ""


class _Result(msgspec.Struct, frozen=True):
    """A config in T4's form."""

    configuration: dict[str, _Value]
    invalidity: str = "correct"
    measurements: tuple[_Measurement, ...] = ()
    objectives: tuple[str, ...] = ("time",)


class _Results(msgspec.Struct, frozen=True):
    """A file in T4's form."""

    results: tuple[_Result, ...]


class _KernelTunerCache(msgspec.Struct, frozen=True):
    cache: dict[str, dict[str, Any]]
    tune_params_keys: tuple[str, ...]
    device_name: str = ""
    kernel_name: str = ""
    problem_size: Any = ""
    objective: str = "time"


class _Config(msgspec.Struct, frozen=True):
    """A config and its time, in any form."""

    values: Mapping[str, _Value]
    time_us: float | None
    reason: str


def read_any_landscape(path: Path) -> Landscape:
    """Read a landscape of ours, T4 results, or a cache file of Kernel Tuner, compressed by gzip or not.

    Other tuners record no default, so the median time takes its place. Values of knobs that are not whole numbers are
    numbered in their order.

    Raises:
        InputError: the file cannot be read, is none of these, or holds no measured time.
    """
    try:
        content = read_packed(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    found = _decode(content, _KernelTunerCache) or _decode(content.rstrip().rstrip(b",") + _OPEN_END, _KernelTunerCache)
    if found is not None:
        name = " ".join(filter(None, (found.kernel_name, str(found.problem_size))))
        return _landscape(path, name, found.device_name, _of_cache(path, found))
    if (results := _decode(content, _Results)) is not None:
        return _landscape(path, path.stem, "", _of_results(path, results))
    return read_landscape(path)


def _decode(content: bytes, form: type[_T]) -> _T | None:
    try:
        return decode_json(content, form)
    except InputError:
        return None


def _of_cache(path: Path, found: _KernelTunerCache) -> Iterator[_Config]:
    if found.objective != "time":
        raise InputError(f"{path}: the objective {found.objective} is no time")
    for entry in found.cache.values():
        value = entry.get("time")
        values = {name: _scalar(entry[name]) for name in found.tune_params_keys if name in entry}
        yield _Config(values, _microseconds(value, 1e3), value if isinstance(value, str) else "")


def _scalar(value: object) -> _Value:
    return value if isinstance(value, int | float | str) else str(value)


def _of_results(path: Path, found: _Results) -> Iterator[_Config]:
    for result in found.results:
        objective = result.objectives[0] if result.objectives else ""
        measured = next((each for each in result.measurements if each.name == objective), None)
        time_us = None
        if measured is not None and result.invalidity == "correct":
            if measured.unit not in _UNITS_US or not objective.startswith(("time", "runtime")):
                raise InputError(f"{path}: the objective {objective} in {measured.unit!r} is no time")
            time_us = _microseconds(measured.value, _UNITS_US[measured.unit])
        yield _Config(result.configuration, time_us, result.invalidity)


def _microseconds(value: object, unit_us: float) -> float | None:
    """Return a time, ``None`` for what is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value * unit_us if 0 < value < math.inf else None


def _landscape(path: Path, name: str, device: str, found: Iterable[_Config]) -> Landscape:
    configs = [config for config in found if config.reason not in _OUTSIDE]
    codes = _codes(config.values for config in configs)
    unique: dict[tuple[tuple[str, int], ...], _Config] = {}
    for config in configs:
        knobs = {name: codes[name][value] for name, value in config.values.items()}
        unique.setdefault(tuple(sorted(knobs.items())), config)
    times = [config.time_us for config in unique.values() if config.time_us is not None]
    if not times:
        raise InputError(f"{path}: no config was measured, so there is nothing to find")
    return Landscape(
        dispatch=name,
        device=device,
        target="",
        iree="",
        baseline_samples_us=((statistics.median(times),),),
        candidates=tuple(
            LandscapeCandidate(
                pipeline="",
                knobs=dict(knobs),
                state=State.MEASURED if config.time_us else _STATES.get(config.reason, State.RUN_FAILED),
                reason="" if config.time_us else config.reason,
                samples_us=(config.time_us,) if config.time_us else (),
            )
            for knobs, config in unique.items()
        ),
    )


def _codes(rows: Iterable[Mapping[str, _Value]]) -> dict[str, dict[_Value, int]]:
    """Return whole numbers for the values of each knob: themselves, or else their positions in order."""
    levels: dict[str, set[_Value]] = {}
    for row in rows:
        for name, value in row.items():
            levels.setdefault(name, set()).add(value)
    codes: dict[str, dict[_Value, int]] = {}
    for name, values in levels.items():
        if all(isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values):
            codes[name] = {value: int(value) for value in values}
        else:
            numbers = all(isinstance(value, int | float) for value in values)
            ordered = sorted(values) if numbers else sorted(values, key=str)
            codes[name] = {value: position for position, value in enumerate(ordered)}
    return codes
