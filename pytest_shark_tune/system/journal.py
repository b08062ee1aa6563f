"""The only module that reads and writes append-only files of JSON lines. A torn line is dropped with a warning.

Not a database: people and other tools read these files, and one write per line keeps them whole without locks.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.files import decode_json, opened_plain
from pytest_shark_tune.system.terminal import escaped_line

__all__ = [
    "append",
    "check_replaceable",
    "create_exclusive",
    "damaged_lines",
    "digest",
    "read",
    "replace_file",
    "replace_parts",
    "stream",
]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_MOST_BYTES = 1 << 31
"""The largest journal: a line of it is held at a time, and the longest have some ten thousand bytes."""
_LONGEST_LINE = 1 << 26
_MOST_WARNINGS = 10


def append(path: Path, value: object) -> None:
    """Append ``value`` as one line, in one write, so that a crash tears at most the last line.

    After a torn line it starts a new one, so that only the torn one is lost.

    Raises:
        OSError: the line cannot be written whole, as on a full disk. ``filename`` is the journal's.
    """
    line = msgspec.json.encode(value) + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        while line:  # A disk that runs full takes a part first.
            line = line[os.write(descriptor, line) :]
    except OSError as error:
        raise _of(path, error) from error
    finally:
        os.close(descriptor)


def read(path: Path, kind: type[_T]) -> list[_T]:
    """Read the whole lines of ``path`` as ``kind``. A torn line is dropped with a warning; no file has no lines.

    Raises:
        InputError: the file cannot be read.
    """
    return list(stream(path, kind))


def stream(path: Path, kind: type[_T]) -> Iterator[_T]:
    """Read the whole lines of ``path`` as `read` does, one after the other, and hold none of them.

    Raises:
        InputError: the file cannot be read.
    """
    name, damaged = escaped_line(str(path)), 0
    for number, value in _decoded(path, kind):
        if not isinstance(value, Exception):
            yield value
            continue
        damaged += 1
        if damaged <= _MOST_WARNINGS:
            shown = name, number, kind.__name__, escaped_line(str(value))
            _logger.warning("%s:%d is not a whole %s and is left out: %s", *shown)
    if damaged > _MOST_WARNINGS:
        _logger.warning("%s: %d more lines are left out", name, damaged - _MOST_WARNINGS)


def digest(path: Path) -> str:
    """Return the SHA-256 of a journal; empty if there is none.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with opened_plain(path, _MOST_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def damaged_lines(path: Path, kind: type[_T]) -> tuple[int, ...]:
    """The numbers of the lines, counted from 1, that `read` drops.

    Raises:
        InputError: the file cannot be read.
    """
    return tuple(number for number, value in _decoded(path, kind) if isinstance(value, Exception))


def _decoded(path: Path, kind: type[_T]) -> Iterator[tuple[int, _T | Exception]]:
    """Decode the lines of ``path`` that are not empty: their numbers, with their values or errors."""
    for number, line in enumerate(_lines(path), 1):
        if not line:
            continue
        try:
            yield number, decode_json(line, kind)
        except InputError as error:
            yield number, error


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their ends. Of a line that is too long to be one of ours, the rest is dropped.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with opened_plain(path, _MOST_BYTES) as file:
            while line := file.readline(_LONGEST_LINE):
                yield line.rstrip(b"\r\n")
                while line and len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    line = file.readline(_LONGEST_LINE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader, or a crash, sees the old content or the new one and nothing between.

    Raises:
        OSError: the file cannot be written, as on a full disk. The old file is whole.
    """
    replace_parts(path, [content])


def replace_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file at once, as `replace_file` does, by parts that are never held together.

    Raises:
        OSError: the file cannot be written, as on a full disk. The old file is whole.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())  # Else the rename may be on disk before the content is.
        partial.replace(path)
    except OSError as error:
        raise _of(path, error) from error
    finally:
        with suppress(OSError):  # An error that kept it from being written may also keep it from being found.
            partial.unlink()


def check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of something that is none, such as ``/dev/null``: root could do so.

    Raises:
        OSError: it is a pipe or a device, or a link to one, to a directory, or to an open file as ``/dev/stdout`` is.
    """
    with suppress(FileNotFoundError):
        is_open_file = path.is_symlink() and path.readlink().is_relative_to("/proc")
        if is_open_file or not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def create_exclusive(path: Path, content: bytes) -> bytes:
    """Create a file unless there is one. Its directory has to exist.

    Several processes that do so at the same moment all get the whole content of the same one. On a file system without
    links, they may get their own.

    Returns:
        The content of the file.

    Raises:
        OSError: the file cannot be written, as on a full disk. ``filename`` is ``path``.
    """
    own = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        own.write_bytes(content)
        _link(own, path)
        return path.read_bytes()
    except OSError as error:
        raise _of(path, error) from error
    finally:
        own.unlink(missing_ok=True)


def _link(own: Path, path: Path) -> None:
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # A file system without links.
        if not path.exists():
            own.replace(path)


def _of(path: Path, error: OSError) -> OSError:
    """Add the name of the file to an error, as the system does not give it for a write."""
    return OSError(error.errno, error.strerror, os.fspath(path))
