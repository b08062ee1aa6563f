"""Storage: the message for a user when a directory of the run takes no more."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Storage"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class Storage:
    """The directories that a run writes to.

    Args:
        folders: The directories by the option or variable that names them.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def explain(self, error: BaseException | None) -> str | None:
        """Name the directory that cannot be written to, and the remedy; ``None`` for an error about something else."""
        if not isinstance(error, OSError):
            return None
        problem = error.strerror or str(error)
        if isinstance(error.filename, str):
            path = Path(error.filename)
            for option, folder in self._folders.items():
                if path.is_relative_to(folder):
                    return f"{option}: cannot write to {path}: {problem}; make room in {folder}, or name another folder"
        elif error.errno in _FULL:
            places = ", ".join(f"{folder} ({option})" for option, folder in self._folders.items())
            return f"cannot write: {problem}; make room in {places}"
        return None
