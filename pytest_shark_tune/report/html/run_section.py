"""The section of a run that tuned."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, times
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
        answers=list(_answers(summary)),
        warnings=list(_warnings(summary)),
        figures=[figure for figure in figures if figure is not None],
    )


def _answers(summary: Summary) -> Iterator[str]:
    """Yield sentences that say how much faster what became."""
    won = [row for row in summary.dispatches if row.winner is not None and row.name not in summary.dropped]
    count = len(summary.dispatches)
    answer = f"{len(won)} of {count} {'dispatch is' if count == 1 else 'dispatches are'} faster"
    fastest = max(won, key=lambda row: row.speedup or 0.0, default=None)
    if fastest is not None and fastest.speedup:
        answer += f", {fastest.name} by the most: {ratio(fastest.speedup)}"
    yield f"{answer}."
    for form in summary.forms:
        if form.ratio is not None:
            yield _whole(f"{form.model} in the form {form.form.name}", form.ratio, form.ratio_low, form.ratio_high,
                         form.default_us, form.tuned_us)  # fmt: skip
    formed = {form.source for form in summary.forms if form.ratio is not None}
    for check in summary.sources:
        if check.ratio is not None and check.source not in formed:
            yield _whole(check.source, check.ratio, check.ratio_low, check.ratio_high, check.default_us, check.tuned_us)


def _whole(
    name: str,
    gain: float,
    low: float | None,
    high: float | None,
    default_us: float | None,
    tuned_us: float | None,
) -> str:
    bounds = f" ({interval(low, high)})" if low is not None else ""
    change = f", {times(default_us)} to {times(tuned_us)}" if default_us and tuned_us else ""
    proof = "" if low is not None and low > 1 else ": unproven, since the interval holds 1"
    return f"{name} as a whole: {ratio(gain)}{bounds}{change}{proof}."


def _warnings(summary: Summary) -> Iterator[str]:
    """Yield sentences on what makes the figures less than certain."""
    if not summary.run.complete:
        yield "The run ended early: what it came to is provisional."
    provisional = sum("provisional" in row.reason for row in summary.dispatches)
    if provisional and summary.run.complete:
        one = provisional == 1
        yield f"{provisional} {'final was' if one else 'finals were'} cut short by --tune-time and {'is' if one else 'are'} provisional."
    if summary.run.unsteady:
        yield (
            f"The machine changed its speed while {summary.run.unsteady} candidates or finals were measured: stop other "
            "work on it, or fix its clock, for narrower intervals."
        )
    for name, reason in summary.dropped.items():
        yield f"{name} is not in the spec: {reason}."
    for name, reason in summary.unprofiled.items():
        yield f"{name} has no profile: {reason}."


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
