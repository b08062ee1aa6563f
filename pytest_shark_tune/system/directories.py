"""The only module that makes directories of our own: no other user can write into them, and they carry a mark.

A run loads code only from directories that no other user could have made or prepared. A run removes only directories
with a mark that this package leaves: a name alone says nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pytest_shark_tune.errors import InputError

__all__ = [
    "PREFIX",
    "HeldDirectory",
    "check_owner",
    "is_marked",
    "make_marked",
    "remove_if_free",
    "temporary_directory",
]

PREFIX = "shark-tune-"
"""The prefix of our temporary directories. Other directories may have it as well."""
_MARK = ".pytest-shark-tune"
_TEXT = "pytest-shark-tune made this folder, and removes it with all that is in it: "
"""The content of the mark. Earlier versions wrote the same, so that their directories are removed, too."""
_NAME_BYTES = 8
_ROOT = 0
_LAST_RESORT = "/tmp"  # noqa: S108 - directories of our own are made in it


class HeldDirectory:
    """A new temporary directory, marked, and locked until it is removed or this process has ended."""

    def __init__(
        self,
        parent: str | os.PathLike[str] | None = None,
        *,
        prefix: str = PREFIX,
        announce: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = make_marked(prefix, parent, announce=announce)
        self._lock = os.open(self.path / _MARK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with suppress(OSError):  # On a file system without locks nothing is ever taken for free.
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the directory, if that has not been done."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.path, ignore_errors=True)


def make_marked(
    prefix: str, parent: str | os.PathLike[str] | None = None, *, announce: Callable[[Path], None] | None = None
) -> Path:
    """Make a directory that only its owner may enter, with our mark. Without ``parent`` it lies in ``TMPDIR``.

    Args:
        prefix: How its name begins. The rest is random, so that nobody can have made it before.
        parent: The directory that it lies in.
        announce: Called with the path before the directory is made, since this process may be killed right after.

    Raises:
        OSError: nothing can be written there. ``filename`` is the directory.
    """
    directory = Path(parent) if parent is not None else temporary_directory()
    try:
        made = directory / f"{prefix}{secrets.token_hex(_NAME_BYTES)}"
        if announce is not None:
            announce(made)
        made.mkdir(mode=0o700)
        directory = made
        (directory / _MARK).write_text(_mark_text(directory), encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(directory)) from error
    return directory


def temporary_directory() -> Path:
    """The directory that ``TMPDIR`` names, even if nothing can be written there; without one, Python's choice.

    Python would use another one instead. The compiler would not, and its messages do not name the variable.
    """
    if given := os.environ.get("TMPDIR", ""):
        return Path(given).absolute()
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # No directory takes a file. The first use of this one says so.
        return Path(_LAST_RESORT)


def is_marked(directory: Path) -> bool:
    """Whether `make_marked` has made ``directory`` for this user, under this name."""
    with _marked(directory) as mark:
        return mark is not None


def remove_if_free(directory: Path) -> None:
    """Remove a directory if it carries our mark and no living process holds it."""
    with _marked(directory) as mark:
        if mark is None:
            return
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(directory, ignore_errors=True)


def check_owner(directory: Path) -> None:
    """Refuse to load code from a directory of another user.

    A directory that does not exist yet is for us to make. Root may do anything anyway, so root's files are as good as
    ours.

    Raises:
        InputError: the directory, or a link to it, belongs to another user, or everybody may write into it.
    """
    try:
        found, itself = directory.stat(), directory.lstat()
    except OSError:  # The use of the directory reports this.
        return
    for state, name in ((itself, "the link "), (found, "")):
        if state.st_uid not in (os.geteuid(), _ROOT):
            raise InputError(
                f"{name if stat.S_ISLNK(state.st_mode) else ''}{directory} is another user's (id {state.st_uid}), who "
                "could have this run load code from there: name a directory of your own"
            )
    if found.st_mode & stat.S_IWOTH:
        raise InputError(
            f"every user may write to {directory}, and could have this run load code from there: name a directory in "
            f"it, or another one, or take that right away (chmod o-w {directory})"
        )


@contextmanager
def _marked(directory: Path) -> Iterator[int | None]:
    """Open the mark of a directory; ``None`` if it has none that we left for this user."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with ExitStack() as opened:
        mark: int | None = None
        with suppress(OSError):
            itself = os.open(directory, flags | os.O_DIRECTORY)
            opened.callback(os.close, itself)
            mark = os.open(_MARK, flags, dir_fd=itself)
            opened.callback(os.close, mark)
            text = _mark_text(directory).encode()
            if not (
                _belongs_to_user(os.fstat(itself))
                and _belongs_to_user(os.fstat(mark))
                and os.read(mark, len(text) + 1) == text
            ):
                mark = None
        yield mark


def _belongs_to_user(found: os.stat_result) -> bool:
    """Whether a file or directory belongs to this user, and nobody else may write to it."""
    is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_plain and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _mark_text(directory: Path) -> str:
    return f"{_TEXT}{directory.name}\n"
