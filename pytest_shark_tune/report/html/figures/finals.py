"""The final of a dispatch: every sample of the default and of the finalists."""

from __future__ import annotations

import statistics

from pytest_shark_tune.records.types import State
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import Scale, usable
from pytest_shark_tune.report.html.view import DispatchView
from pytest_shark_tune.system.units import format_us

__all__ = ["draw_final"]

_WIDE = 4.0
_LANES = 5


def draw_final(view: DispatchView) -> Figure | None:
    """Return the samples of a final; ``None`` if none was held."""
    final = view.final
    if final is None or not usable(final.baseline_samples_us):
        return None
    rows = [("default", "", usable(final.baseline_samples_us), "base")]
    for finalist in view.finalists:
        won = finalist.id == final.winner and not view.dropped
        value = f"{ratio(finalist.ratio)} ({interval(finalist.ratio_low, finalist.ratio_high)})"
        rows.append((finalist.id, value, usable(finalist.samples_us), "good" if won else "noise"))
    samples = [sample for *_, found, _ in rows for sample in found]
    low, high = min(samples), max(samples)
    is_wide = high / low > _WIDE
    scale = Scale(
        low / 1.03 if is_wide else max(0.0, low - (high - low) * 0.04), high * 1.02, LEFT, RIGHT, is_log=is_wide
    )
    medians = [statistics.median(found) if found else None for *_, found, _ in rows]
    headings = [
        Heading(f"{name}, median {format_us(middle)}", value, kind)
        for (name, value, _, kind), middle in zip(rows, medians, strict=True)
    ]
    laid = Rows(headings, f"all samples of the final of {view.name}")
    drawing = laid.drawing
    laid.add_axis(scale, format_us)
    laid.add_headings()
    for position, ((*_, found, kind), middle) in enumerate(zip(rows, medians, strict=True)):
        level = laid.mark_of(position)
        # The samples of a row go up and down, in the order in which they were taken, so that fewer hide each other.
        drawing.dots(((scale(sample), level - 4 + number % _LANES * 2) for number, sample in enumerate(found)), kind)
        if middle is not None:
            drawing.line(scale(middle), level - 8, scale(middle), level + 8, "median", f"median {format_us(middle)}")
    rounds = f" in {final.rounds} fresh processes" if final.rounds else ""
    remark = f" {final.reason[:1].upper()}{final.reason[1:]}." if final.reason else ""
    return Figure(
        "Final",
        f"Every sample of the default and of the finalists{rounds}, with their medians as lines.{remark}",
        drawing.markup(),
        Table(
            ("id", "state", "ratio", "interval", "median us", "samples us"),
            [
                (
                    "default",
                    "measured",
                    "1x",
                    "",
                    us(statistics.median(final.baseline_samples_us)),
                    _listed(final.baseline_samples_us),
                ),
                *(
                    (
                        finalist.id,
                        str(finalist.state) + (f": {finalist.reason}" if finalist.state is not State.MEASURED else ""),
                        ratio(finalist.ratio),
                        interval(finalist.ratio_low, finalist.ratio_high),
                        us(statistics.median(finalist.samples_us)) if finalist.samples_us else "",
                        _listed(finalist.samples_us),
                    )
                    for finalist in final.finalists
                ),
            ],
            words=frozenset({0, 1, 3, 5}),
            note=final.note,
        ),
    )


def _listed(samples_us: tuple[float, ...]) -> str:
    return " ".join(f"{sample:.6g}" for sample in samples_us)
