"""Ratios with their intervals, a row each: speedups of dispatches, of models, of forms and of guarded entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_shark_tune.report.html.figure import interval, ratio
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import ratio_scale

__all__ = ["MOST_ROWS", "RatioRow", "draw_ratios"]

MOST_ROWS = 24
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
    """A word about the ratio, which is shown beside the pointer: its kind shows in the color."""
    recorded: tuple[float, float] | None = None
    """An earlier interval, drawn behind."""

    @property
    def value(self) -> str:
        """The ratio and its interval as text."""
        bounds = interval(self.low, self.high)
        return f"{ratio(self.ratio)}{f' ({bounds})' if bounds else ''}"


def draw_ratios(rows: Sequence[RatioRow], label: str) -> str:
    """Draw the first `MOST_ROWS` rows over a logarithmic axis on which faster is to the right."""
    rows = rows[:MOST_ROWS]
    bounds = [bound for row in rows for bound in (row.low, row.high, *(row.recorded or ()))]
    scale = ratio_scale((row.ratio for row in rows), bounds, LEFT, RIGHT)
    laid = Rows([Heading(row.name, row.value, row.kind) for row in rows], label)
    drawing = laid.drawing
    laid.add_axis(scale, lambda tick: f"{tick:.3g}x", one=1.0)
    laid.add_headings()
    for position, row in enumerate(rows):
        middle = laid.mark_of(position)
        if row.recorded is not None:
            low, high = map(scale, row.recorded)
            drawing.rect(low, middle - 5, high - low, 10, "recorded", f"recorded {interval(*row.recorded)}")
        if row.low is not None and row.high is not None:
            drawing.line(scale(row.low), middle, scale(row.high), middle, f"whisker {row.kind}")
            for bound in (row.low, row.high):
                if scale.low <= bound <= scale.high:
                    drawing.line(scale(bound), middle - 4, scale(bound), middle + 4, f"whisker {row.kind}")
        tip = f"{row.name}: {row.value} {row.remark}".strip()
        drawing.circle(scale(row.ratio), middle, 4.5, f"dot {row.kind}", tip)
    return drawing.markup()
