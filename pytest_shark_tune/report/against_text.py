"""The comparison of compilers as a table: each dispatch with both times, and its part of the model's change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_shark_tune.guard.explain import Part, part_of, parts_of
from pytest_shark_tune.guard.verdict import EntryCheck, Verdict
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.report.tables import named_rows, wrapped
from pytest_shark_tune.system.units import format_us

__all__ = ["against_lines", "parts_table"]


def against_lines(results: Iterable[GuardResult], width: int) -> Iterator[str]:
    """Yield a table for each other compiler: models, their dispatches, and what these explain.

    Args:
        results: the verdicts of a run.
        width: the columns of the terminal.
    """
    found = [result for result in results if result.verdict.check is EntryCheck.AGAINST and _is_told(result.verdict)]
    for compiler in dict.fromkeys(result.spec for result in found):
        verdicts = [result.verdict for result in found if result.spec == compiler]
        dispatches = [verdict for verdict in verdicts if verdict.calls]
        models = {verdict.entry: verdict for verdict in verdicts if not verdict.calls}
        yield f"this compiler against {compiler}; a ratio below 1 is slower here"
        rows = [
            *(row for model in models.values() for row in _rows_of(parts_of(model, dispatches))),
            *(_row(part_of(one)) for one in dispatches if not any(name in one.calls for name in models)),
        ]
        yield from _table(rows, "other", "here", width)
        for verdict in verdicts:
            if verdict.note:
                yield from wrapped(f"{verdict.entry}: {verdict.note}", width)


def parts_table(parts: Iterable[Part], other: str, here: str, width: int) -> Iterator[str]:
    """Yield the lines of a table of models and dispatches.

    Args:
        parts: the models and dispatches.
        other: the heading of the times with the other release.
        here: the heading of those with this one.
        width: the columns of the terminal.
    """
    yield from _table([_row(part) for part in parts], other, here, width)


def _table(rows: Sequence[tuple[str, Sequence[str]]], other: str, here: str, width: int) -> Iterator[str]:
    headings = ("calls", other, here, "ratio", "interval", "verdict", "share")
    yield from named_rows([name for name, _ in rows], headings, [cells for _, cells in rows], [()] * len(rows), width)


def _rows_of(parts: Sequence[Part]) -> Iterator[tuple[str, Sequence[str]]]:
    yield from map(_row, parts)
    model, *dispatches = parts
    shares = [part.share for part in dispatches if part.share is not None]
    if shares:
        yield f"{model.name}: all else", ("", "", "", "", "", "", f"{1 - sum(shares):.0%}")


def _is_told(verdict: Verdict) -> bool:
    return bool(verdict.metrics) or verdict.by_identity


def _row(part: Part) -> tuple[str, Sequence[str]]:
    """The name and the cells of a model or dispatch; ``share`` is its part of the model's change."""
    share = "" if part.share is None else f"{part.share:.0%}"
    if not part.us:
        return part.name, (str(part.calls), "", "", "1", "", part.outcome, share)
    return part.name, (
        str(part.calls),
        format_us(part.other_us),
        format_us(part.us),
        f"{part.ratio:.3f}",
        f"{part.ratio_low:.3f} to {part.ratio_high:.3f}",
        part.outcome,
        share,
    )
