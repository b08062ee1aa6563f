"""The funnel: how many candidates passed each stage, and the reasons why the others did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.results.summary import DispatchSummary

__all__ = ["draw_funnel"]

_STAGES = ("tried", "compiled", "applied", "ran", "correct", "measured", "finalists")


def draw_funnel(rows: Sequence[DispatchSummary]) -> Figure | None:
    """Return the funnel of all candidates of these dispatches; ``None`` if none was tried."""
    counts = {stage: sum(getattr(row, stage) for row in rows) for stage in _STAGES}
    if not counts["tried"]:
        return None
    generated = sum(row.generated for row in rows)
    lost = _losses(rows)
    # Stages that lost nobody are one bar.
    bars = [
        (", ".join(stages), count, ", ".join(lost.get(stages[0], ())))
        for count, stages in ((count, list(stages)) for count, stages in groupby(counts, key=counts.__getitem__))
    ]
    headings = [
        Heading(name, f"{count:,} ({gone})" if gone and place else f"{count:,}")
        for place, (name, count, gone) in enumerate(bars)
    ]
    laid = Rows(headings, "number of candidates that passed each stage", has_axis=False)
    laid.add_headings()
    scale = Scale(0.0, max(counts.values()), LEFT, RIGHT)
    for position, (name, count, gone) in enumerate(bars):
        top, width = laid.mark_of(position) - 5, scale(count) - scale(0)
        laid.drawing.rect(scale(0), top, width, 10, "bar good" if count else "bar base", gone or name)
    return Figure(
        "Funnel of candidates",
        f"Of {generated:,} candidates that the search could choose from, {counts['tried']:,} were tried. Each bar is "
        "the number that passed its stages; in brackets is what became of the others.",
        laid.drawing.markup(),
        _table(rows),
    )


def _losses(rows: Sequence[DispatchSummary]) -> dict[str, list[str]]:
    """Return the number of candidates of each state, in words, by the stage that they did not reach."""
    lost: dict[str, Counter[str]] = {}
    for row in rows:
        for loss in row.losses:
            lost.setdefault(loss.stage, Counter())[loss.state] += loss.count
    return {
        stage: [f"{count:,} {state.replace('_', ' ')}" for state, count in states.items() if count]
        for stage, states in lost.items()
        if stage != "finalists"  # Those were measured, which is no loss.
    }


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
