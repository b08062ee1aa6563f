"""Baselines: recorded times of dispatches and models, and golden times as IREE's test suites have them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.files import read_text

__all__ = ["BaselineRecord", "GoldenTime", "read_baseline", "read_golden"]


class BaselineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded time of a dispatch or model. Of two records of the same one the later one counts."""

    schema: Literal[1] = 1
    name: str
    us: float
    """The median time."""
    ratio: float
    """The time of a microbenchmark, which is measured in turns with it, by its own."""
    ratio_low: float
    """The lower bound of the ratio in one more fresh process."""
    ratio_high: float
    calibration: str
    """The digest of the microbenchmark's machine code."""
    target: str
    device: str
    """The model of the device."""
    iree: str
    """The compiler's release."""


class GoldenTime(msgspec.Struct, frozen=True, kw_only=True):
    """The longest time that a model may take."""

    ms: float
    multiplier: float = 1.0
    """The tolerance: the model may take so many times as long."""
    sku: str = ""
    """The device that the file has the time for; empty if it has one for all."""

    @property
    def limit_us(self) -> float:
        """The limit in microseconds."""
        return self.ms * 1e3 * self.multiplier


class _GoldenFile(msgspec.Struct, frozen=True):
    """The fields of a benchmark's JSON file that count here; it may have others."""

    golden_time_ms: float | dict[str, float]
    golden_time_tolerance_multiplier: float | dict[str, float] = 1.0


def read_baseline(path: Path, target: str, device: str) -> dict[str, BaselineRecord]:
    """Read the records for a target on a model of device, by name; nothing if there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    records = journal.read(path, BaselineRecord)
    return {record.name: record for record in records if (record.target, record.device) == (target, device)}


def read_golden(path: Path, device: str) -> GoldenTime:
    """Read a golden time for a model of device.

    The file has one time, or one for each SKU: the SKU counts that is part of the device's name, or the only one.

    Raises:
        InputError: the file cannot be read, or has no time for the device.
    """
    try:
        read = msgspec.json.decode(read_text(path), type=_GoldenFile)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: it has no golden_time_ms that can be read: {error}") from error
    times, multipliers = read.golden_time_ms, read.golden_time_tolerance_multiplier
    sku = ""
    if isinstance(times, dict):
        fitting = [name for name in times if name.lower() in device.lower()] or list(times)
        if len(fitting) != 1:
            raise InputError(f"{path}: it has golden times for {', '.join(times) or 'nothing'}, and this is {device}")
        sku = fitting[0]
        times = times[sku]
    multiplier = multipliers.get(sku, 1.0) if isinstance(multipliers, dict) else multipliers
    return GoldenTime(ms=times, multiplier=multiplier, sku=sku)
