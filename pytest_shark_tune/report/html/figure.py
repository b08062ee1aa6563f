"""Figures of the page: a drawing with its title, a caption and the same values as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Figure", "Table", "interval", "ratio", "us"]


@dataclass(frozen=True)
class Table:
    """A table, which anybody can read who cannot see the drawing."""

    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = field(default=frozenset({0}))
    """The positions of the columns that hold no numbers."""
    strong: frozenset[int] = frozenset()
    """The positions of rows that stand out."""
    note: str = ""
    """A sentence below the table, such as one about rows that are left out."""


@dataclass(frozen=True)
class Figure:
    """A drawing, the values that it shows, and a sentence or two on how to read it."""

    title: str
    caption: str
    svg: str
    """The drawing as XML; empty if the table says it all."""
    table: Table


def us(value: float | None) -> str:
    """Return a time for a table, in microseconds without the unit."""
    return "" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def ratio(value: float | None) -> str:
    """Return a ratio, as in ``1.27x``."""
    return "" if value is None else f"{value:.2f}x"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval of ratios."""
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
