"""The section of a run that tuned."""

from __future__ import annotations

from pytest_shark_tune.report.answers import answers, warnings
from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.figures.funnel import draw_funnel
from pytest_shark_tune.report.html.figures.profile import times_in_models
from pytest_shark_tune.report.html.figures.speedups import dispatch_speedups, model_speedups
from pytest_shark_tune.report.html.figures.waterfall import waterfalls
from pytest_shark_tune.report.html.section import Section
from pytest_shark_tune.report.html.view import views_of
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.results.summary import Summary
from pytest_shark_tune.system.units import format_s

__all__ = ["run_section"]


def run_section(run: FinishedRun) -> Section:
    """Return the section of a run, without that of its dispatches."""
    summary, views = run.summary, views_of(run)
    figures = [
        model_speedups(summary),
        *waterfalls(summary),
        dispatch_speedups(views),
        *times_in_models(summary, views),
        draw_funnel(summary.dispatches),
        _untunable(summary),
    ]
    facts = [
        ("target", summary.run.target),
        ("device", summary.run.device),
        ("time", format_s(summary.run.seconds)),
        *summary.run.versions.items(),
    ]
    return Section(
        title=run.name,
        facts=facts,
        answers=list(answers(summary)),
        warnings=list(warnings(summary)),
        figures=[figure for figure in figures if figure is not None],
    )


def _untunable(summary: Summary) -> Figure | None:
    """Return the dispatches that cannot be tuned, as a table."""
    if not summary.untunable:
        return None
    rows = sorted(summary.untunable, key=lambda row: -(row.share or 0.0))
    return Figure(
        "Not tunable",
        "Dispatches that keep the compiler's own config, with their share of the time of their model.",
        "",
        Table(
            ("dispatch", "source", "share", "reason"),
            [(row.name, row.source, f"{row.share:.1%}" if row.share is not None else "", row.reason) for row in rows],
            words=frozenset({0, 1, 3}),
        ),
    )
