"""Knobs and ratios: parallel coordinates, and a slice for each knob."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count

from pytest_shark_tune.records.types import Record
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.scale import Scale, usable
from pytest_shark_tune.report.html.svg import WIDTH, Drawing, fit
from pytest_shark_tune.report.html.view import DispatchView
from pytest_shark_tune.search.importance import PIPELINE

__all__ = ["candidate_table", "draw_parallel", "draw_slices", "varying_knobs"]

Values = Mapping[str, int | str]
"""The knobs of a candidate, and its pipeline under a name of its own."""

_MOST_AXES, _MOST_SLICES = 9, 12
_MOST_VALUES = 9
_CLASSES = ("q0", "q1", "q2", "q3")
"""The classes of candidates from the slowest half to the fastest tenth."""
_PARTS = (0.5, 0.75, 0.9)
_MOST_ROWS = 150


def varying_knobs(records: Sequence[Record], ranks: Mapping[str, float]) -> list[str]:
    """Return the knobs that have several values in ``records``, the most important first; unranked ones come last."""
    found: dict[str, set[int | str]] = defaultdict(set)
    for record in records:
        for name, value in _values(record).items():
            found[name].add(value)
    names = [name for name, values in found.items() if len(values) > 1]
    return sorted(names, key=lambda name: (-ranks.get(name, -1.0), list(found).index(name)))


def draw_parallel(view: DispatchView, knobs: Sequence[str]) -> Figure | None:
    """Return the parallel coordinates of the measured candidates; ``None`` if no knob has several values."""
    records, axes = view.measured, knobs[:_MOST_AXES]
    if not axes or len(records) < 2:
        return None
    top, bottom = 40.0, 210.0
    drawing = Drawing(226.0, f"knobs of the candidates of {view.name}, each a line to its ratio")
    places = Scale(0.0, float(len(axes)), 26.0, WIDTH - 36.0)
    scales = {
        name: _Axis([value for record in records if (value := _values(record).get(name)) is not None]) for name in axes
    }
    ratios = usable(record.ratio for record in records)
    vertical = Scale(min(ratios) / 1.02, max(ratios) * 1.02, bottom, top, is_log=True)
    lines: dict[str, list[list[tuple[float, float]]]] = {kind: [] for kind in _CLASSES}
    kinds = _kinds(records)
    for record in records:
        values = _values(record)
        line = [
            (places(at), scales[name].place(values[name], bottom, top))
            for at, name in enumerate(axes)
            if name in values
        ]
        lines[kinds[record.id]].append([*line, (places(len(axes)), vertical(record.ratio or 1.0))])
    for kind in _CLASSES:
        drawing.polylines(lines[kind], f"line {kind}")
    for at, name in enumerate([*axes, "ratio"]):
        place = places(at)
        drawing.line(place, top, place, bottom, "axis")
        shown = fit(name, 70)
        drawing.text(place, 13 if at % 2 == 0 else 28, shown, "tick name", anchor="middle", tip=name)
        if name == "ratio" and at == len(axes):
            for tick in vertical.ticks(5):
                drawing.text(place + 5, vertical(tick) + 4, f"{tick:.3g}x", "tick")
        else:
            for value in scales[name].shown(_MOST_VALUES):
                drawing.text(place + 3, scales[name].place(value, bottom, top) + 4, fit(str(value), 40), "tick halo")
    rest = len(knobs) - len(axes)
    return Figure(
        "Parallel coordinates",
        "A line is a candidate: its value of each knob, and its ratio to the default at the right. The strongest lines "
        f"are the fastest tenth.{f' {rest} less important knobs are in the table.' if rest > 0 else ''}",
        drawing.markup(),
        candidate_table(view),
    )


def draw_slices(view: DispatchView, knobs: Sequence[str]) -> Figure | None:
    """Return the ratios by the value of each knob; ``None`` if no knob has several values."""
    records, shown = view.measured, knobs[:_MOST_SLICES]
    if not shown or len(records) < 2:
        return None
    columns, width, height = 3, WIDTH / 3, 112.0
    drawing = Drawing(height * -(-len(shown) // columns), f"ratios of the candidates of {view.name} by each knob")
    ratios = usable(record.ratio for record in records)
    kinds = _kinds(records)
    rows = []
    for name, number in zip(shown, count()):
        left, top = number % columns * width, number // columns * height
        axis = _Axis([value for record in records if (value := _values(record).get(name)) is not None])
        vertical = Scale(min(ratios) / 1.02, max(ratios) * 1.02, top + height - 26, top + 20, is_log=True)
        drawing.text(left + 36, top + 13, fit(name, width - 40), "tick name", tip=name)
        drawing.line(left + 35, top + height - 24, left + width - 6, top + height - 24, "axis")
        for tick in vertical.ticks(3)[:3]:
            drawing.line(left + 35, vertical(tick), left + width - 6, vertical(tick), "grid")
            drawing.text(left + 32, vertical(tick) + 3.5, f"{tick:.2g}x", "tick small", anchor="end")
        dots: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _CLASSES}
        of_values: dict[int | str, list[float]] = defaultdict(list)
        for record in records:
            value = _values(record).get(name)
            if value is None or record.ratio is None:
                continue
            of_values[value].append(record.ratio)
            dots[kinds[record.id]].append((axis.place(value, left + 44, left + width - 14), vertical(record.ratio)))
        for kind in _CLASSES:
            drawing.dots(dots[kind], kind)
        for value in axis.shown(max(2, int((width - 58) / (6 * min(axis.letters, 6) + 8)))):
            place = axis.place(value, left + 44, left + width - 14)
            drawing.text(place, top + height - 11, fit(str(value), 34), "tick small", anchor="middle")
        for value, found in sorted(of_values.items(), key=lambda item: axis.order(item[0])):
            middle = statistics.median(found)
            place = axis.place(value, left + 44, left + width - 14)
            drawing.line(place - 6, vertical(middle), place + 6, vertical(middle), "median", f"median {middle:.2f}x")
            rows.append((name, str(value), str(len(found)), ratio(middle), ratio(max(found))))
    return Figure(
        "Slices",
        "Each dot is a candidate: its ratio to the default by its value of a knob, with the median of each value as a "
        "line. Other knobs differ from dot to dot. The most important knobs come first.",
        drawing.markup(),
        Table(("knob", "value", "candidates", "median ratio", "best ratio"), rows, words=frozenset({0})),
    )


def candidate_table(view: DispatchView) -> Table:
    """Return the candidates of a dispatch as a table, the fastest first and those that failed last."""
    names = sorted({name for record in view.candidates for name in record.knobs})
    numbers = {record.id: number for number, record in enumerate(view.candidates, 1)}
    records = sorted(view.candidates, key=lambda record: -(record.ratio or 0.0))
    rest = len(records) - _MOST_ROWS
    return Table(
        ("trial", "id", "state", "ratio", "interval", "median us", "compile s", "pipeline", *names, "reason"),
        [
            (
                str(numbers[record.id]),
                record.id,
                str(record.state),
                ratio(record.ratio),
                interval(record.ratio_low, record.ratio_high),
                us(statistics.median(record.samples_us)) if record.samples_us else "",
                f"{record.compile_s:.2f}" if record.compile_s is not None else "",
                record.pipeline,
                *(str(record.knobs.get(name, "")) for name in names),
                record.reason.partition("\n")[0][:200],
            )
            for record in records[:_MOST_ROWS]
        ],
        words=frozenset({1, 2, 4, 7, 8 + len(names)}),
        note=f"{rest} slower candidates are in records.jsonl." if rest > 0 else "",
    )


class _Axis:
    """The values of one knob, evenly spread in their order: tiles are powers, and switches have two values."""

    def __init__(self, values: Sequence[int | str]) -> None:
        self._values = sorted(set(values), key=self.order)

    def place(self, value: int | str, start: float, end: float) -> float:
        """Return the place of a value between ``start`` and ``end``."""
        last = len(self._values) - 1
        return start + (end - start) * (self._values.index(value) / last if last else 0.5)

    def shown(self, most: int) -> list[int | str]:
        """Return up to ``most`` values to write beside the axis."""
        return self._values[:: -(-len(self._values) // most)]

    @property
    def letters(self) -> int:
        """The letters of the longest value."""
        return max((len(str(value)) for value in self._values), default=1)

    @staticmethod
    def order(value: int | str) -> tuple[bool, int, str]:
        """Return a key that sorts values: numbers by size, then names."""
        return (False, value, "") if isinstance(value, int) else (True, 0, value)


def _values(record: Record) -> Values:
    return {PIPELINE: record.pipeline, **record.knobs}


def _kinds(records: Sequence[Record]) -> dict[str, str]:
    """Return the class of each candidate by its rank."""
    ranked = sorted(records, key=lambda record: record.ratio or 0.0)
    last = max(1, len(ranked) - 1)
    return {record.id: _CLASSES[sum(at / last >= part for part in _PARTS)] for at, record in enumerate(ranked)}
