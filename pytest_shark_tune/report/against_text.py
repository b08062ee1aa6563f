"""The comparison of compilers as a table: each dispatch with both times, and its part of the model's change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_shark_tune.guard.explain import Part, part_of, parts_of
from pytest_shark_tune.guard.verdict import EntryCheck, Verdict
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.system.units import format_us

__all__ = ["HEADINGS", "against_lines", "part_cells", "table_lines"]

HEADINGS = ("dispatch", "calls", "other", "here", "ratio", "interval", "verdict", "share of the change")


def against_lines(results: Iterable[GuardResult]) -> Iterator[str]:
    """Yield a table for each model and each other compiler: the model, its dispatches, and what they explain."""
    found = [result for result in results if result.verdict.check is EntryCheck.AGAINST and _is_told(result.verdict)]
    for compiler in dict.fromkeys(result.spec for result in found):
        verdicts = [result.verdict for result in found if result.spec == compiler]
        dispatches = [verdict for verdict in verdicts if verdict.calls]
        models = {verdict.entry: verdict for verdict in verdicts if not verdict.calls}
        yield f"this compiler against {compiler}; a ratio below 1 is slower here"
        rows = [
            *(row for model in models.values() for row in _rows_of(parts_of(model, dispatches))),
            *(part_cells(part_of(one)) for one in dispatches if not any(name in one.calls for name in models)),
        ]
        yield from table_lines(HEADINGS, rows)
        yield from (f"  {verdict.entry}: {verdict.note}" for verdict in verdicts if verdict.note)


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, however wide."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    for row in (headings, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _rows_of(parts: Sequence[Part]) -> Iterator[Sequence[str]]:
    yield from map(part_cells, parts)
    model, *dispatches = parts
    shares = [part.share for part in dispatches if part.share is not None]
    if shares:
        yield (f"{model.name}: all else", "", "", "", "", "", "", f"{1 - sum(shares):.0%}")


def _is_told(verdict: Verdict) -> bool:
    return bool(verdict.metrics) or verdict.by_identity


def part_cells(part: Part) -> Sequence[str]:
    """Return the row of a model or dispatch."""
    share = "" if part.share is None else f"{part.share:.0%}"
    if not part.us:
        return (part.name, str(part.calls), "", "", "1", "", part.outcome, share)
    return (
        part.name,
        str(part.calls),
        format_us(part.other_us),
        format_us(part.us),
        f"{part.ratio:.3f}",
        f"{part.ratio_low:.3f} to {part.ratio_high:.3f}",
        part.outcome,
        share,
    )
