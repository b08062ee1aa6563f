"""The table of times: the default and the best of each dispatch's final, which belong together, and their ratio."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.measurement.timing import NOISE_FLOOR
from pytest_shark_tune.records.types import SizeRatio
from pytest_shark_tune.report.tables import INDENT, named_rows, wrapped
from pytest_shark_tune.results.summary import DEFAULT_FAILED, DispatchSummary, Summary, says_nothing
from pytest_shark_tune.system.units import format_us

__all__ = ["describe_no_winner", "times_table"]


def times_table(summary: Summary, width: int) -> Iterator[str]:
    """Yield a row for each dispatch: calls and shares if they differ, times, the ratio with its interval."""
    rows = summary.dispatches
    called = any(row.weight != 1 for row in rows)
    profiled = any(row.share is not None for row in rows)
    headings = (*["calls"] * called, *["share"] * profiled, "default", "best", "speedup")
    cells = [
        (
            *[str(row.weight)] * called,
            *["-" if row.share is None else f"{row.share:.1%}"] * profiled,
            format_us(row.baseline_us),
            *([format_us(row.fastest_us)] if row.winner else []),
        )
        for row in rows
    ]
    tails = [
        _speedup(row) if row.winner else describe_no_winner(row, is_dropped=row.name in summary.dropped) for row in rows
    ]
    notes = ([line for name, size in row.sizes.items() for line in _size(row, name, size, width)] for row in rows)
    yield from named_rows([row.name for row in rows], headings, cells, notes, width, tails=tails)


def describe_no_winner(row: DispatchSummary, *, is_dropped: bool = False) -> str:
    """Return why a dispatch has no winner, in a few words; ``is_dropped`` if what won is not in the spec."""
    if is_dropped:
        return "won, and left out of the spec"
    best = row.best
    if best is None:
        if row.baseline_us is None and row.reason.startswith(DEFAULT_FAILED):
            return "its default failed"
        return "its finalists failed" if row.finalists else "none tried" if not row.tried else "none faster"
    if says_nothing(best.ratio_low, best.ratio_high):
        after = f" after {best.rounds} rounds" if best.rounds else ""
        return f"{best.ratio:.2f}x, undecided{after}"
    verdict = "too noisy" if best.ratio_low <= 1 else "too small a gain"
    verdict = "no gain" if best.ratio <= 1 + NOISE_FLOOR else verdict
    return f"{best.ratio:.2f}x, {verdict} ({best.ratio_low:.2f} to {best.ratio_high:.2f})"


def _speedup(row: DispatchSummary) -> str:
    interval = f" ({row.speedup_low:.2f} to {row.speedup_high:.2f})" if row.speedup_low and row.speedup_high else ""
    return f"{row.speedup:.2f}x{interval}" if row.speedup else "-"


def _size(row: DispatchSummary, name: str, size: SizeRatio, width: int) -> list[str]:
    """The result at one choice of open sizes."""
    head = f"{name}, weight {size.weight}: {format_us(size.baseline_us)}"
    if not row.winner:
        return wrapped(f"{head} by default", width, indent=INDENT)
    times = f"{head} to {format_us(size.baseline_us / size.ratio)}"
    return wrapped(f"{times}, {size.ratio:.2f}x ({size.ratio_low:.2f} to {size.ratio_high:.2f})", width, indent=INDENT)
