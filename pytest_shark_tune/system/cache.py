"""The only module that stores values between runs: by content, in one directory that runs may share.

Not diskcache: it unpickles values, so a damaged or planted file would run code, and its database needs locks that
network file systems lack.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.directories import check_owner
from pytest_shark_tune.system.journal import replace_file
from pytest_shark_tune.system.lock import FileLock, remove_if_unheld
from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["BINARY", "KINDS", "RELEASES", "Cache", "Kind", "Removed", "Usage", "content_key", "file_digest", "is_key"]

Kind = Literal[
    "plans",
    "artifacts",
    "models",
    "records",
    "finals",
    "checks",
    "profiles",
    "forms",
    "limits",
    "yardsticks",
    "releases",
]
"""The kinds of values. A kind has a directory of its name; nothing else in the cache is ever removed.

Releases of IREE are directories that pip fills, by their versions. All other values are files by content keys.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
RELEASES: Kind = "releases"

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

BINARY = ".vmfb"
"""The suffix of compiled modules."""
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"\.?([0-9a-f]{64})\.")
"""The beginning of our files' names: the key, after a dot while a file is being written."""
_RELEASE = re.compile(r"\.?\d+\.\d+[\w.-]*")
"""The name of a release's directory, after a dot while pip fills it."""
_LOCK = ".making"
_PARTIAL = ".part"
_IN_USE_S = 3600.0
"""A file used within this time may belong to a run that has yet to open it."""
_WRITING_S = 60.0
"""An older file is not being written any more."""


@dataclass(frozen=True)
class Usage:
    """The stored values of one kind."""

    kind: Kind
    number: int
    """The number of keys."""
    bytes: int
    oldest_s: float | None
    """The oldest time of last use, in seconds since the epoch."""
    newest_s: float | None
    """The newest time of last use."""


@dataclass(frozen=True)
class Removed:
    """The effect of a removal."""

    number: int = 0
    """The number of removed keys."""
    bytes: int = 0
    busy: int = 0
    """The number of keys that stay because a process is at work on them."""


@dataclass(frozen=True)
class _CacheEntry:
    """All files of one key."""

    kind: Kind
    directory: str
    names: tuple[str, ...]
    """The names of the files. Paths are strings here: a cache may have a hundred thousand files."""
    bytes: int
    used_s: float
    """The time when one of them was last used."""

    @property
    def files(self) -> list[str]:
        """The paths of the files."""
        return [f"{self.directory}/{name}" for name in self.names]


def content_key(*parts: object) -> str:
    """Hash plain data. Equal parts have equal keys in every process."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_key(text: str) -> bool:
    """Whether `content_key` could have made a text, so that it can be part of a path."""
    return _KEY.fullmatch(text) is not None


class _Sealed(msgspec.Struct, frozen=True):
    """A stored value with the hash of its text."""

    sha256: str
    value: msgspec.Raw


class Cache:
    """Values and files by kind and content key.

    A damaged value is reported, removed and counts as absent. The time of a file's modification is that of its last
    use, by which `evict` finds the oldest. No value holds the cache's own path, so the directory may be moved.
    ``report`` gets a message about damage.

    Raises:
        InputError: another user could have put something into the directory, from which binaries are loaded.
    """

    def __init__(self, directory: Path, report: Callable[[str], None] = lambda message: None) -> None:
        check_owner(directory)
        self.directory = directory
        self._report = report
        self._whole: set[tuple[Path, str]] = set()

    def file(self, kind: Kind, key: str, suffix: str) -> Path:
        """The path of the file of ``key``, which need not exist. Its directory exists, and it counts as used now.

        Raises:
            InputError: ``key`` is not a key, and might lead out of the cache's directory.
        """
        if not is_key(key) or kind not in KINDS:
            raise InputError(f"{key!r} is no key of {kind!r} in the cache {self.directory}")
        path = self.directory / kind / key[:2] / f"{key}{suffix}"
        if not path.parent.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
        self.touch(path)
        return path

    def touch(self, path: Path) -> bool:
        """Count a file as used now, so that it stays for an hour at least.

        Returns:
            Whether the file exists.
        """
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:  # It belongs to another user.
            return path.exists()
        return True

    def lock(self, kind: Kind, key: str) -> FileLock:
        """The lock for making the value or the file of ``key``. Its file is removed at the release."""
        return FileLock(self.file(kind, key, _LOCK), remove=True)

    def get(self, kind: Kind, key: str, value_type: type[_T]) -> _T | None:
        """Look up the value of ``key``; ``None`` if there is none."""
        path = self.file(kind, key, ".json")
        try:
            with path.open("rb") as file:
                found, content = os.fstat(file.fileno()), file.read()
        except FileNotFoundError:
            return None
        try:
            sealed = msgspec.json.decode(content, type=_Sealed)
            if hashlib.sha256(sealed.value).hexdigest() != sealed.sha256:
                raise ValueError("its content has another digest than was written with it")
            return msgspec.json.decode(sealed.value, type=value_type)
        except (msgspec.DecodeError, ValueError) as error:
            self._throw_away(path, found, str(error))
            return None

    def binary(self, kind: Kind, key: str, sha256: str) -> Path | None:
        """Look up the compiled module of ``key``; ``None`` if there is none with this digest. It counts as used now.

        A process checks the digest once: it does not read a whole file again.
        """
        path = self.file(kind, key, BINARY)
        try:
            with path.open("rb") as file:
                if (path, sha256) in self._whole:
                    return path
                found, actual = os.fstat(file.fileno()), hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        if actual != sha256:
            self._throw_away(path, found, "its content has another digest than was recorded")
            return None
        self._whole.add((path, sha256))
        return path

    def _throw_away(self, path: Path, found: os.stat_result, why: str) -> None:
        """Remove a damaged file, unless another process has replaced it meanwhile."""
        message = f"{path} is damaged, and is left out and made anew: {why}"
        _logger.warning("%s", escaped_line(message))
        self._report(message)
        now = _stat(path)
        if now is not None and (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
            with suppress(OSError):  # One of another user is replaced if that is possible.
                path.unlink()

    def put(self, kind: Kind, key: str, value: object) -> None:
        """Store the value of ``key``. A process that reads meanwhile sees the old value or the new one."""
        content = msgspec.json.encode(value)
        sealed = _Sealed(hashlib.sha256(content).hexdigest(), msgspec.Raw(content))
        replace_file(self.file(kind, key, ".json"), msgspec.json.encode(sealed))

    def get_or_make(
        self,
        kind: Kind,
        key: str,
        value_type: type[_T],
        make: Callable[[], _T],
        *,
        lasts: Callable[[_T], bool] = lambda value: True,
    ) -> _T:
        """Look up the value of ``key``, or make and store it.

        One process makes it while the others wait, if files can be locked.

        Args:
            kind: The kind of the value.
            key: Its key.
            value_type: Its type.
            make: Makes the value.
            lasts: Whether to store a value. Others are made again the next time.
        """
        value = self.get(kind, key, value_type)
        if value is not None:
            return value
        with self.lock(kind, key).held():
            value = self.get(kind, key, value_type)
            if value is None:
                value = make()
                if lasts(value):
                    self.put(kind, key, value)
            return value

    def usage(self) -> list[Usage]:
        """Summarize the stored values by kind."""
        found = []
        for kind in KINDS:
            entries = list(self._entries([kind]))
            times = [entry.used_s for entry in entries]
            size = sum(entry.bytes for entry in entries)
            found.append(Usage(kind, len(entries), size, min(times, default=None), max(times, default=None)))
        return found

    def evict(self, limit_bytes: int) -> Removed:
        """Remove the values that were not used for longest, until at most ``limit_bytes`` are left.

        Runs share a cache, so values that were used in the last hour or are locked stay. Directories stay too, since a
        run may be about to write there.
        """
        entries = sorted(self._entries(), key=lambda entry: (entry.used_s, entry.directory, entry.names))
        total, removed = sum(entry.bytes for entry in entries), Removed()
        recent_s = time.time() - _IN_USE_S
        for entry in entries:
            if total <= limit_bytes or entry.used_s > recent_s:
                break
            # To list a large cache takes a while, and the value may have been used meanwhile.
            used_s = max((found.st_mtime for path in entry.files if (found := _stat(path))), default=0.0)
            if used_s <= recent_s:
                gone = _remove(entry)
                removed = _sum(removed, gone)
                total -= gone.bytes
        _logger.info("%d of %s removed, %d bytes", removed.number, self.directory, removed.bytes)
        return removed

    def clear(self, kinds: Collection[Kind] = KINDS) -> Removed:
        """Remove all values of these kinds, even if they were used just now, unless they are being made."""
        removed = Removed()
        for entry in self._entries(kinds):
            removed = _sum(removed, _remove(entry))
        return removed

    def _entries(self, kinds: Collection[Kind] = KINDS) -> Iterator[_CacheEntry]:
        """List the stored values of these kinds. Files with names that are not ours are left out."""
        for kind in kinds:
            if kind == RELEASES:
                yield from _releases_in(os.fspath(self.directory / kind))
                continue
            for directory in _listed(os.fspath(self.directory / kind)):
                # Our directories hold the keys that begin with their name.
                if len(directory.name) == 2 and not directory.is_symlink():
                    yield from _entries_in(kind, directory)


def _releases_in(parent: str) -> Iterator[_CacheEntry]:
    """List the releases of IREE in a directory. The time of the directory of one is that of its last use."""
    for directory in _listed(parent):
        if _RELEASE.fullmatch(directory.name) and directory.is_dir(follow_symlinks=False):
            with suppress(OSError):  # Another run may have removed it.
                used_s = directory.stat(follow_symlinks=False).st_mtime
                yield _CacheEntry(RELEASES, parent, (directory.name,), _tree_bytes(directory.path), used_s)


def _tree_bytes(top: str) -> int:
    """The sizes of the files below a directory."""
    found = (_stat(f"{directory}/{name}") for directory, _, names in os.walk(top) for name in names)
    return sum(file.st_size for file in found if file)


def _entries_in(kind: Kind, directory: os.DirEntry[str]) -> Iterator[_CacheEntry]:
    of_key: dict[str, list[tuple[str, os.stat_result]]] = {}
    for file in _listed(directory.path):
        if (match := _NAME.match(file.name)) and match[1].startswith(directory.name):
            with suppress(OSError):  # Another run may have removed it.
                found = file.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    of_key.setdefault(match[1], []).append((file.name, found))
    for files in of_key.values():
        size = sum(found.st_size for _, found in files)
        used_s = max(found.st_mtime for _, found in files)
        yield _CacheEntry(kind, directory.path, tuple(name for name, _ in files), size, used_s)


def _listed(directory: str) -> list[os.DirEntry[str]]:
    """List a directory in a fixed order; nothing if it cannot be read."""
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def _stat(path: Path | str) -> os.stat_result | None:
    with suppress(OSError):  # Another run may have removed it.
        return os.lstat(path)
    return None


def _sum(one: Removed, other: Removed) -> Removed:
    return Removed(one.number + other.number, one.bytes + other.bytes, one.busy + other.busy)


def _remove(entry: _CacheEntry) -> Removed:
    """Remove all files of a key, unless one of them is locked, is being written or belongs to another user.

    A release stays while a process holds its directory.
    """
    if entry.kind == RELEASES:
        is_gone = all(remove_if_unheld(Path(path)) for path in entry.files)
        return Removed(number=1, bytes=entry.bytes) if is_gone else Removed(busy=1)
    if any(path.endswith(_PARTIAL) and _is_young(path) for path in entry.files):
        return Removed(busy=1)
    with ExitStack() as held:
        for path in entry.files:
            if path.endswith(_LOCK) and not _hold(Path(path), held):
                return Removed(busy=1)
        # The value first: a process that finds one relies on its file. The locks last, while they are held: a process
        # that waits for one then makes a new one.
        for path in sorted(entry.files, key=lambda path: (path.endswith(_LOCK), not path.endswith(".json"))):
            try:
                with suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108 - a string is no path
            except OSError as error:
                _logger.info("%s cannot be removed: %s", path, error.strerror)
                return Removed(busy=1)
    return Removed(number=1, bytes=entry.bytes)


def _is_young(path: str) -> bool:
    found = _stat(path)
    return found is not None and time.time() - found.st_mtime < _WRITING_S


def _hold(path: Path, held: ExitStack) -> bool:
    """Lock ``path`` until the end of ``held``; false if another process holds it."""
    lock = FileLock(path)
    try:
        if not lock.try_acquire():
            return False
    except PermissionError:  # It belongs to another user.
        return False
    except OSError:  # The file system has no locks, so nobody holds one.
        return True
    held.callback(lock.release)
    return True
