"""Two runs that tuned: the dispatches and models whose speedup or entry changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import SourceCheck
from pytest_shark_tune.report.compare.comparison import Comparison, Ratio, Row, Verdict, speed_verdict, timed
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.results.summary import Summary

__all__ = ["compare_tuned"]


@dataclass(frozen=True)
class _Speed:
    """The speed of a dispatch or of a whole model in one run."""

    has_entry: bool
    """Whether the spec has an entry for it. A model always counts as one with an entry."""
    ratio: Ratio | None
    words: str
    config: str = ""
    """The id of the config, or the name of the model's form."""


def compare_tuned(base: FinishedRun, head: FinishedRun) -> Comparison:
    """Compare the speedups of two runs of ``pytest --tune``. They are over the default of the same run.

    Raises:
        InputError: the runs are of different targets.
    """
    if base.summary.run.target != head.summary.run.target:
        raise InputError(
            f"the runs are of different targets, so they do not compare: {base.name} ({base.summary.run.target}), "
            f"{head.name} ({head.summary.run.target})"
        )
    before, after = dict(_speeds(base.summary)), dict(_speeds(head.summary))
    names = list(dict.fromkeys([*after, *before]))
    rows = [row for name in names if (row := _row(name, before.get(name), after.get(name))) is not None]
    changed = {row.name for row in rows}
    moved = sum(
        before[name].config != after[name].config
        for name in names
        if name in before and name in after and name not in changed
    )
    return Comparison(
        base=base.name,
        head=head.name,
        what=("dispatch or model", "dispatches and models"),
        count=len(names),
        rows=rows,
        where=_where(base.summary, head.summary),
        note=f"{moved} {'has' if moved == 1 else 'have'} another config, at no provably different speed."
        if moved
        else "",
    )


def _speeds(summary: Summary) -> Iterator[tuple[str, _Speed]]:
    formed = {form.source for form in summary.forms if form.ratio is not None}
    wholes: list[tuple[str, FormRecord | SourceCheck, str]] = [
        *((form.model, form, form.form.name) for form in summary.forms),
        *((check.source, check, "") for check in summary.sources if check.source not in formed),
    ]
    for name, whole, config in wholes:
        ratio = Ratio.of(whole.ratio, whole.ratio_low, whole.ratio_high)
        if ratio is not None:
            yield f"{name} as a whole", _Speed(True, ratio, timed(ratio, whole.tuned_us), config)
    for row in summary.dispatches:
        if row.winner is None or row.name in summary.dropped:
            yield row.name, _Speed(False, None, timed(None, row.baseline_us) or "no time")
        else:
            ratio = Ratio.of(row.speedup, row.speedup_low, row.speedup_high)
            yield row.name, _Speed(True, ratio, timed(ratio, row.fastest_us), row.winner)


def _row(name: str, base: _Speed | None, head: _Speed | None) -> Row | None:
    """Return the row of a thing; ``None`` if it did not change."""
    if base is None or head is None:
        verdict = Verdict.ADDED if base is None else Verdict.GONE
        return Row(name, _words(base), _words(head), None, verdict)
    if base.has_entry != head.has_entry:
        return Row(name, _words(base), _words(head), None, Verdict.ENTRY if head.has_entry else Verdict.LOST)
    change, found = speed_verdict(base.ratio, head.ratio)
    return Row(name, _words(base), _words(head), change, found) if found is not None else None


def _words(speed: _Speed | None) -> str:
    if speed is None:
        return "-"
    return speed.words if speed.has_entry else f"{speed.words} by default"


def _where(base: Summary, head: Summary) -> str:
    """Return the target, the device and the compiler of both runs, with both values where they differ."""
    pairs = (
        (base.run.device, head.run.device),
        (f"IREE {_release(base)}", f"IREE {_release(head)}"),
    )
    shown = [before if before == after else f"{before} against {after}" for before, after in pairs]
    return f"{head.run.target} on {', '.join(shown)}"


def _release(summary: Summary) -> str:
    return summary.run.versions.get("iree-base-compiler", "unknown")
