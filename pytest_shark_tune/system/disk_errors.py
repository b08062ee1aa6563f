"""Storage: the message for a user when a directory of the run takes no more."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Storage"]

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class Storage:
    """The directories that a run writes to.

    Args:
        directories: The directories by the option or variable that names them.
    """

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._directories = directories

    def explain(self, error: BaseException | None) -> str | None:
        """Name the directory that cannot be written to, and the remedy; ``None`` for an error about something else."""
        if not isinstance(error, OSError):
            return None
        problem = error.strerror or str(error)
        if isinstance(error.filename, str):
            path = Path(error.filename)
            for option, directory in self._directories.items():
                if path.is_relative_to(directory):
                    room = "" if error.errno in _ABSENT else f"make room in {directory}, or "
                    return f"{option}: cannot write to {path}: {problem}; {room}name another directory"
        elif error.errno in _FULL:
            places = ", ".join(f"{directory} ({option})" for option, directory in self._directories.items())
            return f"cannot write: {problem}; make room in {places}"
        return None
