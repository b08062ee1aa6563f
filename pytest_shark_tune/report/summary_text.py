"""The summary as text, for the terminal at the end of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.records.draft import is_of_starter
from pytest_shark_tune.records.types import NO_ENTRY, SourceCheck
from pytest_shark_tune.records.winner import NONE_FASTER
from pytest_shark_tune.report.answers import answers
from pytest_shark_tune.report.config_text import config_lines
from pytest_shark_tune.report.form_text import describe_form
from pytest_shark_tune.report.funnel_table import funnel_table
from pytest_shark_tune.report.tables import INDENT, wrapped
from pytest_shark_tune.report.times_table import times_table
from pytest_shark_tune.results.coverage import Coverage
from pytest_shark_tune.results.funnel import common_run_failures
from pytest_shark_tune.results.summary import DispatchSummary, Summary

__all__ = ["render"]

_LISTED = 6
"""The most names of a kind that are listed; all of them stand in summary.json."""
_PROVISIONAL = "provisional: "


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
    everything: bool = False,
    written: Sequence[str] = (),
    spent: str = "",
    next_steps: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the end of a run as plain text: times, losses, notes, written files, and the answer.

    Lines are longer than ``width`` only to keep a name, a path or a command whole. From 80 columns on all figures fit.

    Args:
        summary: the summary of the run.
        width: the columns of the terminal.
        spec: the path of the spec.
        snapshots: the snapshots that exist.
        changes: the changes of snapshots, a line for each entry.
        unwritten: the snapshots that did not exist and were not written.
        forms: the response files of models.
        without_spec: the sentence to show if there is no spec.
        everything: whether to show the funnel of every dispatch, and the configs of all winners.
        written: lines about other files.
        spent: how the time was spent.
        next_steps: the purposes and the commands to type next.
    """
    lines: list[str] = []
    if summary.dispatches:
        lines += wrapped(f"{summary.run.target} on {summary.run.device}", width)
        lines += [*times_table(summary, width), ""]
        if funnel := list(funnel_table(summary, width, everything=everything)):
            lines += [*funnel, ""]
    for note in _notes(summary):
        lines += wrapped(note, width)
    if spec.exists():
        lines.append(f"spec: {spec}{' stays as an earlier run left it' if summary.run.keeps_spec else ''}")
        if summary.run.keeps_spec:
            lines += wrapped(_why_kept(summary), width, indent=INDENT)
    elif any(not row.is_custom for row in summary.dispatches):
        why = "no spec was written: what won was left out, as told above" if summary.dropped else ""
        lines += wrapped(why or without_spec, width)
    for path in forms:
        lines.append(f"form: {path}")
    for snapshot in sorted({*snapshots, *changes}):
        state = " is not written" if snapshot in unwritten else " is removed: it has no entry left"
        lines.append(f"snapshot: {snapshot}{'' if snapshot in snapshots else state}")
        lines += [line for change in changes.get(snapshot, ()) for line in wrapped(change, width, indent=INDENT)]
    lines += written
    if summary.dispatches:
        lines.append("")
        for sentence in answers(summary):
            lines += wrapped(sentence, width)
        lines += config_lines(summary, width, everything=everything)
    lines += wrapped(spent, width)
    for step, command in next_steps:
        lines += [f"{step}:", f"{'':{INDENT}}{command}"]
    return "".join(f"{line}\n" for line in lines)


def _notes(summary: Summary) -> Iterator[str]:
    for record in summary.forms:
        yield f"{record.model}: {describe_form(record)}"
    remarks: dict[str, list[str]] = defaultdict(list)
    for row in summary.dispatches:
        if row.is_custom and row.knobs:
            yield f"{row.name}: fastest with {', '.join(f'{name}={value}' for name, value in row.knobs.items())}"
        if row.reason and (reason := _remark(row)):
            remarks[f"{'not in the spec: ' if row.name in summary.dropped else ''}{reason}"].append(row.name)
    for reason, remarked in remarks.items():
        yield f"{_first_names(remarked)}: {reason}"
    yield from _cut_finals(summary)
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
            f"unsteady machine: it changed its speed while {summary.run.unsteady} candidates or finals were measured. "
            "Stop other programs, keep the clock from varying (the governor `performance`), or give the finals more "
            "time (--tune-time). `note` in records.jsonl and finals.jsonl says by how much it changed"
        )
    in_table = {source for row in summary.dispatches for source in row.sources}
    for source in summary.sources if summary.improved or summary.dropped else ():
        says_no_more = source.note == NO_ENTRY and source.source in in_table
        if (note := _source_note(source)) and not says_no_more:
            yield note
    yield from _failed_steps(summary)
    yield from _profile_notes(summary)
    reasons: defaultdict[str, list[Untunable]] = defaultdict(list)
    for untunable in summary.untunable:
        reasons[untunable.reason].append(untunable)
    for reason, ops in reasons.items():
        names = _first_names(sorted({_costing(op.name, op.share) for op in ops}))
        yield f"not tuned ({len(ops)}{_in_all(op.share for op in ops)}): {names}: {reason}"


def _remark(row: DispatchSummary) -> str:
    """The remark on a dispatch, without what its row in the table says."""
    remark = row.reason.removeprefix(_PROVISIONAL).partition("; ")[2] if _is_cut(row) else row.reason
    return "" if row.best is not None or remark == NONE_FASTER else remark


def _is_cut(row: DispatchSummary) -> bool:
    return row.reason.startswith(_PROVISIONAL)


def _cut_finals(summary: Summary) -> Iterator[str]:
    """Yield a note for the dispatches whose finals had too little time, once for each reason."""
    names: dict[str, list[str]] = defaultdict(list)
    for row in filter(_is_cut, summary.dispatches):
        names[row.reason.removeprefix(_PROVISIONAL).partition(";")[0]].append(row.name)
    for reason, cut in names.items():
        named = "all dispatches" if len(cut) == len(summary.dispatches) > 1 else _first_names(cut)
        yield f"provisional ({len(cut)}): {named}: {reason}"


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
            left_out = f"left out of {profile.source} ({len(filtered)}{total}): {names}"
            yield f"{left_out}; a larger --tune-coverage takes them in"
    for source, reason in summary.unprofiled.items():
        yield f"{source}: all of it was tuned, since nobody can tell where its time goes: {reason}"


def _source_note(source: SourceCheck) -> str:
    """What happened to the spec in a source, apart from its speed, which the answer has."""
    if source.ratio is None and not source.note:
        return f"{source.source}: the spec applies to {source.applied} of its dispatches"
    return f"{source.source}: {source.note}" if source.note else ""


def _costing(name: str, share: float | None) -> str:
    return name if share is None else f"{name} {share:.1%}"


def _in_all(shares: Iterable[float | None]) -> str:
    """Return the time that dispatches take together, as far as it is known."""
    known = [share for share in shares if share is not None]
    return f", {sum(known):.1%} of the time" if known else ""


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
