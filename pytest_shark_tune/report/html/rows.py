"""The rows that most drawings consist of: a name and a value above, a mark below, and an axis at the bottom."""

from __future__ import annotations

from collections.abc import Callable

from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.report.html.svg import TEXT, WIDTH, Drawing, fit

__all__ = ["AXIS", "LEFT", "RIGHT", "ROW", "add_axis", "add_heading", "height_of", "mark_of"]

ROW = 36.0
"""The height of a row: two lines."""
AXIS = 24.0
"""The height of the axis below all rows."""
LEFT, RIGHT = 6.0, WIDTH - 6.0
"""The ends of the marks."""

_BASE, _MARK = 13.0, 24.0
_BOLD = 1.12
"""The width of a bold letter by that of a plain one."""


def height_of(count: int) -> float:
    """Return the height of a drawing of so many rows."""
    return count * ROW + AXIS


def mark_of(row: int) -> float:
    """Return the height at which the mark of a row has its middle."""
    return row * ROW + _MARK


def add_heading(drawing: Drawing, row: int, name: str, value: str, kind: str = "") -> None:
    """Add the first line of a row: its name to the left, its value to the right."""
    base = row * ROW + _BASE
    letter = TEXT * _BOLD if kind else TEXT  # Values of a kind stand out.
    shown = fit(name, RIGHT - LEFT - len(value) * letter - 14)
    drawing.text(LEFT, base, shown, "name", tip=name if shown != name else "")
    drawing.text(RIGHT, base, value, f"value {kind}".strip(), anchor="end")


def add_axis(
    drawing: Drawing, scale: Scale, count: int, shown: Callable[[float], str], one: float | None = None
) -> None:
    """Add the axis below ``count`` rows, with a line through all of them at each tick; ``one`` is a line of its own."""
    bottom = count * ROW + 4
    for tick in scale.ticks():
        place = scale(tick)
        drawing.line(place, 4, place, bottom, "grid")
        anchor = "start" if place < LEFT + 12 else "end" if place > RIGHT - 12 else "middle"
        drawing.text(place, bottom + 14, shown(tick), "tick", anchor=anchor)
    if one is not None:
        drawing.line(scale(one), 4, scale(one), bottom, "one")
