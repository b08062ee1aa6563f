"""Dry runs: those in which pytest only shows what there is, and nothing is to be written."""

from __future__ import annotations

import pytest

__all__ = ["is_dry"]

_DRY = (
    "collectonly",
    "setupplan",
    "setuponly",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
    "markers",
    "help",
    "version",
)
"""pytest's options, by the names of their values, with which it only shows what there is."""


def is_dry(config: pytest.Config) -> bool:
    """Whether this run of pytest only shows tests, fixtures or the like, so that nothing is to be written."""
    return any(getattr(config.option, name, None) for name in _DRY)
