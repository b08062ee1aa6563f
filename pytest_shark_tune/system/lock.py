"""The only module that locks files: locks of the operating system, which end with the process that holds them.

Not filelock: it refuses the file of another user in a sticky directory, which is how users of a host share its devices.
It also leaves every file behind, and has no place for the holder's note.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["FileLock", "NoLocks", "hold_directory", "remove_if_unheld"]

_POLL_S = 0.02
_MOST_NOTE_BYTES = 4096
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


_held: dict[str, int] = {}
"""The descriptors of the directories that this process holds, by path."""


class NoLocks(OSError):
    """The file system of a lock file has no locks."""


class FileLock:
    """An exclusive lock on the file at ``path``, between processes and between locks of one process.

    A killed process holds nothing, so no lock is ever stale. While the lock is held, the file has a note of the holder.

    Args:
        path: The file.
        mode: Its mode, whatever the umask, which may let other users lock it.
        remove: Remove the file at the release.
    """

    def __init__(self, path: Path, *, mode: int = 0o644, remove: bool = False) -> None:
        self.path = path
        self._mode = mode
        self._remove = remove
        self._descriptor: int | None = None

    def check(self) -> None:
        """Make sure that the file can be opened for locking.

        Raises:
            OSError: it cannot be opened for writing.
        """
        os.close(self._open())

    def try_acquire(self, note: bytes = b"") -> bool:
        """Take the lock if nobody holds it, and write ``note`` into the file.

        Returns:
            Whether the lock is held now.

        Raises:
            NoLocks: the file system has no locks.
            OSError: the file cannot be opened for writing.
        """
        assert self._descriptor is None, f"{self.path} is locked already"
        while True:
            descriptor = self._open()
            try:
                self._lock(descriptor)
                if not self._is_current(descriptor):
                    os.close(descriptor)
                    continue
                with suppress(OSError):  # On a full disk the lock works without a note.
                    os.pwrite(descriptor, note, 0)
                    os.ftruncate(descriptor, len(note))
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        if self._remove and self._is_current(descriptor):
            # While it is held: a process that waits for this file then sees that it is gone, and makes a new one.
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        # Closing is not enough: a child that is being forked at this moment has the descriptor too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it. On a file system without locks, go on without."""
        with suppress(NoLocks):
            while not self.try_acquire():
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            self.release()

    def note(self) -> bytes:
        """The note of the holder. It may be an old one, of a holder that was killed."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.read(descriptor, _MOST_NOTE_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file. Another user may have put it there, so links are refused, also hard links to another file."""
        descriptor = self._open_any()
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EPERM, "it is no file of its own, but a link or a device", os.fspath(self.path))
        return descriptor

    def _open_any(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            # Not with O_CREAT at once: in a sticky directory the kernel may refuse it for the file of another user.
            with suppress(FileNotFoundError):
                return os.open(self.path, flags)
            with suppress(FileExistsError):
                descriptor = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, self._mode)
                with suppress(OSError):
                    os.fchmod(descriptor, self._mode)
                return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if self._remove:
                with suppress(OSError):
                    self.path.unlink(missing_ok=True)
            # The system names no file.
            raise NoLocks(error.errno, error.strerror, os.fspath(self.path)) from error

    def _is_current(self, descriptor: int) -> bool:
        """Whether the open file is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.lstat())
        except OSError:
            return False


def hold_directory(path: Path) -> bool:
    """Hold a directory until this process ends, as any number of processes may, so that nobody removes it.

    Returns:
        Whether the directory exists.
    """
    name = os.fspath(path.absolute())
    if name in _held and _is_open_at(_held[name], name):
        return True
    if (old := _held.pop(name, None)) is not None:
        os.close(old)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with suppress(OSError):  # On a file system without locks nothing is ever taken for free.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not _is_open_at(descriptor, name):  # It was removed while this process waited.
        os.close(descriptor)
        return False
    _held[name] = descriptor
    return True


def remove_if_unheld(path: Path) -> bool:
    """Remove a directory with all that is in it, unless a process holds it or it belongs to another user.

    Returns:
        Whether it is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under another name first: nobody finds half a directory.
        gone = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.gone")
        path.rename(gone)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _is_open_at(descriptor: int, path: str) -> bool:
    """Whether an open directory is still the one at a path."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), Path(path).stat())
    return False
