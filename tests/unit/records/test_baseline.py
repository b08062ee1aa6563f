"""Baselines and golden times: what is read of them, and what is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.baseline import BaselineRecord, GoldenTime, read_baseline, read_golden
from pytest_shark_tune.system import journal

RECORD = BaselineRecord(
    name="model",
    us=100.0,
    ratio=2.0,
    ratio_low=1.9,
    ratio_high=2.1,
    calibration="c",
    target="llvm-cpu",
    device="AMD EPYC",
    iree="3.13.0",
)


def golden(path: Path, **content: object) -> Path:
    path.write_text(json.dumps({"inputs": [], "golden_dispatch": {"mi300": 9}, **content}))
    return path


def test_the_later_record_of_a_device_counts(tmp_path: Path) -> None:
    path = tmp_path / "baseline.jsonl"
    assert not read_baseline(path, "llvm-cpu", "AMD EPYC")
    for record in (
        RECORD,
        msgspec.structs.replace(RECORD, us=90.0),
        msgspec.structs.replace(RECORD, device="other", us=1),
    ):
        journal.append(path, record)
    assert {name: record.us for name, record in read_baseline(path, "llvm-cpu", "AMD EPYC").items()} == {"model": 90.0}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"golden_time_ms": 12.5}, GoldenTime(ms=12.5)),
        ({"golden_time_ms": {"mi300": 10}}, GoldenTime(ms=10, sku="mi300")),
        (
            {"golden_time_ms": {"mi300": 10, "EPYC": 20}, "golden_time_tolerance_multiplier": {"EPYC": 1.3}},
            GoldenTime(ms=20, multiplier=1.3, sku="EPYC"),
        ),
        ({"golden_time_ms": 10, "golden_time_tolerance_multiplier": 2}, GoldenTime(ms=10, multiplier=2)),
    ],
)
def test_golden_times_are_read_as_test_suites_have_them(
    content: dict[str, object], expected: GoldenTime, tmp_path: Path
) -> None:
    assert read_golden(golden(tmp_path / "g.json", **content), "AMD EPYC 9575F") == expected
    assert GoldenTime(ms=20, multiplier=1.3).limit_us == pytest.approx(26_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it has no golden_time_ms that can be read"),
        ({"golden_time_ms": "soon"}, "it has no golden_time_ms that can be read"),
        ({"golden_time_ms": {"mi300": 1, "mi250": 2}}, "it has golden times for mi300, mi250, and this is AMD EPYC"),
    ],
)
def test_what_cannot_be_used_is_told(content: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_golden(golden(tmp_path / "g.json", **content), "AMD EPYC")
