"""Tunes IREE dispatches as pytest tests, and keeps what was tuned."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("pytest-shark-tune")
except PackageNotFoundError:  # A checkout on PYTHONPATH, as on a machine that installs nothing.
    __version__ = "0+unknown"
