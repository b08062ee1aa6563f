"""The history of guarding: files that merge, changes with the run that shows them, and what `fast` learns from it."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_shark_tune.guard.history import (
    HistoryPoint,
    append_points,
    changes_in,
    read_history,
    session_spread,
    shown,
)
from pytest_shark_tune.guard.speed import session_allowance
from pytest_shark_tune.measurement.change_points import Spread
from pytest_shark_tune.plugin.guard.keeper import HistoryKeeper
from pytest_shark_tune.plugin.guard.options import GuardOptions
from pytest_shark_tune.plugin.options import ReportOptions


def point(number: int, *, us: float = 100.0, default_us: float = 150.0, **changes: object) -> HistoryPoint:
    ratio = default_us / us
    made = HistoryPoint(
        run=f"run{number}",
        time=f"2026-01-01T00:{number:02}:00+00:00",
        commit=f"c{number}",
        entry="matmul",
        config="c",
        outcome="kept",
        us=us,
        default_us=default_us,
        ratio=ratio,
        ratio_low=ratio * 0.99,
        ratio_high=ratio * 1.01,
        rounds=4,
        calibration={"copy": 10.0},
        target="llvm-cpu",
        device="a CPU",
        processors=2,
        machine="m",
        iree="3.13.0",
        runtime="3.13.0",
    )
    return msgspec.structs.replace(made, **changes)


def series(count: int, slower_from: int, *, entry: float = 1.0, default: float = 1.0) -> list[HistoryPoint]:
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        us, default_us = (100.0 * math.exp(value) for value in random.normal(0.0, 0.004, 2))
        slow = number >= slower_from
        found.append(
            point(number, us=us * (entry if slow else 1), default_us=1.5 * default_us * (default if slow else 1))
        )
    return found


def test_histories_merge_by_their_lines(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    append_points(ours, [point(1), point(3)])
    append_points(theirs, [point(2), point(3)])
    merged = tmp_path / "merged.jsonl"
    merged.write_bytes(theirs.read_bytes() + ours.read_bytes())
    expected = ["run1", "run2", "run3"]
    assert [known.run for known in read_history(merged)] == expected
    (tmp_path / "many").mkdir()
    for path in (ours, theirs):
        (tmp_path / "many" / path.name).write_bytes(path.read_bytes())
    assert [known.run for known in read_history(tmp_path / "many")] == expected
    append_points(tmp_path / "many", [point(4)])
    assert (tmp_path / "many" / "2026-01-01-run4.jsonl").exists()
    assert not read_history(tmp_path / "absent.jsonl")


def test_a_slowdown_of_entry_and_default_alike_shows_in_their_times_and_not_in_the_ratio() -> None:
    changes = changes_in(series(30, 20, entry=1.06, default=1.06))
    assert {(change.figure, change.kind, change.first.run) for change in changes} == {
        ("entry", "step", "run20"),
        ("default", "step", "run20"),
    }
    assert all(change.is_worse and change.is_recent for change in changes)
    assert "rose by 6" in shown(changes[0])
    assert "commit c20" in shown(changes[0])


def test_a_slower_machine_is_no_change_of_an_entry() -> None:
    slowed = [
        msgspec.structs.replace(known, calibration={"copy": 10.0 * (1.1 if number >= 20 else 1.0)})
        for number, known in enumerate(series(30, 20, entry=1.1, default=1.1))
    ]
    assert not changes_in(slowed)


def test_an_entry_that_is_tuned_anew_begins_a_series() -> None:
    points = [
        msgspec.structs.replace(known, config="new" if number >= 20 else "old")
        for number, known in enumerate(series(30, 20, entry=0.8))
    ]
    assert not changes_in(points)


def test_the_allowance_grows_with_the_spread_and_needs_five_sessions() -> None:
    assert session_allowance(Spread(0.02, 4), 0.001) == 0.0
    few, many = (session_allowance(Spread(0.02, freedom), 0.001) for freedom in (5, 500))
    assert few > many > 2 * 0.02
    assert session_allowance(Spread(0.0, 50), 0.001) == 0.0


def test_the_spread_is_that_of_this_device_without_its_steps() -> None:
    random = np.random.default_rng(1)
    offsets = random.normal(0.0, 0.02, 40)
    points = [point(n, us=100 * math.exp(by + (0.3 if n >= 20 else 0.0)), rounds=1) for n, by in enumerate(offsets)]
    assert session_spread(points, "a CPU", 2).deviation == pytest.approx(0.02, rel=0.35)
    assert session_spread(points, "another CPU", 2) == (0.0, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_tells_changes_and_fails_only_if_asked_to(fails: bool, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    *earlier, last = series(30, 20, entry=1.06)
    append_points(path, earlier)
    options = GuardOptions(
        spec=None,
        tolerance=0.04,
        strict=False,
        baseline=None,
        updates_baseline=False,
        against=(),
        history=path,
        fails_on_history=fails,
        trusts_identity=False,
        route="compile",
        reports=ReportOptions(),
    )
    keeper = HistoryKeeper(options, tmp_path)
    keeper.keep([last])
    assert len(read_history(path)) == 30
    assert any("the entry's time rose by 6" in line for line in keeper.lines())
    assert bool(keeper.problem) is fails
    assert keeper.problem.startswith("--tune-history-fail: matmul: " if fails else "")
