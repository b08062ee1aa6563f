"""The results of a guarding run: a field for every check of every entry, and the speeds beside the recorded ones."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.report.html.figure import Figure, Table, interval, ratio, us
from pytest_shark_tune.report.html.figures.intervals import RatioRow, draw_ratios
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import usable

__all__ = ["draw_checks", "draw_speeds"]

_SIGNS = {
    CheckOutcome.PASSED: ("✓", "good"),
    CheckOutcome.FAILED: ("✗", "bad"),
    CheckOutcome.UNDECIDED: ("?", "unsure"),
    CheckOutcome.SKIPPED: ("-", "noise"),
}
_MOST_ENTRIES = 60
_NAMED = 72.0
"""The least width of a field that has room for the name of its check."""


def draw_checks(results: Sequence[GuardResult]) -> Figure:
    """Return the outcome of every check, a row for each entry."""
    checks = [check for check in EntryCheck if any(result.verdict.check is check for result in results)]
    entries = list(dict.fromkeys((result.spec, result.verdict.entry) for result in results))
    found = {(result.spec, result.verdict.entry, result.verdict.check): result.verdict for result in results}
    shown = entries[:_MOST_ENTRIES]
    headings = [
        _heading(entry, [found[spec, entry, check].outcome for check in checks if (spec, entry, check) in found])
        for spec, entry in shown
    ]
    width = (RIGHT - LEFT) / max(1, len(checks))
    is_named = width >= _NAMED
    rows = Rows(headings, "outcome of every check of every entry", has_axis=not is_named)
    rows.add_headings()
    for position, (spec, entry) in enumerate(shown):
        middle = rows.mark_of(position)
        for number, check in enumerate(checks):
            verdict = found.get((spec, entry, check))
            if verdict is None:
                continue
            sign, kind = _SIGNS[verdict.outcome]
            tip = f"{entry}-{check}: {verdict.outcome} {verdict.reason or verdict.note}".strip()
            left, text = LEFT + number * width, f"{sign} {check}" if is_named else sign
            rows.drawing.rect(left, middle - 6, width - 2, 15, f"cell {kind}", tip)
            rows.drawing.text(left + width / 2 - 1, middle + 5.5, text, f"sign {kind}", anchor="middle")
    if not is_named:
        for number, check in enumerate(checks):
            rows.drawing.text(LEFT + (number + 0.5) * width, rows.bottom + 14, str(check), "tick", anchor="middle")
    rest = len(entries) - len(shown)
    return Figure(
        "Checks",
        "✓ kept, ✗ broken, ? undecided, - skipped: a field for each check of each entry."
        f"{f' {rest} more entries are in the table.' if rest > 0 else ''}",
        rows.drawing.markup(),
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


def _heading(entry: str, outcomes: Sequence[CheckOutcome]) -> Heading:
    """Return the name of an entry with the worst outcome of its checks, and the number of those that were skipped."""
    ranks = (CheckOutcome.FAILED, CheckOutcome.UNDECIDED, CheckOutcome.PASSED, CheckOutcome.SKIPPED)
    worst = min(outcomes, key=ranks.index)
    skipped = outcomes.count(CheckOutcome.SKIPPED) if worst is not CheckOutcome.SKIPPED else 0
    return Heading(entry, f"{worst}, {skipped} skipped" if skipped else str(worst), _SIGNS[worst][1])


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
