"""The history of guarding: the speed of each entry over the runs, with the steps and drifts in it."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.guard.history import Change, HistoryPoint, changes_in, shown
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.rows import AXIS, LEFT, RIGHT
from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.report.html.svg import Drawing

__all__ = ["draw_history"]

_ROW, _TOP, _BOTTOM = 84.0, 20.0, 78.0
_MOST_SERIES, _MOST_LINES = 40, 200


def draw_history(points: Sequence[HistoryPoint]) -> Figure | None:
    """Return the ratios of each series over the runs; ``None`` without a history."""
    series: dict[tuple[str, ...], list[HistoryPoint]] = {}
    for point in points:
        series.setdefault(point.series, []).append(point)
    if not series:
        return None
    changes = changes_in(points)
    drawn = sorted(series.values(), key=lambda one: one[-1].time, reverse=True)[:_MOST_SERIES]
    drawing = Drawing(len(drawn) * _ROW + AXIS, "speed of each guarded entry over the runs")
    for row, one in enumerate(drawn):
        _draw(drawing, row, one, [change for change in changes if change.last.series == one[0].series])
    rest = len(series) - len(drawn)
    told = "; ".join(map(shown, changes)) or "There is no step and no drift in it"
    return Figure(
        "History",
        "The ratio to the default in every run, oldest first, and its interval. A line marks the first run that shows "
        f"a change. {told}.{f' {rest} more series are not drawn.' if rest > 0 else ''}",
        drawing.markup(),
        Table(
            ("time", "run", "commit", "IREE", "entry", "ratio", "interval", "us", "default us", "outcome"),
            [
                (
                    point.time,
                    point.run,
                    point.commit[:12],
                    point.iree,
                    point.entry,
                    ratio(point.ratio),
                    interval(point.ratio_low, point.ratio_high),
                    us(point.us),
                    us(point.default_us),
                    point.outcome,
                )
                for point in points[-_MOST_LINES:]
            ],
            words=frozenset({0, 1, 2, 3, 4, 6, 9}),
        ),
    )


def _draw(drawing: Drawing, row: int, series: Sequence[HistoryPoint], changes: Sequence[Change]) -> None:
    top = row * _ROW
    drawing_of = Scale(0.0, max(1.0, float(len(series) - 1)), LEFT + 4, RIGHT - 4)
    ratios = [point.ratio for point in series]
    low, high = min(ratios), max(ratios)
    room = max(0.02, (high - low) / 2)
    vertical = Scale(low - room, high + room, top + _BOTTOM, top + _TOP)
    worse = any(change.is_worse for change in changes)
    drawing.text(LEFT, top + 13, series[-1].entry, "name")
    drawing.text(RIGHT, top + 13, f"{ratios[-1]:.2f}x", f"value {'bad' if worse else ''}".strip(), anchor="end")
    drawing.polylines([[(drawing_of(place), vertical(value)) for place, value in enumerate(ratios)]], "course")
    for place, point in enumerate(series):
        tip = f"{point.time} {point.commit[:12]} IREE {point.iree}: {point.ratio:.3f}, {point.us:.1f} us"
        drawing.line(
            drawing_of(place), vertical(point.ratio_low), drawing_of(place), vertical(point.ratio_high), "grid"
        )
        drawing.circle(drawing_of(place), vertical(point.ratio), 2.5, "base", tip)
    for change in changes:
        place = next(at for at, point in enumerate(series) if point.run == change.first.run)
        drawing.line(drawing_of(place), top + _TOP, drawing_of(place), top + _BOTTOM, "one", shown(change))
