"""The folded section of a dispatch: its search, its knobs and its final."""

from __future__ import annotations

from pytest_shark_tune.report.html.figure import Figure, interval, ratio
from pytest_shark_tune.report.html.figures.config import compare_configs
from pytest_shark_tune.report.html.figures.course import draw_course
from pytest_shark_tune.report.html.figures.finals import draw_final
from pytest_shark_tune.report.html.figures.funnel import draw_funnel
from pytest_shark_tune.report.html.figures.importance import draw_importance, importance_of
from pytest_shark_tune.report.html.figures.knobs import candidate_table, draw_parallel, draw_slices, varying_knobs
from pytest_shark_tune.report.html.section import Fold
from pytest_shark_tune.report.html.view import DispatchView

__all__ = ["dispatch_section"]


def dispatch_section(view: DispatchView) -> Fold:
    """Return the section of a dispatch."""
    importance = importance_of(view.measured)
    knobs = varying_knobs(view.measured, importance.of_knobs if importance is not None else {})
    parallel = draw_parallel(view, knobs)
    figures = [
        draw_course(view),
        draw_final(view),
        parallel or _only_table(view),
        draw_slices(view, knobs),
        draw_importance(importance),
        draw_funnel([view.row]),
        compare_configs(view),
    ]
    result, kind = _result(view)
    return Fold(view.name, result, kind, [figure for figure in figures if figure is not None])


def _only_table(view: DispatchView) -> Figure | None:
    """Return the candidates as a table, for want of knobs to draw."""
    if not view.candidates:
        return None
    return Figure("Candidates", "All candidates that were tried.", "", candidate_table(view))


def _result(view: DispatchView) -> tuple[str, str]:
    share = f", {view.row.share:.1%} of the time" if view.row.share is not None else ""
    row = view.speedup
    if row is None:
        return f"no candidate in a final{share}", "noise"
    bounds = interval(row.low, row.high)
    remark = f", {row.remark}" if row.remark else ""
    return f"{ratio(row.ratio)}{f' ({bounds})' if bounds else ''}{remark}{share}", row.kind
