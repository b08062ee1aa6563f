"""The one door to what is kept between runs: values by content, under one folder that runs may share."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import filelock
import msgspec

from pytest_shark_tune.tools.journal import replace_file
from pytest_shark_tune.tools.lock import FileLock

__all__ = ["Cache", "code_key", "content_key"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


def content_key(*parts: object) -> str:
    """A hash of ``parts``, each of them plain data; equal parts have equal keys in every process."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


@cache
def code_key() -> str:
    """A hash of this package's own code: what it derives from the same input changes with it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Cache:
    """Values and files by kind and content key; what cannot be read any more counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, kind: str, key: str, suffix: str) -> Path:
        """The path where the file of ``key`` lies, or would lie; its folder exists."""
        path = self.folder / kind / key[:2] / f"{key}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lock(self, kind: str, key: str) -> FileLock:
        """A lock for whoever makes the value or the file of ``key``; its file goes with it."""
        return FileLock(self.file(kind, key, ".making"), remove=True)

    def get(self, kind: str, key: str, value_type: type[_T]) -> _T | None:
        """The value kept for ``key``, or ``None``."""
        path = self.file(kind, key, ".json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=value_type)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _logger.warning("%s is left out: %s", path, error)
            return None

    def put(self, kind: str, key: str, value: object) -> None:
        """Keep ``value`` for ``key``; whoever reads meanwhile sees the old value or the new one."""
        replace_file(self.file(kind, key, ".json"), msgspec.json.encode(value))

    def get_or_make(self, kind: str, key: str, value_type: type[_T], make: Callable[[], _T]) -> _T:
        """The value of ``key``, made by one process while the others that ask for it wait."""
        value = self.get(kind, key, value_type)
        if value is not None:
            return value
        with filelock.FileLock(self.file(kind, key, ".lock")):
            value = self.get(kind, key, value_type)
            if value is None:
                value = make()
                self.put(kind, key, value)
            return value
