"""The only module that reads files from elsewhere: regular files of bounded size, and the JSON in them."""

from __future__ import annotations

import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from pytest_shark_tune.errors import InputError

__all__ = ["MODEL_BYTES", "check_plain", "decode_json", "opened_plain", "read_packed", "read_plain", "read_text"]

_T = TypeVar("_T")
_MOST_BYTES = 1 << 28
"""The largest file that is read, unless a caller says otherwise. Specs with constants have some megabytes."""
_GZIP = b"\x1f\x8b"
"""The first bytes of what gzip compressed."""
_LARGEST = (1 << 63) - 1
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_SHOWN = 20
MODEL_BYTES = 1 << 33
"""The largest model, with its weights."""


def read_plain(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """Read a file from elsewhere. It has to be a regular file of bounded size, since others never end, or never begin.

    Raises:
        OSError: the file cannot be read, or is a pipe, a device or too large. ``strerror`` says which.
    """
    with opened_plain(path, most_bytes) as file:
        content = file.read(most_bytes + 1) if most_bytes <= _MOST_BYTES else file.read()
    if len(content) > most_bytes:  # It has grown since.
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return content


def read_packed(path: Path) -> bytes:
    """Read a file as `read_plain` does, and decompress it if gzip compressed it; the content has the same bound.

    Raises:
        OSError: as `read_plain`.
        InputError: the compressed data is damaged.
    """
    content = read_plain(path)
    if not content.startswith(_GZIP):
        return content
    try:
        content = GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be decompressed: {error}") from error
    if len(content) > _MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return content


@contextmanager
def opened_plain(path: Path, most_bytes: int) -> Iterator[BinaryIO]:
    """Open a file from elsewhere to read it in parts.

    Raises:
        OSError: as `read_plain`.
    """
    descriptor = os.open(_real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        _check_kind(os.fstat(descriptor), path, most_bytes)
        yield file


def check_plain(path: Path, most_bytes: int = MODEL_BYTES) -> None:
    """Refuse a file that `read_plain` would refuse, for a library that reads it by its path.

    Raises:
        OSError: as `read_plain`.
    """
    _check_kind(_real(path).stat(), path, most_bytes)


def read_text(path: Path) -> str:
    """Read a text from elsewhere.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    try:
        return read_plain(path).decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: {error}") from error


def decode_json(content: bytes, kind: type[_T]) -> _T:
    """Decode JSON from elsewhere.

    Raises:
        InputError: it is no JSON, or none of this kind.
    """
    try:
        value = msgspec.json.decode(content, type=kind)
        # A text may hold such numbers, too, so only what looks like one is looked at closely.
        if _LONG_NUMBER in content.translate(_DIGITS):
            _refuse_large(msgspec.json.decode(content))
        return value
    except (msgspec.MsgspecError, InputError, ValueError, OverflowError) as error:
        raise InputError(str(error)) from error
    except RecursionError as error:
        raise InputError("JSON is nested too deeply") from error


def _refuse_large(value: object) -> None:
    """Refuse whole numbers of more than 64 bits: no field needs one, and nothing can write it again."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, int) and not -_LARGEST - 1 <= inner <= _LARGEST:
            raise InputError(f"the number {str(inner)[:_SHOWN]}... has more than 64 bits")
        waiting += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()


def _real(path: Path) -> Path:
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "its name holds a NUL", os.fspath(path))
    return path


def _check_kind(found: os.stat_result, path: Path, most_bytes: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    if found.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: at most {most_bytes} bytes", os.fspath(path))
