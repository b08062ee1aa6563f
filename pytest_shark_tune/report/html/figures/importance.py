"""The importance of a dispatch's knobs, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.records.types import Record
from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.search.importance import Importance, importance_of_knobs

__all__ = ["draw_importance", "importance_of"]

_MOST_BARS = 12
_LEAST = 0.001
"""An importance below it is shown as 0."""


def importance_of(records: Sequence[Record]) -> Importance | None:
    """Return the importance of the knobs for measured candidates; ``None`` if they are too few."""
    unique = {(record.pipeline, *sorted(record.knobs.items())): record for record in records}
    configs = [(record.pipeline, record.knobs) for record in unique.values()]
    return importance_of_knobs(configs, [record.ratio or 1.0 for record in unique.values()])


def draw_importance(importance: Importance | None) -> Figure | None:
    """Return the importance of knobs as a figure; ``None`` if no knob matters to the forest."""
    if importance is None or max(importance.of_knobs.values(), default=0.0) < _LEAST:
        return None
    shown = list(importance.of_knobs.items())[:_MOST_BARS]
    rows = Rows([Heading(name, f"{value:.3f}") for name, value in shown], "importance of knobs", has_axis=False)
    rows.add_headings()
    scale = Scale(0.0, max([value for _, value in shown] + [0.01]), LEFT, RIGHT)
    for position, (name, value) in enumerate(shown):
        top, width = rows.mark_of(position) - 5, scale(value) - scale(0)
        rows.drawing.rect(scale(0), top, width, 10, "bar good", f"{name}: {value:.3f}")
    trust = (
        f"The forest predicts {max(0.0, importance.explained):.0%} of the variance of configs that it has not seen"
        + (", so this is a hint at best." if importance.explained < 0.5 else ".")
    )
    return Figure(
        "Importance of knobs",
        "Permutation importance in the forest of the search: the part of the variance of ratios that it no longer "
        f"predicts once the values of the knob are shuffled. {trust}",
        rows.drawing.markup(),
        Table(("knob", "importance"), [(name, f"{value:.4f}") for name, value in importance.of_knobs.items()]),
    )
