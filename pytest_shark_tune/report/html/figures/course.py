"""The course of a search: the best ratio so far against the number of trials and against their time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.report.html.figure import Figure, Table, ratio
from pytest_shark_tune.report.html.scale import Scale, usable
from pytest_shark_tune.report.html.svg import WIDTH, Drawing
from pytest_shark_tune.report.html.view import DispatchView
from pytest_shark_tune.system.units import format_us

__all__ = ["draw_course"]

_HEIGHT, _TOP, _BOTTOM = 210.0, 12.0, 172.0
_LEFT, _GAP = 34.0, 18.0
_FAR = 6.0
"""A ratio so much lower than the best is drawn at the bottom."""


def draw_course(view: DispatchView) -> Figure | None:
    """Return the course of a dispatch's search; ``None`` if nothing was measured."""
    candidates = view.candidates
    ratios = [_ratio(record) for record in candidates]
    measured = usable(ratios)
    if not measured:
        return None
    spent_s = list(accumulate(record.cost_s(1) for record in candidates))
    best = max(measured)
    low, high = max(min(measured), best / _FAR), max(best, 1.0)
    vertical = Scale(min(low, 1.0) / 1.05, high * 1.05, _BOTTOM, _TOP, is_log=True)
    drawing = Drawing(_HEIGHT, f"best ratio so far of {view.name}, by trials and by time")
    width = (WIDTH - _LEFT - _GAP - 8) / 2
    trials = Scale(0.0, float(len(candidates)), _LEFT, _LEFT + width)
    seconds = Scale(0.0, spent_s[-1] or 1.0, _LEFT + width + _GAP, WIDTH - 8)
    for tick in vertical.ticks(5):
        drawing.line(_LEFT, vertical(tick), WIDTH - 8, vertical(tick), "grid")
        drawing.text(_LEFT - 4, vertical(tick) + 4, f"{tick:.3g}x", "tick", anchor="end")
    drawing.line(_LEFT, vertical(1.0), WIDTH - 8, vertical(1.0), "one", "the default")
    numbers = [float(number) for number in range(1, len(candidates) + 1)]
    for scale, places, name in ((trials, numbers, "trials"), (seconds, spent_s, "time of trials")):
        _panel(drawing, scale, vertical, places, ratios)
        for tick in scale.ticks(4):
            shown = f"{tick:g}" if name == "trials" else format_us(tick * 1e6) if tick else "0"
            drawing.text(scale(tick), _BOTTOM + 16, shown, "tick", anchor="middle")
        drawing.text((scale.start + scale.end) / 2, _BOTTOM + 32, name, "tick", anchor="middle")
    return Figure(
        "Best so far",
        "The line is the best ratio to the default so far, a dot is a measured candidate, and a mark at the bottom one "
        "that failed. The time of a trial is that of compiling and timing it, as far as it is on record.",
        drawing.markup(),
        Table(("trial", "id", "time so far s", "ratio"), _improvements(candidates, ratios, spent_s), frozenset({1})),
    )


def _panel(
    drawing: Drawing, scale: Scale, vertical: Scale, places: Sequence[float], ratios: Sequence[float | None]
) -> None:
    line: list[tuple[float, float]] = []
    dots: list[tuple[float, float]] = []
    failed: list[list[tuple[float, float]]] = []
    best = 0.0
    for place, value in zip(places, ratios, strict=True):
        if value is None:
            failed.append([(scale(place), _BOTTOM - 4), (scale(place), _BOTTOM)])
            continue
        dots.append((scale(place), vertical(value)))
        if value > best:
            line += [(scale(place), vertical(best))] if best else []
            line.append((scale(place), vertical(value)))
            best = value
    line.append((scale(places[-1]), vertical(best)))
    drawing.polylines(failed, "failed")
    drawing.dots(dots, "base")
    drawing.polylines([line], "course")


def _ratio(record: Record) -> float | None:
    return next(iter(usable([record.ratio])), None) if record.state is State.MEASURED else None


def _improvements(
    candidates: Sequence[Record], ratios: Sequence[float | None], spent_s: Sequence[float]
) -> list[tuple[str, ...]]:
    """Return a row for each candidate that was the best so far."""
    rows: list[tuple[str, ...]] = []
    best = 0.0
    for number, (record, value, seconds) in enumerate(zip(candidates, ratios, spent_s, strict=True), 1):
        if value is not None and value > best:
            best = value
            rows.append((str(number), record.id, f"{seconds:.1f}", ratio(value)))
    return rows
