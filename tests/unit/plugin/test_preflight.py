"""Directories that options name: one run at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pytest_shark_tune.plugin.preflight import hold_directory


def test_one_run_at_a_time_holds_a_directory(tmp_path: Path) -> None:
    lock = hold_directory("--tune-out", tmp_path)
    with pytest.raises(pytest.UsageError) as raised:
        hold_directory("--tune-out", tmp_path)
    message = pytest.LineMatcher([str(raised.value)])
    who = "held by process * (*) for * s"
    message.fnmatch_lines(
        [f"--tune-out: another run writes to {tmp_path}, {who}, * another directory with --tune-out, *"]
    )
    lock.release()
    assert list(tmp_path.iterdir()) == []
    hold_directory("--tune-out", tmp_path).release()


def test_what_a_run_left_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    hold_directory("--tune-out", tmp_path).release()
    (tmp_path / ".shark-tune.lock").write_text('{"pid":1,"command":"pytest --tune","run":"","since":0.0}')
    hold_directory("--tune-out", tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_on_a_file_system_without_locks_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    locks = [hold_directory("--tune-out", tmp_path) for _ in range(2)]
    for lock in locks:
        lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_held_is_told(tmp_path: Path) -> None:
    (tmp_path / ".shark-tune.lock").mkdir()
    with pytest.raises(pytest.UsageError, match=r"--tune-out: cannot write to .*\.shark-tune\.lock: Is a directory"):
        hold_directory("--tune-out", tmp_path)
