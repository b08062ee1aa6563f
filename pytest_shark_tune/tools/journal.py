"""The one door to append-only files of JSON lines: a line is whole or it is dropped, with a warning."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TypeVar

import msgspec

__all__ = ["append", "read", "replace_file"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


def append(path: Path, value: object) -> None:
    """Append ``value`` as one line, in one write, so that a crash tears at most the last line.

    After a torn line it starts a new one, lest both be lost.
    """
    line = msgspec.json.encode(value) + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read(path: Path, kind: type[_T]) -> list[_T]:
    """Read every whole line of ``path`` as ``kind``; no file is no lines, a torn line is dropped with a warning."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    values = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            values.append(msgspec.json.decode(line, type=kind))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _logger.warning("%s:%d is not a whole %s and is left out: %s", path, number, kind.__name__, error)
    return values


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
