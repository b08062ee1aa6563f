"""The comparison of compilers as a table: each dispatch with both times, and its part of the model's change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_shark_tune.guard.verdict import EntryCheck, Verdict
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.system.units import format_us

__all__ = ["against_lines"]

_HEADER = ("dispatch", "calls", "other", "here", "ratio", "interval", "verdict", "share of the change")


def against_lines(results: Iterable[GuardResult]) -> Iterator[str]:
    """Yield a table for each model and each other compiler: the model, its dispatches, and what they explain."""
    found = [result for result in results if result.verdict.check is EntryCheck.AGAINST and _is_told(result.verdict)]
    for compiler in dict.fromkeys(result.spec for result in found):
        verdicts = [result.verdict for result in found if result.spec == compiler]
        dispatches = [verdict for verdict in verdicts if verdict.calls]
        models = {verdict.entry: verdict for verdict in verdicts if not verdict.calls}
        yield f"this compiler against {compiler}; a ratio below 1 is slower here"
        rows = [
            *(row for name, model in models.items() for row in _rows_of(name, model, dispatches)),
            *(_row(one, 1, "") for one in dispatches if not any(name in one.calls for name in models)),
        ]
        widths = [max(len(row[column]) for row in (_HEADER, *rows)) for column in range(len(_HEADER))]
        for row in (_HEADER, *rows):
            cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
            yield f"  {'  '.join(cells)}".rstrip()


def _rows_of(name: str, model: Verdict, dispatches: Sequence[Verdict]) -> Iterator[Sequence[str]]:
    # The parts of a change that may be none say nothing.
    is_sure = not model.metrics["ratio_low"] <= 1 <= model.metrics["ratio_high"]
    change = _change(model, 1) if is_sure else 0.0
    yield _row(model, 1, "")
    explained = 0.0
    for one in dispatches:
        if calls := one.calls.get(name):
            part = _change(one, calls)
            explained += part
            yield _row(one, calls, f"{part / change:.0%}" if change else "")
    if dispatches and change:
        yield (f"{name}: all else", "", "", "", "", "", "", f"{1 - explained / change:.0%}")


def _is_told(verdict: Verdict) -> bool:
    return bool(verdict.metrics) or verdict.by_identity


def _change(verdict: Verdict, calls: int) -> float:
    if verdict.by_identity:
        return 0.0
    return calls * (verdict.metrics["tuned_us"] - verdict.metrics["baseline_us"])


def _row(verdict: Verdict, calls: int, share: str) -> Sequence[str]:
    metrics = verdict.metrics
    if verdict.by_identity:
        return (verdict.entry, str(calls), "", "", "1", "", "same code", share)
    return (
        verdict.entry,
        str(calls),
        format_us(metrics["baseline_us"]),
        format_us(metrics["tuned_us"]),
        f"{metrics['ratio']:.3f}",
        f"{metrics['ratio_low']:.3f} to {metrics['ratio_high']:.3f}",
        {"kept": "not slower", "broken": "slower"}.get(verdict.outcome, str(verdict.outcome)),
        share,
    )
