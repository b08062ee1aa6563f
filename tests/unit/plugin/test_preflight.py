"""Directories that options name: one run at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import check_compiler, hold_directory


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


def test_a_compiler_is_tried_once_for_its_flags_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Compiler] = []

    def check(compiler: Compiler) -> None:
        tried.append(compiler)

    monkeypatch.setattr(Compiler, "check", check)
    tool = tmp_path / "iree-compile"
    tool.touch()
    options = cast("TuneOptions", SimpleNamespace(cache=tmp_path / "cache", compile_flags=()))

    def try_with(*flags: str, timeout_s: float = 60.0) -> None:
        check_compiler(options, Compiler(Target.parse("llvm-cpu"), flags, timeout_s=timeout_s, tool=str(tool)))

    for _ in range(2):
        try_with()
    assert len(tried) == 2, "a run that is refused must not leave a cache behind"
    assert not options.cache.exists()
    options.cache.mkdir(mode=0o700)
    for _ in range(2):
        try_with()
    assert len(tried) == 3
    try_with("--iree-opt-level=O2")
    try_with(timeout_s=1.0)
    tool.write_text("another", encoding="utf-8")
    try_with()
    assert len(tried) == 6


def test_a_compiler_that_is_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(compiler: Compiler) -> None:
        raise InputError("no")

    monkeypatch.setattr(Compiler, "check", refuse)
    options = cast("TuneOptions", SimpleNamespace(cache=tmp_path, compile_flags=()))
    for _ in range(2):
        with pytest.raises(pytest.UsageError, match="--tune-target: no"):
            check_compiler(options, Compiler(Target.parse("llvm-cpu"), tool=__file__))
