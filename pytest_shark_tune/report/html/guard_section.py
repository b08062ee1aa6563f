"""The section of a run that guarded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pytest_shark_tune.guard.history import HistoryPoint, changes_in, shown
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck
from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult
from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.figures.guard import draw_checks, draw_speeds
from pytest_shark_tune.report.html.figures.history import draw_history
from pytest_shark_tune.report.html.section import Section

__all__ = ["guard_section"]


def guard_section(
    results: Iterable[GuardResult],
    failures: Sequence[GuardFailure] = (),
    ended_early: str = "",
    history: Sequence[HistoryPoint] = (),
) -> Section:
    """Return the section of a guarding run.

    Args:
        results: the verdicts.
        failures: the failures without a verdict.
        ended_early: the reason why the run did not check everything; empty if it did.
        history: the history of guarding, if one is kept.
    """
    order = list(EntryCheck)
    found = sorted(results, key=lambda result: (result.spec, result.verdict.entry, order.index(result.verdict.check)))
    counts = Counter(result.verdict.outcome for result in found)
    entries = len({(result.spec, result.verdict.entry) for result in found})
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in CheckOutcome if counts[outcome])
    figures = [draw_checks(found), draw_speeds(found)] if found else []
    return Section(
        title="",
        facts=[
            *(("where", where) for where in dict.fromkeys(result.where for result in found)),
            *(("spec", spec) for spec in dict.fromkeys(result.spec for result in found)),
        ],
        answers=[
            f"{entries} {'entry' if entries == 1 else 'entries'}, checks: {outcomes}."
            if found
            else "Nothing was guarded."
        ],
        warnings=[
            *([f"The run ended early, so this is not all: {ended_early}."] if ended_early else []),
            *(f"{shown(change)}." for change in changes_in(history)),
        ],
        figures=[figure for figure in (*figures, draw_history(history), _failures(failures)) if figure is not None],
    )


def _failures(failures: Sequence[GuardFailure]) -> Figure | None:
    """Return the failures without a verdict, as a table."""
    if not failures:
        return None
    rows = [(failure.test, failure.reason) for failure in failures]
    return Figure("Failed without a verdict", "", "", Table(("test", "reason"), rows, words=frozenset({0, 1})))
