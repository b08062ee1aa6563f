"""The one door to folders of our own: nobody else can write into them, and a mark tells them from everybody else's.

What a run loads as code lies in a folder that no other user could have made, or made ready, for it. What a run removes
carries a mark that only we leave: a name alone says nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pytest_shark_tune.errors import InputError

__all__ = ["PREFIX", "HeldFolder", "check_owner", "is_marked", "make_marked", "remove_if_free"]

PREFIX = "shark-tune-"
"""How our temporary folders are called, which somebody else's may be as well."""
_MARK = ".pytest-shark-tune"
_TEXT = "pytest-shark-tune made this folder, and removes it with all that is in it: "
_ROOT = 0


class HeldFolder:
    """A new temporary folder, marked, and locked until it is removed or this process has ended."""

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        self.path = make_marked(PREFIX, parent)
        self._lock = os.open(self.path / _MARK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it; to remove it again changes nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        shutil.rmtree(self.path, ignore_errors=True)


def make_marked(prefix: str, parent: str | os.PathLike[str] | None = None) -> Path:
    """A new folder that only its owner may enter, with our mark; without ``parent`` it lies in ``TMPDIR``."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    (folder / _MARK).write_text(_text(folder), encoding="utf-8")
    return folder


def is_marked(folder: Path) -> bool:
    """Whether ``folder`` is one that `make_marked` has made for this user, under this name."""
    with _marked(folder) as mark:
        return mark is not None


def remove_if_free(folder: Path) -> None:
    """Remove ``folder`` if it carries our mark and no living process holds it."""
    with _marked(folder) as mark:
        if mark is None:
            return
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)


def check_owner(folder: Path) -> None:
    """Refuse a folder that code is to be loaded from, where another user may have put it there.

    One that is not there yet is for us to make. Root may do anything anyway, so what is root's is as good as ours.

    Raises:
        InputError: it is, or is reached by a link that is, another user's, or everybody may write into it.
    """
    try:
        found, itself = folder.stat(), folder.lstat()
    except OSError:  # Whoever needs it is told why it cannot be used.
        return
    for each, name in ((itself, "the link "), (found, "")):
        if each.st_uid not in (os.geteuid(), _ROOT):
            raise InputError(
                f"{name if stat.S_ISLNK(each.st_mode) else ''}{folder} is another user's (id {each.st_uid}), who could "
                "have this run load code from there: name a folder of your own"
            )
    if found.st_mode & stat.S_IWOTH:
        raise InputError(
            f"every user may write to {folder}, and could have this run load code from there: name a folder in it, or "
            f"another one, or take that right away (chmod o-w {folder})"
        )


@contextmanager
def _marked(folder: Path) -> Iterator[int | None]:
    """A descriptor of a folder's mark; ``None`` where it has none that we left for this user."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with ExitStack() as opened:
        mark: int | None = None
        with suppress(OSError):
            itself = os.open(folder, flags | os.O_DIRECTORY)
            opened.callback(os.close, itself)
            mark = os.open(_MARK, flags, dir_fd=itself)
            opened.callback(os.close, mark)
            text = _text(folder).encode()
            if not (_is_ours(os.fstat(itself)) and _is_ours(os.fstat(mark)) and os.read(mark, len(text) + 1) == text):
                mark = None
        yield mark


def _is_ours(found: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_plain and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _text(folder: Path) -> str:
    return f"{_TEXT}{folder.name}\n"
