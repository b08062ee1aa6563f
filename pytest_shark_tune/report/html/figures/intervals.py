"""Ratios with their intervals, a row each: speedups of dispatches, of models, of forms and of guarded entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_shark_tune.report.html.figure import interval, ratio
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, add_axis, add_heading, height_of, mark_of
from pytest_shark_tune.report.html.scale import ratio_scale
from pytest_shark_tune.report.html.svg import Drawing

__all__ = ["MOST_ROWS", "RatioRow", "draw_ratios"]

MOST_ROWS = 40
"""The most rows of a drawing; the table beside it has all."""


@dataclass(frozen=True)
class RatioRow:
    """A ratio and its interval."""

    name: str
    ratio: float
    low: float | None
    high: float | None
    kind: str
    """The class of the mark: ``good``, ``noise``, ``bad`` or ``base``."""
    remark: str = ""
    """A word that takes the place of the interval at the end of the row."""
    recorded: tuple[float, float] | None = None
    """An earlier interval, drawn behind."""

    @property
    def value(self) -> str:
        """The ratio and its interval as text."""
        bounds = interval(self.low, self.high)
        shown = f"{ratio(self.ratio)}{f' ({bounds})' if bounds else ''}"
        return f"{shown} {self.remark}".strip()


def draw_ratios(rows: Sequence[RatioRow], label: str) -> str:
    """Draw the first `MOST_ROWS` rows over a logarithmic axis on which faster is to the right."""
    rows = rows[:MOST_ROWS]
    bounds = [bound for row in rows for bound in (row.low, row.high, *(row.recorded or ()))]
    scale = ratio_scale((row.ratio for row in rows), bounds, LEFT, RIGHT)
    drawing = Drawing(height_of(len(rows)), label)
    add_axis(drawing, scale, len(rows), lambda tick: f"{tick:.3g}x", one=1.0)
    for position, row in enumerate(rows):
        middle = mark_of(position)
        add_heading(drawing, position, row.name, row.value, row.kind)
        if row.recorded is not None:
            low, high = map(scale, row.recorded)
            drawing.rect(low, middle - 5, high - low, 10, "recorded", f"recorded {interval(*row.recorded)}")
        if row.low is not None and row.high is not None:
            drawing.line(scale(row.low), middle, scale(row.high), middle, f"whisker {row.kind}")
            for bound in (row.low, row.high):
                if scale.low <= bound <= scale.high:
                    drawing.line(scale(bound), middle - 4, scale(bound), middle + 4, f"whisker {row.kind}")
        drawing.circle(scale(row.ratio), middle, 4.5, f"dot {row.kind}", f"{row.name}: {row.value}")
    return drawing.markup()
