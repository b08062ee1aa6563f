"""The driver's cache of compiled code: the user's own, or the run's where that one is off, full or read-only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_environment"]

_USUAL = "~/.nv/ComputeCache"
_USUAL_BYTES = 1 << 30
_OWN_BYTES = 1 << 30
_FEWEST_BYTES = 64 << 20
"""A cache that holds less than the code of some hundred candidates does not count."""
_FULL = 0.9


def cache_environment(driver: str, directory: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that let CUDA keep compiled code in ``directory``; none if the user's cache serves.

    Args:
        driver: The runtime's driver. Others than ``cuda`` need nothing.
        directory: A directory of the run.
        environment: The variables of this process.
    """
    if driver != "cuda" or _serves(environment):
        return {}
    return {"CUDA_CACHE_DISABLE": "0", "CUDA_CACHE_PATH": str(directory), "CUDA_CACHE_MAXSIZE": str(_OWN_BYTES)}


def _serves(environment: Mapping[str, str]) -> bool:
    """Whether the user's cache is on, has room and can be written."""
    if environment.get("CUDA_CACHE_DISABLE", "0") not in ("", "0"):
        return False
    try:
        most = int(environment.get("CUDA_CACHE_MAXSIZE") or _USUAL_BYTES)
    except ValueError:
        most = _USUAL_BYTES
    path = Path(environment.get("CUDA_CACHE_PATH") or Path(_USUAL).expanduser())
    if most < _FEWEST_BYTES or not _can_be_written(path):
        return False
    return _size(path) < _FULL * most


def _can_be_written(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _size(path: Path) -> int:
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(directory, name).lstat().st_size
            except OSError:  # The driver removes files at any time.
                continue
    return total
