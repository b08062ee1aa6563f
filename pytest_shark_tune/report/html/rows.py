"""The rows that most drawings consist of: a name and a value above, a mark below, and an axis at the bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.report.html.svg import TEXT, WIDTH, Drawing, fit

__all__ = ["LEFT", "RIGHT", "Heading", "Rows"]

LEFT, RIGHT = 6.0, WIDTH - 6.0
"""The ends of the marks."""

_ROW, _LINE, _AXIS, _END = 36.0, 15.0, 24.0, 8.0
"""The height of a row, of one more line in it, of the axis below all rows, and of the space there without one."""
_BASE, _MARK = 13.0, 24.0
_BOLD = 1.12
"""The width of a bold letter by that of a plain one."""


@dataclass(frozen=True)
class Heading:
    """The words above a mark."""

    name: str
    value: str
    kind: str = ""
    """The class of the value; one with a class stands out."""

    @property
    def room(self) -> float:
        """The width that the value leaves for the name."""
        letter = TEXT * _BOLD if self.kind else TEXT
        return RIGHT - LEFT - len(self.value) * letter - 14

    @property
    def is_long(self) -> bool:
        """Whether the value needs a line of its own: ends of names often tell them apart, so none is cut for it."""
        return len(self.name) * TEXT > self.room


class Rows:
    """A drawing of rows.

    Args:
        headings: The words of each row.
        label: The description of the drawing for people who cannot see it.
        has_axis: Whether there is an axis below.
    """

    def __init__(self, headings: Sequence[Heading], label: str, *, has_axis: bool = True) -> None:
        self._headings = headings
        heights = [_ROW + (_LINE if heading.is_long else 0.0) for heading in headings]
        self._tops = list(accumulate(heights, initial=0.0))
        self.drawing = Drawing(self._tops[-1] + (_AXIS if has_axis else _END), label)

    @property
    def bottom(self) -> float:
        """The height at which all rows end."""
        return self._tops[-1]

    def mark_of(self, row: int) -> float:
        """Return the height at which the mark of a row has its middle."""
        return self._tops[row] + _MARK + (_LINE if self._headings[row].is_long else 0.0)

    def add_headings(self) -> None:
        """Add the words. What is drawn before them does not cross them."""
        for top, heading in zip(self._tops, self._headings, strict=False):
            room = RIGHT - LEFT if heading.is_long else heading.room
            shown = fit(heading.name, room)
            self.drawing.text(LEFT, top + _BASE, shown, "name", tip=heading.name if shown != heading.name else "")
            base = top + _BASE + (_LINE if heading.is_long else 0.0)
            self.drawing.text(RIGHT, base, heading.value, f"value {heading.kind}".strip(), anchor="end")

    def add_axis(self, scale: Scale, shown: Callable[[float], str], one: float | None = None) -> None:
        """Add the axis below, with a line through all rows at each tick; ``one`` is a value with a line of its own."""
        bottom = self.bottom + 4
        for tick in scale.ticks():
            place = scale(tick)
            self.drawing.line(place, 4, place, bottom, "grid")
            anchor = "start" if place < LEFT + 12 else "end" if place > RIGHT - 12 else "middle"
            self.drawing.text(place, bottom + 14, shown(tick), "tick", anchor=anchor)
        if one is not None:
            self.drawing.line(scale(one), 4, scale(one), bottom, "one")
