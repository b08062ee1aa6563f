"""The history of guarding: the speed of each entry over the runs, with the steps and drifts in it."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.guard.history import Change, HistoryPoint, changes_in, shown
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading
from pytest_shark_tune.report.html.scale import Scale, ratio_scale
from pytest_shark_tune.report.html.svg import Drawing, fit

__all__ = ["draw_history"]

_ROW, _TOP, _BOTTOM, _LEFT = 140.0, 38.0, 112.0, 40.0
_KINDS = {"kept": "good", "broken": "bad", "undecided": "unsure"}
_CHANGED = "A line from top to bottom marks the first run that shows a change."
_UNCHANGED = "There is no step and no drift in it."
_MOST_SERIES, _MOST_LINES = 40, 200


def draw_history(points: Sequence[HistoryPoint]) -> Figure | None:
    """Return the ratios of each series over the runs; ``None`` if no series has two runs."""
    series: dict[tuple[str, ...], list[HistoryPoint]] = {}
    for point in points:
        series.setdefault(point.series, []).append(point)
    series = {key: one for key, one in series.items() if len(one) > 1}
    if not series:
        return None
    changes = changes_in(points)
    drawn = sorted(series.values(), key=lambda one: one[-1].time, reverse=True)[:_MOST_SERIES]
    drawing = Drawing(len(drawn) * _ROW - 8, "speed of each guarded entry over the runs")
    for row, one in enumerate(drawn):
        _draw(drawing, row, one, [change for change in changes if change.last.series == one[0].series])
    rest = len(series) - len(drawn)
    return Figure(
        "History",
        "The ratio to the default in every run, oldest first, and its interval, in the color of the outcome. "
        f"{_CHANGED if changes else _UNCHANGED}{f' {rest} more series are not drawn.' if rest > 0 else ''}",
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
    top, bottom = row * _ROW + _TOP, row * _ROW + _BOTTOM
    across = Scale(0.0, max(1.0, float(len(series) - 1)), _LEFT + 6, RIGHT - 6)
    vertical = ratio_scale(
        [point.ratio for point in series],
        [bound for point in series for bound in (point.ratio_low, point.ratio_high)],
        bottom,
        top,
    )
    worse = any(change.is_worse for change in changes)
    value = f"{ratio(series[-1].ratio)} ({interval(series[-1].ratio_low, series[-1].ratio_high)})"
    heading = Heading(series[-1].entry, value, "bad" if worse else "")
    base = row * _ROW + 13
    drawing.text(LEFT, base, fit(heading.name, RIGHT - LEFT), "name", tip=heading.name)
    below = base + (15 if heading.is_long else 0)
    drawing.text(RIGHT, below, heading.value, f"value {heading.kind}".strip(), anchor="end")
    for tick in vertical.ticks(3):
        drawing.line(_LEFT, vertical(tick), RIGHT, vertical(tick), "grid")
        drawing.text(_LEFT - 4, vertical(tick) + 4, f"{tick:.3g}x", "tick", anchor="end")
    drawing.line(_LEFT, vertical(1.0), RIGHT, vertical(1.0), "one", "the default")
    for place, point in enumerate(series):
        at, kind = across(place), _KINDS.get(point.outcome, "noise")
        drawing.line(at, vertical(point.ratio_low), at, vertical(point.ratio_high), f"whisker {kind}")
    drawing.polylines([[(across(place), vertical(point.ratio)) for place, point in enumerate(series)]], "link")
    for place, point in enumerate(series):
        tip = f"{point.time} {point.commit[:12]} IREE {point.iree}: {point.ratio:.3f}, {point.us:.1f} us"
        kind = _KINDS.get(point.outcome, "noise")
        drawing.circle(across(place), vertical(point.ratio), 3, f"dot {kind}", tip)
    for change in changes:
        place = next(at for at, point in enumerate(series) if point.run == change.first.run)
        drawing.line(across(place), top, across(place), bottom, "change", shown(change))
    first, last = series[0].time[:10], series[-1].time[:10]
    drawing.text(_LEFT, bottom + 14, first, "tick")
    drawing.text(RIGHT, bottom + 14, f"{last}, {len(series)} runs", "tick", anchor="end")
