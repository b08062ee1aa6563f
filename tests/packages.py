"""Packages of other people, installed for one test."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["install_package"]


def install_package(
    directory: Path, name: str, code: str, entries: Mapping[str, Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Install a package of one module ``name``, with entry points by group and name that name what is in it."""
    (directory / f"{name}.py").write_text(code)
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, points in entries.items():
        lines += [f"[{group}]", *(f"{point} = {name}:{value}" for point, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(directory)
