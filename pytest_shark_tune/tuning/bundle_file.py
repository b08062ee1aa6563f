"""The file of a bundle: an archive with a manifest and binaries. Nothing in it is trusted."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.files import check_plain, decode_json

_T = TypeVar("_T")

__all__ = ["BINARY", "BundleFile", "open_bundle", "write_bundle"]

BINARY = ".vmfb"
"""The suffix of a binary's name, which is a key of the cache."""
_MANIFEST = "bundle.json"
_NAME = re.compile(r"[0-9a-f]{64}\.vmfb")
_MOST_BYTES = 1 << 36
_MOST_MEMBER_BYTES = 1 << 31
"""The largest archive, and the largest member, which is read as a whole."""
_DAMAGED = (OSError, tarfile.TarError, ValueError, OverflowError)
"""The errors that reading a damaged or forged archive raises."""


class BundleFile:
    """An archive that has only regular files with known names. No name in it becomes a path on disk."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path = path
        self._tar = tar
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in self._listed():
            if why := _why_refused(member):
                raise InputError(f"{path} is no bundle: its member {member.name!r} {why}")
            if member.name in self._members:
                raise InputError(f"{path} is no bundle: it has two members {member.name!r}")
            self._members[member.name] = member

    @property
    def binaries(self) -> frozenset[str]:
        """The names of the binaries in it."""
        return frozenset(self._members) - {_MANIFEST}

    def manifest(self, kind: type[_T]) -> _T:
        """The manifest, decoded as a ``kind``.

        Raises:
            InputError: it is missing or incomplete, or is none of that kind.
        """
        return decode_json(self._content(_MANIFEST), kind)

    def binary(self, name: str, sha256: str) -> bytes:
        """The content of a binary with the digest ``sha256``.

        Raises:
            InputError: it is missing or incomplete, or has another digest.
        """
        content = self._content(name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(f"{self._path} is damaged: {name} is not what was put into it")
        return content

    def _listed(self) -> list[tarfile.TarInfo]:
        try:
            return self._tar.getmembers()
        except _DAMAGED as error:
            raise InputError(f"{self._path} cannot be read as a bundle: {error}") from error

    def _content(self, name: str) -> bytes:
        content = None
        if (member := self._members.get(name)) and member.size > _MOST_MEMBER_BYTES:
            raise InputError(f"{self._path} is no bundle: its member {name!r} has {member.size} bytes")
        if member:
            try:
                file = self._tar.extractfile(member)
                content = file.read() if file is not None else None
            except _DAMAGED:
                content = None
        if member is None or content is None or len(content) != member.size:
            raise InputError(f"{self._path} is no bundle, or not a whole one: it has no {name}")
        return content


@contextmanager
def open_bundle(path: Path) -> Iterator[BundleFile]:
    """Open the archive at ``path``, which is not compressed.

    Raises:
        InputError: it is no such archive, or has anything but regular files with known names.
    """
    try:
        check_plain(path, _MOST_BYTES)
        tar = tarfile.open(path, "r:")  # noqa: SIM115 - later errors have other messages
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read as a bundle: {error}") from error
    with tar:
        yield BundleFile(path, tar)


def write_bundle(path: Path, manifest: bytes, binaries: Mapping[str, Path]) -> None:
    """Write an archive; ``binaries`` are files by their names in it. Until it is whole, readers see the old one.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with tarfile.open(partial, "w") as tar:
            header = tarfile.TarInfo(_MANIFEST)
            header.size = len(manifest)
            tar.addfile(header, io.BytesIO(manifest))
            for name, file in binaries.items():
                tar.add(file, arcname=name)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _why_refused(member: tarfile.TarInfo) -> str:
    """The reason for refusing a member; empty if it can be in a bundle."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        return "is no regular file"
    if member.name != _MANIFEST and not _NAME.fullmatch(member.name):
        return f"has another name than {_MANIFEST} and KEY{BINARY}"
    return ""
