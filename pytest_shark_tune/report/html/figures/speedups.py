"""The speedups of a run: of its dispatches, of its models as a whole, and of the forms of its models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.figures.intervals import MOST_ROWS, RatioRow, draw_ratios
from pytest_shark_tune.report.html.scale import usable
from pytest_shark_tune.report.html.view import DispatchView
from pytest_shark_tune.results.summary import Summary

__all__ = ["dispatch_speedups", "model_speedups"]


def dispatch_speedups(views: Sequence[DispatchView]) -> Figure | None:
    """Return the speedups from the finals; ``None`` if none was held."""
    found = [(view, row) for view in views if (row := view.speedup) is not None]
    if not found:
        return None
    found.sort(key=lambda pair: (pair[1].kind != "good", -pair[1].ratio))
    rest = len(found) - MOST_ROWS
    table = Table(
        ("dispatch", "calls", "share", "default us", "best us", "speedup", "interval", "winner", "why not"),
        [
            (
                view.name,
                str(view.row.weight),
                f"{view.row.share:.1%}" if view.row.share is not None else "",
                us(view.row.baseline_us),
                us(view.row.best_us),
                ratio(view.row.speedup),
                interval(view.row.speedup_low, view.row.speedup_high),
                view.row.winner or "none",
                view.dropped or ("" if view.row.winner else view.row.reason),
            )
            for view in views
        ],
        words=frozenset({0, 6, 7, 8}),
    )
    return Figure(
        "Speedups of dispatches",
        "Default time by best time in the final, with the interval for one more fresh process. A line without an end "
        f"goes on. Grey rows have no entry in the spec: the table says why.{_more(rest)}",
        draw_ratios([row for _, row in found], "speedup of each dispatch with its interval"),
        table,
    )


def _more(rest: int) -> str:
    return f" {rest} more are in the table." if rest > 0 else ""


def model_speedups(summary: Summary) -> Figure | None:
    """Return the speedups of whole functions and of forms; ``None`` if none was measured."""
    rows = list(_model_rows(summary))
    if not rows:
        return None
    table = Table(
        ("model", "default us", "tuned us", "speedup", "interval", "remark"),
        [
            (row.name, us(default), us(tuned), ratio(row.ratio), interval(row.low, row.high), note)
            for row, default, tuned, note in rows
        ],
        words=frozenset({0, 4, 5}),
    )
    return Figure(
        "Whole models",
        "A model as a whole with its spec, beside its default in turns. A form is compared with the untuned default "
        "form. An interval that holds 1 proves nothing.",
        draw_ratios([row for row, *_ in rows], "speedup of each model with its interval"),
        table,
    )


def _model_rows(summary: Summary) -> Iterator[tuple[RatioRow, float | None, float | None, str]]:
    for form in summary.forms:
        for other in form.compared:
            if other.ratio is not None and usable([other.ratio]):
                is_chosen = other.form == form.form
                name = f"{form.model} in the form {other.form.name}{', tuned' if is_chosen else ''}"
                kind = _kind(other.ratio_low) if is_chosen else "noise"
                row = RatioRow(name, other.ratio, other.ratio_low, other.ratio_high, kind)
                times = (form.default_us, form.tuned_us) if is_chosen else (None, None)
                yield row, *times, "chosen" if is_chosen else other.reason
    for check in summary.sources:
        if check.ratio is not None and usable([check.ratio]):
            kind = _kind(check.ratio_low)
            remark = "unproven" if kind == "noise" else ""
            row = RatioRow(
                f"{check.source} with its spec", check.ratio, check.ratio_low, check.ratio_high, kind, remark
            )
            yield row, check.default_us, check.tuned_us, check.note


def _kind(low: float | None) -> str:
    return "good" if low is not None and low > 1 else "noise"
