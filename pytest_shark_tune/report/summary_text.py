"""The summary as text, for the terminal at the end of a run.

The tables are not rich's: their cells must stay whole, and names and losses take lines of their own between the rows.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.plan.types import NOT_TRIED
from pytest_shark_tune.records.draft import is_of_starter
from pytest_shark_tune.records.types import SourceCheck, State
from pytest_shark_tune.report.form_text import describe_form
from pytest_shark_tune.results.coverage import Coverage
from pytest_shark_tune.results.funnel import OTHERS, Cause, Loss, common_run_failures
from pytest_shark_tune.results.summary import DispatchSummary, Summary
from pytest_shark_tune.system.units import format_us

__all__ = ["render"]

_INDENT = 4
_LISTED = 6
"""The most names of a kind that are listed; all of them stand in summary.json."""
_STATES = {NOT_TRIED: "not tried", State.MEASURED.value: "measured, not in the final"}
"""Names for the states of candidates that did not fail."""


def render(
    summary: Summary,
    *,
    width: int,
    spec: Path,
    snapshots: tuple[Path, ...],
    changes: Mapping[Path, Sequence[str]] = MappingProxyType({}),
    unwritten: Collection[Path] = (),
    forms: Sequence[Path] = (),
    without_spec: str = "no spec was written: nothing won",
) -> str:
    """Return the end of a run as plain text: times, funnel, whole functions, written files.

    Lines are longer than ``width`` only to keep a figure, a name or a path whole. From 80 columns on all figures fit.

    Args:
        summary: the summary of the run.
        width: the columns of the terminal.
        spec: the path of the spec.
        snapshots: the snapshots that exist.
        changes: the changes of snapshots, a line for each entry.
        unwritten: the snapshots that did not exist and were not written.
        forms: the response files of models.
        without_spec: the sentence to show if there is no spec.
    """
    lines: list[str] = []
    if summary.dispatches:
        lines += [f"{summary.run.target} on {summary.run.device}", *_times_table(summary, width), ""]
        lines += [*_funnel(summary, width), ""]
    for note in _notes(summary):
        lines += _wrapped(note, width, indent=0)
    if spec.exists():
        lines.append(f"spec: {spec}{' stays as an earlier run left it' if summary.run.keeps_spec else ''}")
        if summary.run.keeps_spec:
            lines += _wrapped(_why_kept(summary), width, indent=_INDENT)
    elif any(not row.is_custom for row in summary.dispatches):
        why = "no spec was written: what won was left out, as told above" if summary.dropped else ""
        lines += _wrapped(why or without_spec, width, indent=0)
    for path in forms:
        lines.append(f"form: {path}")
    for snapshot in sorted({*snapshots, *changes}):
        state = " is not written" if snapshot in unwritten else " is removed: it has no entry left"
        lines.append(f"snapshot: {snapshot}{'' if snapshot in snapshots else state}")
        lines += [line for change in changes.get(snapshot, ()) for line in _wrapped(change, width, indent=_INDENT)]
    return "".join(f"{line}\n" for line in lines)


def _times_table(summary: Summary, width: int) -> Iterator[str]:
    profiled = any(row.share is not None for row in summary.dispatches)
    headings = ("calls", *["share"] * profiled, "default", "best", "speedup", "interval", "winner")
    rows = [
        (
            str(row.weight),
            *["-" if row.share is None else f"{row.share:.1%}"] * profiled,
            format_us(row.baseline_us),
            format_us(row.best_us),
            f"{row.speedup:.2f}x" if row.speedup else "-",
            f"{row.speedup_low:.2f} to {row.speedup_high:.2f}" if row.speedup_low and row.speedup_high else "-",
            row.winner or "none",
        )
        for row in summary.dispatches
    ]
    yield from _dispatch_table(summary.dispatches, headings, rows, ([] for _ in rows), width)
    yield from _sizes_table(summary)


def _sizes_table(summary: Summary) -> Iterator[str]:
    """Yield a row for each size of the dispatches with open sizes."""
    named = [(row, name, size) for row in summary.dispatches for name, size in row.sizes.items()]
    if not named:
        return
    first = max(len("size"), *(len(f"{row.name} {name}") for row, name, _ in named))
    yield ""
    yield f"{'size':{first}}  {'weight':>6}  {'default':>8}  {'best':>8}  {'speedup':>7}  interval"
    for row, name, size in named:
        best = (format_us(size.us), f"{size.ratio:.2f}x", f"{size.ratio_low:.2f} to {size.ratio_high:.2f}")
        us, ratio, interval = best if row.winner else ("-", "-", "-")
        label = f"{row.name} {name}"
        yield f"{label:{first}}  {size.weight:>6}  {format_us(size.baseline_us):>8}  {us:>8}  {ratio:>7}  {interval}"


def _funnel(summary: Summary, width: int) -> Iterator[str]:
    headings = ("space", "generated", "tried", "compiled", "applied", "ran", "correct", "measured", "finalists")
    rows = [
        (
            f"{row.space:,}" if row.space is not None else "many",
            *(f"{count:,}" for count in (row.generated, row.tried, row.compiled, row.applied, row.ran)),
            *(f"{count:,}" for count in (row.correct, row.measured, row.finalists)),
        )
        for row in summary.dispatches
    ]
    losses = ([line for loss in row.losses for line in _loss(loss, width)] for row in summary.dispatches)
    return _dispatch_table(summary.dispatches, headings, rows, losses, width)


def _dispatch_table(
    dispatches: Sequence[DispatchSummary],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Iterable[Sequence[str]],
    width: int,
) -> Iterator[str]:
    """Yield a row for each dispatch, with its notes below; a name too long for its column gets a line of its own."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    longest = max(len("dispatch"), *(len(row.name) for row in dispatches))
    free = width - sum(widths) - len(widths)
    gap = 2 if longest + len(widths) <= free else 1
    first = max(len("dispatch"), min(longest, free))

    def cells(values: Sequence[str]) -> str:
        return "".join(f"{'':{gap}}{value:>{columns}}" for value, columns in zip(values, widths, strict=True))

    heading = f"{'dispatch':{first}}{cells(headings)}"
    yield heading
    yield "─" * len(heading)
    for dispatch, values, below in zip(dispatches, rows, notes, strict=True):
        if len(dispatch.name) > first:
            yield dispatch.name
            yield f"{'':{first}}{cells(values)}"
        else:
            yield f"{dispatch.name:{first}}{cells(values)}"
        yield from below


def _loss(loss: Loss, width: int) -> Iterator[str]:
    """Yield the number of candidates that ended in a state with the causes, in one line or in one for each cause."""
    head = f"{loss.count} {_STATES.get(loss.state, loss.state)}: "
    single = len(loss.causes) == 1
    causes = [
        f"{'' if single else f'{cause.count}x '}{cause.reason}{_example_text(loss, cause)}" for cause in loss.causes
    ]
    line = head + "; ".join(causes)
    if single or len(line) + _INDENT <= width:
        yield from _wrapped(line, width, indent=_INDENT)
        return
    yield from _wrapped(head.rstrip(), width, indent=_INDENT)
    for cause in causes:
        yield from _wrapped(cause, width, indent=2 * _INDENT)


def _example_text(loss: Loss, cause: Cause) -> str:
    """Return the id of a candidate to look up in the records; empty if nothing went wrong."""
    return "" if loss.state in _STATES or cause.reason == OTHERS else f" ({cause.example})"


def _wrapped(text: str, width: int, *, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + _INDENT),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _notes(summary: Summary) -> Iterator[str]:
    for record in summary.forms:
        yield f"{record.model}: {describe_form(record)}"
    for row in summary.dispatches:
        if row.is_custom and row.knobs:
            yield f"{row.name}: fastest with {', '.join(f'{name}={value}' for name, value in row.knobs.items())}"
        if row.reason:
            yield f"{row.name}: {'not in the spec: ' if row.name in summary.dropped else ''}{row.reason}"
    for row in summary.dispatches:
        for cause in common_run_failures(row.losses, row.tried):
            yield (
                f"{row.name}: {cause.count} of the {row.tried} candidates that were tried failed at run time for the "
                f"same reason, which may be none of theirs: {cause.reason} ({cause.example})"
            )
    for name, reason in summary.dropped.items():
        if is_of_starter(name):
            yield f"{name} of the starter spec: not in the spec: {reason}"
    if summary.run.unsteady:
        yield (
            f"unsteady machine: it changed its speed while {summary.run.unsteady} candidates or finals were measured; "
            "`note` in records.jsonl and finals.jsonl says by how much"
        )
    for source in summary.sources:
        yield _source_note(source)
    yield from _failed_steps(summary)
    yield from _profile_notes(summary)
    reasons: defaultdict[str, list[Untunable]] = defaultdict(list)
    for untunable in summary.untunable:
        reasons[untunable.reason].append(untunable)
    for reason, ops in reasons.items():
        names = _first_names(sorted({_costing(op.name, op.share) for op in ops}))
        yield f"not tuned ({len(ops)}{_in_all(op.share for op in ops)}): {names}: {reason}"


def _why_kept(summary: Summary) -> str:
    match summary.run.coverage:
        case Coverage.TESTS:
            return "this run left out tests, or ended early; a run of all tests writes it anew"
        case Coverage.FILES:
            return "this run left out files of a suite; a run of the whole suite writes it anew"
        case Coverage.WHOLE:
            return "this run makes no spec"


def _failed_steps(summary: Summary) -> Iterator[str]:
    """Yield notes on optional steps of the compiler that failed, and on their consequence."""
    dispatches: dict[str, list[str]] = defaultdict(list)
    for name, reason in summary.failed_steps.items():
        dispatches[reason].append(name)
    for reason, names in dispatches.items():
        yield f"{_first_names(names)}: constraints made by the tuner: {reason}"


def _profile_notes(summary: Summary) -> Iterator[str]:
    """Yield notes on the dispatches of models that were left out, and on models without a profile."""
    for profile in summary.profiles:
        filtered = [share for share in profile.shares if share in summary.left_out]
        if filtered:
            names = _first_names([_costing(share.dispatch, share.share) for share in filtered])
            total = _in_all(share.share for share in filtered)
            yield f"left out of {profile.source} ({len(filtered)}{total}): {names}; a larger --tune-share takes them in"
    for source, reason in summary.unprofiled.items():
        yield f"{source}: all of it was tuned, since nobody can tell where its time goes: {reason}"


def _source_note(source: SourceCheck) -> str:
    if source.ratio is None or source.ratio_low is None or source.ratio_high is None:
        return f"{source.source}: {source.note or f'the spec applies to {source.applied} of its dispatches'}"
    note = f"; {source.note}" if source.note else ""
    times = f"{format_us(source.default_us)} by default, {format_us(source.tuned_us)} tuned: "
    return (
        f"{source.source} as a whole, with the spec: {times if source.default_us else ''}{source.ratio:.2f} times as "
        f"fast ({source.ratio_low:.2f} to {source.ratio_high:.2f}), same results{note}"
    )


def _costing(name: str, share: float | None) -> str:
    return name if share is None else f"{name} {share:.1%}"


def _in_all(shares: Iterable[float | None]) -> str:
    """Return the time that dispatches take together, as far as it is known."""
    known = [share for share in shares if share is not None]
    return f", {sum(known):.1%} of the time" if known else ""


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
