"""The results of a guarding run: a field for every check of every entry, and the speeds beside the recorded ones."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.figures.intervals import RatioRow, draw_ratios
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, ROW, add_heading
from pytest_shark_tune.report.html.scale import usable
from pytest_shark_tune.report.html.svg import Drawing

__all__ = ["draw_checks", "draw_speeds"]

_SIGNS = {
    CheckOutcome.PASSED: ("✓", "good"),
    CheckOutcome.FAILED: ("✗", "bad"),
    CheckOutcome.UNDECIDED: ("?", "unsure"),
    CheckOutcome.SKIPPED: ("-", "noise"),
}
_MOST_ENTRIES = 60


def draw_checks(results: Sequence[GuardResult]) -> Figure:
    """Return the outcome of every check, a row for each entry."""
    checks = [check for check in EntryCheck if any(result.verdict.check is check for result in results)]
    entries = list(dict.fromkeys((result.spec, result.verdict.entry) for result in results))
    found = {(result.spec, result.verdict.entry, result.verdict.check): result.verdict for result in results}
    shown = entries[:_MOST_ENTRIES]
    drawing = Drawing(len(shown) * ROW + 24, "outcome of every check of every entry")
    width = (RIGHT - LEFT) / max(1, len(checks))
    for position, (spec, entry) in enumerate(shown):
        top = position * ROW
        outcomes = [found[spec, entry, check].outcome for check in checks if (spec, entry, check) in found]
        worst = next((outcome for outcome in reversed(CheckOutcome) if outcome in outcomes), CheckOutcome.PASSED)
        worst = CheckOutcome.FAILED if CheckOutcome.FAILED in outcomes else worst
        add_heading(drawing, position, entry, str(worst), _SIGNS[worst][1])
        for number, check in enumerate(checks):
            verdict = found.get((spec, entry, check))
            if verdict is None:
                continue
            sign, kind = _SIGNS[verdict.outcome]
            tip = f"{entry}-{check}: {verdict.outcome} {verdict.reason or verdict.note}".strip()
            drawing.rect(LEFT + number * width, top + 17, width - 2, 15, f"cell {kind}", tip)
            drawing.text(LEFT + (number + 0.5) * width, top + 29, sign, "sign", anchor="middle")
    for number, check in enumerate(checks):
        place = LEFT + (number + 0.5) * width
        drawing.text(place, len(shown) * ROW + 15, str(check), "tick", anchor="middle")
    rest = len(entries) - len(shown)
    return Figure(
        "Checks",
        "✓ kept, ✗ broken, ? undecided, - skipped: a field for each check of each entry."
        f"{f' {rest} more entries are in the table.' if rest > 0 else ''}",
        drawing.markup(),
        Table(
            ("entry", "check", "outcome", "reason or remark", "spec", "where"),
            [
                (
                    result.verdict.entry,
                    str(result.verdict.check),
                    str(result.verdict.outcome),
                    result.verdict.reason or result.verdict.note,
                    result.spec,
                    result.where,
                )
                for result in results
            ],
            words=frozenset(range(6)),
        ),
    )


def draw_speeds(results: Sequence[GuardResult]) -> Figure | None:
    """Return the measured ratios beside the recorded ones; ``None`` if no speed was measured."""
    timed = [result.verdict for result in results if usable([result.verdict.metrics.get("ratio")])]
    if not timed:
        return None
    rows = []
    for verdict in timed:
        metrics = verdict.metrics
        low, high = metrics.get("recorded_ratio_low"), metrics.get("recorded_ratio_high")
        recorded = (low, high) if low is not None and high is not None and 0 < low <= high else None
        kind = _SIGNS[verdict.outcome][1]
        bounds = metrics.get("ratio_low"), metrics.get("ratio_high")
        rows.append(RatioRow(verdict.entry, metrics["ratio"], *bounds, kind, recorded=recorded))
    return Figure(
        "Speeds of guarded entries",
        "Default time by the entry's time now, with its interval. The light band behind is the recorded interval.",
        draw_ratios(rows, "speed of each guarded entry beside its recorded one"),
        Table(
            ("entry", "ratio", "interval", "recorded", "recorded interval", "default us", "outcome"),
            [
                (
                    row.name,
                    ratio(row.ratio),
                    interval(row.low, row.high),
                    ratio(verdict.metrics.get("recorded_ratio")),
                    interval(*row.recorded) if row.recorded else "",
                    us(verdict.metrics.get("baseline_us")),
                    str(verdict.outcome),
                )
                for row, verdict in zip(rows, timed, strict=True)
            ],
            words=frozenset({0, 2, 4, 6}),
        ),
    )
