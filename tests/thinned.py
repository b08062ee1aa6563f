"""Parametrized tests of which a plain run takes some cases: the others are slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["thinned"]


def thinned(cases: Iterable[Any], every: int, ids: Iterable[str] = ()) -> list[Any]:
    """The cases for `pytest.mark.parametrize`; all but the first of ``every`` in a row are slow.

    Args:
        cases: The cases: values, tuples of values, or what `pytest.param` returns.
        every: How many of them a plain run takes one of.
        ids: Their ids, where they are not those of pytest.
    """
    names: list[str | None] = [*ids]
    made = []
    for place, case in enumerate(cases):
        given = case if hasattr(case, "marks") else pytest.param(*(case if isinstance(case, tuple) else (case,)))
        marks = [*given.marks, *([pytest.mark.slow] if place % every else [])]
        made.append(pytest.param(*given.values, id=names[place] if names else given.id, marks=marks))
    return made
