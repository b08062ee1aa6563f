from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.system.files import check_plain, decode_json, read_plain, read_text


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2 << 30)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (Path.mkdir, "Is a directory"),
    "pipe": (os.mkfifo, "it is no regular file"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
    "loop of links": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "2 GiB of nothing": (sparse, "File too large: at most 1000 bytes"),
    "missing": (lambda path: None, "No such file or directory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_of_bounded_size_are_read(kind: str, tmp_path: Path) -> None:
    make, reason = KINDS[kind]
    path = tmp_path / "file"
    make(path)
    for read in (read_plain, check_plain):
        with pytest.raises(OSError, match=reason):
            read(path, 1000)
    if kind != "2 GiB of nothing":
        with pytest.raises(InputError, match=re.escape(f"{path} cannot be read: {reason}")):
            read_text(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_is_none_is_told(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read: (File name too long|its name holds a NUL)"):
        read_text(Path(name))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"root": ' * 100_000, b"9" * 400, b"\xff", b"", b"1e999", b"{}"])
def test_json_that_is_none_is_told(content: bytes) -> None:
    with pytest.raises(InputError):
        decode_json(content, WinnerRecord)
