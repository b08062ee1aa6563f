"""The funnel: how many candidates passed each stage, and the reasons why the others did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, add_heading, height_of, mark_of
from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.report.html.svg import Drawing
from pytest_shark_tune.results.summary import DispatchSummary

__all__ = ["draw_funnel"]

_STAGES = ("tried", "compiled", "applied", "ran", "correct", "measured", "finalists")


def draw_funnel(rows: Sequence[DispatchSummary]) -> Figure | None:
    """Return the funnel of all candidates of these dispatches; ``None`` if none was tried."""
    counts = {stage: sum(getattr(row, stage) for row in rows) for stage in _STAGES}
    if not counts["tried"]:
        return None
    generated = sum(row.generated for row in rows)
    drawing = Drawing(height_of(len(_STAGES)) - 16, "number of candidates that passed each stage")
    scale = Scale(0.0, max(counts.values()), LEFT, RIGHT)
    lost = _losses(rows)
    before = generated
    for position, (stage, count) in enumerate(counts.items()):
        gone = ", ".join(f"{number:,} {state}" for state, number in lost.get(stage, {}).items() if number)
        value = f"{count:,}" if count == before or stage == "tried" else f"{count:,} ({count - before:,})"
        add_heading(drawing, position, stage, value)
        width = scale(count) - scale(0)
        drawing.rect(scale(0), mark_of(position) - 5, width, 10, "bar good" if count else "bar base", gone or stage)
        before = count
    return Figure(
        "Funnel of candidates",
        f"Of {generated:,} candidates that the search could choose from, {counts['tried']:,} were tried. Each bar is "
        "the number that passed a stage, with the loss in brackets.",
        drawing.markup(),
        _table(rows),
    )


def _losses(rows: Sequence[DispatchSummary]) -> dict[str, Counter[str]]:
    """Return the number of candidates of each state by the stage that they did not reach."""
    lost: dict[str, Counter[str]] = {}
    for row in rows:
        for loss in row.losses:
            lost.setdefault(loss.stage, Counter())[loss.state] += loss.count
    return lost


def _table(rows: Sequence[DispatchSummary]) -> Table:
    return Table(
        ("dispatch", "space", "generated", *_STAGES, "losses"),
        [
            (
                row.name,
                f"{row.space:,}" if row.space is not None else "many",
                f"{row.generated:,}",
                *(f"{getattr(row, stage):,}" for stage in _STAGES),
                "; ".join(
                    f"{cause.count} {loss.state}: {cause.reason}"
                    for loss in row.losses
                    if loss.state not in ("not_tried", "measured")
                    for cause in loss.causes
                ),
            )
            for row in rows
        ],
        words=frozenset({0, 2 + 1 + len(_STAGES)}),
    )
