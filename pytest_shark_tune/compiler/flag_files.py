"""Flag files: the files that flags for iree-compile name, by content, since the compiler reads them with a source.

No list of flags says which of them name files, so all parts of values that are paths of files count. A file too many in
a key costs a compilation. A missing file would serve binaries that were made of other content.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

__all__ = ["FlagFile", "changed_files", "flag_files"]

_SEPARATORS = re.compile(r"""[=,;:@|{}()<>\[\]"'\\\s]""")
_LONGEST = 12
"""The most separators inside of a path, such as blanks."""
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)+)"')
_TEXT_BYTES = 1 << 20
"""Larger files are neither specs nor lists, and are not searched for names of more files."""
_WRITTEN = re.compile(
    r"^(o|mlir-pass-pipeline-crash-reproducer|(.*-)?(write|dump|print|dot|dotcfg|dotgraph|export|splat|output|listing"
    r"|statistics|crash-diagnostics|stack-usage|actions-to)(-.*)?)$"
)
"""Flags that name outputs of the compiler, which change with every compilation and do not influence it."""


class FlagFile(msgspec.Struct, frozen=True, order=True):
    """A file, or a whole directory, with the name that a flag or another such file gives it."""

    name: str
    sha256: str
    is_directory: bool = False


def flag_files(flags: Sequence[str]) -> tuple[FlagFile, ...]:
    """Find the files and directories that ``flags`` name, and those that these files name in turn, sorted by name.

    Relative names start at this process's directory, as for iree-compile. A response file (``@FILE``) holds flags. In
    other texts, quoted strings and whole lines may be names. A directory counts with its contents, without hidden
    files.
    """
    found: dict[str, FlagFile] = {}
    _add_flags(flags, found)
    return tuple(sorted(found.values()))


def changed_files(known: Iterable[FlagFile]) -> list[str]:
    """The names of the files that have changed. Directories are left out."""
    return [file.name for file in known if not file.is_directory and _state_digest(Path(file.name)) != file.sha256]


def _add_flags(flags: Iterable[str], found: dict[str, FlagFile]) -> None:
    names_output = False
    for flag in flags:
        is_option = flag.startswith("-")
        option, equals, value = flag.partition("=") if is_option else ("", "", flag)
        holds_flags = flag.startswith("@")
        is_output = bool(_WRITTEN.match(option.lstrip("-"))) if is_option else names_output and not holds_flags
        # The value of a flag may be the next word.
        names_output = is_output and is_option and not equals
        if not is_output:
            _add_names(value, found, in_flag=True, holds_flags=holds_flags)


def _add_names(text: str, found: dict[str, FlagFile], *, in_flag: bool, holds_flags: bool = False) -> None:
    for name in _paths(text):
        if name in found:
            continue
        path = Path(name)
        if path.is_file():
            found[name] = FlagFile(name, _state_digest(path))
            if holds_flags:
                _add_flags(_words(_file_text(path)), found)
            else:
                for part in _parts(_file_text(path)):
                    _add_names(part, found, in_flag=False)
        elif in_flag and path.is_dir() and path.resolve() != Path(path.resolve().anchor):
            found[name] = FlagFile(name, _digest_of_directory(path), is_directory=True)


def _paths(text: str) -> Iterator[str]:
    """The parts of ``text`` between separators that are existing paths."""
    bounds = [-1, *(match.start() for match in _SEPARATORS.finditer(text)), len(text)]
    for place, start in enumerate(bounds):
        for end in bounds[place + 1 : place + 1 + _LONGEST]:
            name = text[start + 1 : end]
            if name and name == name.strip() and "\0" not in name and _exists(name):
                yield name


def _exists(name: str) -> bool:
    try:
        Path(name).stat()
    except OSError:  # The name is too long, for example.
        return False
    return True


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # A quotation is not closed.
        return text.split()


def _parts(text: str) -> Iterator[str]:
    """The parts of a text that may be names of files, or hold some."""
    for line in text.splitlines():
        if not (strings := _STRING.findall(line)):
            strings = [line.strip()] if _exists(line.strip()) else []
        yield from strings


def _file_text(path: Path) -> str:
    """The content of a file; empty if it is no text or too long."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= _TEXT_BYTES else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _digest_of_directory(directory: Path) -> str:
    digest = hashlib.sha256()
    seen = set()
    for root, directories, files in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(name for name in directories if not name.startswith((".", "__pycache__")))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                digest.update(
                    f"{path.relative_to(directory)}\0{_state_digest(path)}\n".encode(errors="surrogateescape")
                )
    return digest.hexdigest()


def _state_digest(path: Path) -> str:
    """A hash of a file's content; empty if it cannot be read, as pipes and devices, which may have no end."""
    try:
        found = path.stat()
        if not path.is_file():
            return ""
        return _digest_of(os.path.realpath(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=4096)  # Parameters may be gigabytes.
def _digest_of(path: str, *state: int) -> str:
    """A hash of a file's content. ``state`` is that of its inode, which changes with the content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
