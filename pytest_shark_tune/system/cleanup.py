"""Cleanup: commands and temporary directories that must not outlive this process.

A killed process cleans nothing up, so a small reaper does: a child in its own session that knows of every command. It
sees its stdin close when this process ends in any way, and then kills the commands and removes the directory.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_shark_tune.system import directories

__all__ = ["clear", "new_directory", "release_group", "remove_abandoned", "scratch_directory", "watch_group"]

_NEW_S = 60.0
"""A younger directory may belong to a process that has yet to lock it."""
_CLEAR_S = 10.0
_REAPER_SCRIPT = """
import os, shutil, signal, sys, time
groups, directory = set(), b""
for line in sys.stdin:
    if line[0] == "=":
        directory = bytes.fromhex(line[1:])
    else:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
for _ in range(100):
    shutil.rmtree(directory, ignore_errors=True)
    if not os.path.exists(directory):
        break
    time.sleep(0.1)
"""
"""Killed processes may still write into the directory that is being removed, so it tries again for 10 s."""


class _Reaper:
    """The locked temporary directory of this process, and the child that removes it when this process has ended."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # It starts before there is anything to remove: this process may be killed at any time.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _REAPER_SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )
        try:
            self._held = directories.HeldDirectory(announce=self._announce)
        except BaseException:
            self._stop()
            raise
        self.directory = self._held.path

    def send(self, sign: str, group: int) -> None:
        self._write(f"{sign}{group}")

    def end(self) -> None:
        self._stop()
        self._held.remove()

    def _announce(self, directory: Path) -> None:
        self._write(f"={os.fsencode(directory).hex()}")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # The reaper was killed.
            self._process.stdin.write(f"{line}\n".encode())

    def _stop(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLEAR_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_mutex = threading.Lock()
_reaper: _Reaper | None = None


def watch_group(group: int) -> None:
    """Have a process group killed if this process ends before `release_group`."""
    _current().send("+", group)


def release_group(group: int) -> None:
    """Forget a process group that has ended."""
    _current().send("-", group)


def new_directory(name: str) -> Path:
    """Make a directory that lasts until `clear`, or until this process has ended."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_current().directory))


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory that is removed at the end."""
    directory = new_directory("scratch")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def clear() -> None:
    """Kill the commands and remove the directory. Later commands get a new one."""
    global _reaper  # noqa: PLW0603 - there is one reaper a process
    with _mutex:
        if _reaper is not None and _reaper.owner == os.getpid():
            _reaper.end()
        _reaper = None


def remove_abandoned() -> None:
    """Remove the temporary directories of processes that were killed together with their reaper.

    If the lock of such a directory is free, its process has ended.
    """
    for directory in directories.temporary_directory().glob(f"{directories.PREFIX}*"):
        with suppress(OSError):
            if time.time() - directory.lstat().st_mtime > _NEW_S:
                directories.remove_if_free(directory)


def _current() -> _Reaper:
    global _reaper  # noqa: PLW0603 - there is one reaper a process
    with _mutex:
        if _reaper is None or _reaper.owner != os.getpid():
            _reaper = _Reaper()
        return _reaper


atexit.register(clear)
