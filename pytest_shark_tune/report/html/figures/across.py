"""Several runs side by side: their circumstances, and the speedups of the dispatches that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.figures.intervals import MOST_ROWS, RatioRow, draw_ratios
from pytest_shark_tune.report.html.view import views_of
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.system.units import format_s

__all__ = ["compare_runs"]


def compare_runs(runs: Sequence[FinishedRun]) -> list[Figure]:
    """Return the figures that compare runs; none for a single run."""
    if len(runs) < 2:
        return []
    figures = [_circumstances(runs)]
    views = [(run, view) for run in runs for view in views_of(run)]
    times = Counter(view.name for _, view in views)
    shared = sorted((pair for pair in views if times[pair[1].name] > 1), key=lambda pair: pair[1].name)
    found = [(run, view, row) for run, view in shared if (row := view.speedup) is not None]
    if found:
        rows = [RatioRow(f"{row.name} in {run.name}", row.ratio, row.low, row.high, row.kind) for run, _, row in found]
        rest = len(rows) - MOST_ROWS
        figures.append(
            Figure(
                "Dispatches in several runs",
                "The speedup of the same dispatch in each run; grey is without an entry in the spec."
                f"{f' {rest} more are in the table.' if rest > 0 else ''}",
                draw_ratios(rows, "speedup of the same dispatches in several runs"),
                Table(
                    ("dispatch", "run", "default us", "best us", "speedup", "interval"),
                    [
                        (
                            view.name,
                            run.name,
                            us(view.row.baseline_us),
                            us(view.row.best_us),
                            ratio(row.ratio),
                            interval(row.low, row.high),
                        )
                        for run, view, row in found
                    ],
                    words=frozenset({0, 1, 5}),
                ),
            )
        )
    return figures


def _circumstances(runs: Sequence[FinishedRun]) -> Figure:
    return Figure(
        "Runs",
        "The circumstances of each run, and what it came to.",
        "",
        Table(
            ("run", "target", "device", "IREE", "time", "dispatches", "faster", "unsteady"),
            [
                (
                    run.name,
                    run.summary.run.target,
                    run.summary.run.device,
                    run.summary.run.versions.get("iree-base-compiler", ""),
                    format_s(run.summary.run.seconds),
                    str(len(run.summary.dispatches)),
                    str(sum(row.winner is not None for row in run.summary.dispatches)),
                    str(run.summary.run.unsteady),
                )
                for run in runs
            ],
            words=frozenset({0, 1, 2, 3, 4}),
        ),
    )
