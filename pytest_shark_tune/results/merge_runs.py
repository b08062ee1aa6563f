"""Merging runs: the results of several runs for the same dispatches, on machines of one kind, made into one."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.reconcile import with_ops
from pytest_shark_tune.records.snapshot import write_draft
from pytest_shark_tune.records.types import FinalRecord, Record, SpecRecord, State, WinnerRecord
from pytest_shark_tune.records.winner import declare_winner, simplicity
from pytest_shark_tune.results.funnel import funnel_of
from pytest_shark_tune.results.summary import DispatchSummary, RunSummary, Summary, write_summary
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.files import decode_json, read_plain

__all__ = ["FinishedRun", "MergedRuns", "RecordFile", "merge_runs", "read_run", "write_merged"]


class RecordFile(Collection[Record]):
    """The records in a file, which are read anew each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Record]:
        """Read the records, one after the other."""
        return journal.stream(self._path, Record)

    def __len__(self) -> int:
        """Count the records."""
        return sum(1 for _ in self)

    def __contains__(self, record: object) -> bool:
        """Return whether the file has a record."""
        return any(record == found for found in self)


@dataclass(frozen=True)
class FinishedRun:
    """The files that one run left."""

    name: str
    """The run's output directory."""
    summary: Summary
    records: Collection[Record]
    """The records of its candidates. A run may have more than memory should hold, so nobody keeps them all."""
    finals: tuple[FinalRecord, ...]


@dataclass(frozen=True)
class MergedRuns:
    """The results of several runs, with one record for each candidate and one final for each dispatch."""

    runs: tuple[FinishedRun, ...]
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    """The records of each dispatch by the candidate's id; but for defaults and winners, as `_light` leaves them."""
    origins: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """The position of its run and its position there, for each of these records."""
    finals: dict[str, FinalRecord] = field(default_factory=dict)
    """The finals by dispatch."""
    notes: list[str] = field(default_factory=list)
    """Sentences about results that others took the place of."""
    refuted: dict[tuple[str, str], str] = field(default_factory=dict)
    """The winners that a run left out of its own spec, by dispatch and candidate, with the reasons."""

    @property
    def dropped(self) -> dict[str, str]:
        """The dispatches that have a winner and get no entry all the same, with the reasons."""
        winners = {name: final.winner for name, final in self.finals.items() if final.winner is not None}
        return {name: self.refuted[name, winner] for name, winner in winners.items() if (name, winner) in self.refuted}

    @property
    def standing(self) -> tuple[FinalRecord, ...]:
        """The finals without those with a dropped winner."""
        dropped = self.dropped
        return tuple(final for name, final in self.finals.items() if name not in dropped)

    @property
    def recorded(self) -> tuple[FinalRecord, ...]:
        """The finals with a winner that is on record and was not dropped: these may have an entry in the spec."""
        return tuple(final for final in self.standing if final.winner in self.records.get(final.dispatch, {}))

    @property
    def unrecorded(self) -> tuple[FinalRecord, ...]:
        """The finals with a winner that is not on record: it was kept from a snapshot, or a file was cut."""
        won = (final for final in self.standing if final.winner is not None)
        return tuple(final for final in won if final.winner not in self.records.get(final.dispatch, {}))

    @property
    def names(self) -> tuple[str, ...]:
        """The dispatches in the summaries of all runs, in their order."""
        return tuple(dict.fromkeys(row.name for run in self.runs for row in run.summary.dispatches))

    @property
    def failed_defaults(self) -> dict[str, str]:
        """The dispatches with a default that failed, so that nothing can be compared with it, with the reasons."""
        defaults = {name: records[DEFAULT_ID] for name, records in self.records.items() if DEFAULT_ID in records}
        return {
            name: f"{record.state}: {record.reason}"
            for name, record in defaults.items()
            if record.state is not State.MEASURED
        }


def read_run(directory: Path) -> FinishedRun:
    """Read the output directory of a run of ``pytest --tune``.

    Raises:
        InputError: it is no such directory, or one of another version.
    """
    path = directory / "summary.json"
    try:
        summary = decode_json(read_plain(path), Summary)
    except OSError as error:
        raise InputError(f"{directory} is no output directory of pytest --tune: {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path} is no summary of this version of pytest-shark-tune: {error}") from error
    finals = journal.read(directory / "finals.jsonl", FinalRecord)
    return FinishedRun(str(directory), summary, RecordFile(directory / "records.jsonl"), tuple(finals))


def merge_runs(runs: Sequence[FinishedRun]) -> MergedRuns:
    """Merge the results of several runs; if all else is equal, the run that is named first wins.

    If two runs tried a candidate, the record with more samples stays. If several finals of a dispatch were held, their
    winners compete by their ratio to the default, which was measured beside each of them, as the finalists of one run
    do. A winner that a run left out of its own spec competes only with others that were left out.

    Raises:
        InputError: the runs were not made for the same target, by the same compiler, on devices of one model.
    """
    _check_alike(runs)
    merged = MergedRuns(tuple(runs))
    finals: defaultdict[str, list[FinalRecord]] = defaultdict(list)
    replaced: Counter[str] = Counter()
    whole = {(final.dispatch, final.winner or DEFAULT_ID) for run in runs for final in run.finals}
    samples: dict[tuple[str, str], int] = {}
    for number, run in enumerate(runs):
        own: dict[tuple[str, str], tuple[Record, int, int]] = {}
        for position, record in enumerate(run.records):
            key = record.dispatch, record.id
            is_whole = record.id == DEFAULT_ID or key in whole
            # Later lines of a journal take the place of earlier ones.
            own[key] = record if is_whole else _light(record), position, len(record.samples_us)
        for key, (record, position, count) in own.items():
            known = merged.records.setdefault(record.dispatch, {})
            if key in samples:
                replaced[record.dispatch] += 1
            if key not in samples or count > samples[key]:
                known[record.id], samples[key], merged.origins[key] = record, count, (number, position)
        for final in {final.dispatch: final for final in run.finals}.values():
            finals[final.dispatch].append(final)
            if final.winner is not None and (reason := run.summary.dropped.get(final.dispatch)):
                merged.refuted.setdefault((final.dispatch, final.winner), f"{run.name} left it out: {reason}")
    for dispatch, count in replaced.items():
        what = "1 candidate was" if count == 1 else f"{count} candidates were"
        merged.notes.append(f"{dispatch}: {what} tried more than once; the record with more samples stays")
    for dispatch, found in finals.items():
        merged.finals[dispatch] = _join_finals(found, merged.records.get(dispatch, {}), merged.refuted)
        if len(found) > 1:
            merged.notes.append(f"{dispatch}: {len(found)} finals were held; the best of their winners wins")
    for (dispatch, winner), reason in merged.refuted.items():
        if merged.finals[dispatch].winner != winner:
            merged.notes.append(f"{dispatch}: {winner} does not compete: {reason}")
    return merged


def _light(record: Record) -> Record:
    """Return a record with what a summary needs of a candidate that did not win: its state, its reason and its ratio.

    A run may have hundreds of thousands.
    """
    return msgspec.structs.replace(
        record,
        dispatch=sys.intern(record.dispatch),
        pipeline=sys.intern(record.pipeline),
        device=sys.intern(record.device),
        target=sys.intern(record.target),
        iree=sys.intern(record.iree),
        reason=sys.intern(record.reason),
        config="",
        knobs={},
        samples_us=(),
        baseline_samples_us=(),
        sizes={},
        check=None,
    )


def _merged_lines(merged: MergedRuns) -> Iterator[bytes]:
    """Yield the lines of the merged records, which are read from the runs again, in their order there."""
    encoder = msgspec.json.Encoder()
    for number, run in enumerate(merged.runs):
        for position, record in enumerate(run.records):
            if merged.origins.get((record.dispatch, record.id)) == (number, position):
                yield encoder.encode(record) + b"\n"


def _check_alike(runs: Sequence[FinishedRun]) -> None:
    for what, values in (
        ("targets", [run.summary.run.target for run in runs]),
        ("device models", [run.summary.run.device for run in runs]),
        ("releases of IREE", [run.summary.run.versions.get("iree-base-compiler", "") for run in runs]),
    ):
        if len(set(values)) > 1:
            listed = ", ".join(f"{run.name} ({value})" for run, value in zip(runs, values, strict=True))
            raise InputError(f"the runs are of different {what}, so their times do not compare: {listed}")


def write_merged(
    out: Path,
    merged: MergedRuns,
    draft: Draft,
    *,
    tasks: Mapping[str, Task],
    checks: Sequence[SpecRecord],
) -> Summary:
    """Write records, finals, spec and summary to ``out``, a directory that exists.

    Args:
        out: the output directory.
        merged: the merged results.
        draft: the draft of the spec of those that are ``recorded``, without the entries that ``checks`` drop.
        tasks: the dispatches by name, as far as they are known.
        checks: the verification of the draft on its sources.

    Returns:
        The summary, as it is written.
    """
    dropped = merged.dropped | {name: reason for check in checks for name, reason in check.dropped.items()}
    for final in merged.unrecorded:
        reason = (
            f"records.jsonl has no line for {final.winner}, which won: what a snapshot holds is tried again with "
            "--tune-fresh"
        )
        dropped.setdefault(final.dispatch, reason)
    won = {
        final.dispatch: WinnerRecord.of(final, merged.records[final.dispatch][final.winner])
        for final in merged.recorded
        if final.winner is not None and final.dispatch not in dropped
    }
    won |= {name: with_ops(winner, tasks[name]) for name, winner in won.items() if name in tasks}
    summary = Summary(
        run=_run_of(merged),
        dispatches=tuple(_summary_row(merged, name, won.get(name), dropped.get(name, "")) for name in merged.names),
        sources=tuple(source for check in checks for source in check.sources),
        untunable=tuple(dict.fromkeys(untunable for run in merged.runs for untunable in run.summary.untunable)),
        dropped=dropped,
        failed_steps={name: why for run in merged.runs for name, why in run.summary.failed_steps.items()},
    )
    journal.replace_parts(out / "records.jsonl", _merged_lines(merged))
    journal.replace_file(out / "finals.jsonl", msgspec.json.Encoder().encode_lines([*merged.finals.values()]))
    write_draft(out / "spec.mlir", draft, won.values())
    write_summary(out / "summary.json", summary)
    return summary


def _join_finals(
    finals: Sequence[FinalRecord], records: Mapping[str, Record], refuted: Mapping[tuple[str, str], str]
) -> FinalRecord:
    """Return the final with the best of all finals' winners, with the other finals' finalists.

    Winners that are ``refuted`` give way to any other.
    """
    won = [final for final in finals if final.winner is not None]
    won = [final for final in won if (final.dispatch, final.winner) not in refuted] or won
    if not won:
        return max(finals, key=_sample_count)

    def knobs(name: str) -> tuple[int, ...]:
        return simplicity(records[name].knobs if name in records else {})

    # If a candidate won twice, the final with more samples counts.
    of_winner = {final.winner: final for final in sorted(won, key=_sample_count) if final.winner is not None}
    best, _ = declare_winner([final.finalist(name) for name, final in of_winner.items()], knobs)
    chosen = of_winner[best] if best is not None else won[0]
    own = {finalist.id for finalist in chosen.finalists}
    others = {finalist.id: finalist for final in finals for finalist in final.finalists if finalist.id not in own}
    return msgspec.structs.replace(chosen, finalists=(*chosen.finalists, *others.values()))


def _sample_count(final: FinalRecord) -> int:
    return sum(len(finalist.samples_us) for finalist in final.finalists)


def _summary_row(merged: MergedRuns, name: str, winner: WinnerRecord | None, dropped: str) -> DispatchSummary:
    rows = [row for run in merged.runs for row in run.summary.dispatches if row.name == name]
    final, records = merged.finals.get(name), merged.records.get(name, {})
    tried = [candidate for candidate in records if candidate != DEFAULT_ID]
    finalists = {finalist.id for finalist in final.finalists} if final is not None else None
    funnel = funnel_of(tried, records, finalists, untried="no run tried it")
    return DispatchSummary.of(
        name,
        msgspec.structs.replace(funnel, generated=max([funnel.generated, *(row.generated for row in rows)])),
        records,
        final,
        winner,
        weight=final.weight if final is not None else max((row.weight for row in rows), default=1),
        space=next((row.space for row in rows), None),
        dropped=dropped,
        without_final="no run held a final",
        is_custom=any(row.is_custom for row in rows),
    )


def _run_of(merged: MergedRuns) -> RunSummary:
    runs = [run.summary.run for run in merged.runs]
    return RunSummary(
        versions=runs[0].versions,
        target=runs[0].target,
        device=runs[0].device,
        seconds=round(sum(run.seconds for run in runs), 3),
        complete=all(run.complete for run in runs),
        unsteady=sum(run.unsteady for run in runs),
    )
