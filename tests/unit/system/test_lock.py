"""Lock files that go with their lock: never two holders, also while the file is removed under those who wait."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_shark_tune.system.lock import FileLock, NoLocks

# While it holds the lock it owns a file that nobody else may have.
CONTENDER = """
import os, sys
from pathlib import Path
from pytest_shark_tune.system.lock import FileLock

directory = Path(sys.argv[1])
lock = FileLock(directory / "x.lock", remove=True)
sys.stdin.readline()
for _ in range(300):
    while not lock.try_acquire():
        pass
    os.close(os.open(directory / "held", os.O_CREAT | os.O_EXCL))
    (directory / "held").unlink()
    lock.release()
"""


def test_a_lock_that_is_removed_at_each_release_never_has_two_holders(
    tmp_path: Path, child_env: dict[str, str]
) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_env,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        _, errors = child.communicate("go\n", timeout=60)
        assert child.returncode == 0, errors
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_to_be_removed_stays_and_is_empty(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    assert lock.try_acquire(b"a long note")
    assert lock.note() == b"a long note"
    lock.release()
    assert (tmp_path / "x.lock").read_bytes() == b""
    assert lock.try_acquire(b"short")
    assert lock.note() == b"short"


def test_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "x.lock"), FileLock(tmp_path / "x.lock")
    assert first.try_acquire(b"first")
    assert not second.try_acquire(b"second")
    assert second.note() == b"first"
    first.release()
    first.release()
    assert second.try_acquire()


def test_a_lock_in_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "absent" / "x.lock").try_acquire()


def test_a_lock_whose_directory_was_made_anew_leaves_the_lock_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    first, second = FileLock(path, remove=True), FileLock(path, remove=True)
    assert first.try_acquire()
    path.unlink()
    assert second.try_acquire()
    first.release()
    assert not FileLock(path).try_acquire()
    second.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_apart_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(tmp_path / "x.lock", remove=True)
    with pytest.raises(NoLocks) as raised:
        lock.try_acquire()
    assert raised.value.filename == str(lock.path)
    with lock.held():
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_locking_is_no_lack_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), FileLock(tmp_path / "x.lock").held():
        pass


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    os.link(victim, path)


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, victim: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("plant", [link, hard_link, fifo, directory])
def test_what_another_user_planted_in_place_of_a_lock_is_not_touched(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "x.lock"
    victim.write_bytes(b"precious")
    plant(path, victim)
    lock = FileLock(path, mode=0o666)
    with pytest.raises(OSError, match=r"x\.lock"):
        lock.try_acquire(b"a note")
    assert victim.read_bytes() == b"precious"
    assert lock.note() == (b"precious" if plant is hard_link else b"")


def test_of_a_note_no_more_is_read_than_one_can_be(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_bytes(b"x" * 1_000_000)
    assert len(FileLock(tmp_path / "x.lock").note()) == 4096
