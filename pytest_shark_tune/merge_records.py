"""Merging what several runs found out about the same dispatches, on machines of one kind, into one result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ledger import Summary
from pytest_shark_tune.stages.candidate import DEFAULT_ID
from pytest_shark_tune.stages.record import Finalist, FinalRecord, Record, State, WinnerRecord
from pytest_shark_tune.stages.winner import declare_winner, provisional_winner
from pytest_shark_tune.tools import journal

__all__ = ["Merged", "RunFindings", "merge_runs", "read_run", "winner_of"]


@dataclass(frozen=True)
class RunFindings:
    """What one run left in its output folder, ``name``."""

    name: str
    summary: Summary
    records: tuple[Record, ...]
    finals: tuple[FinalRecord, ...]


@dataclass(frozen=True)
class Merged:
    """The records and the finals of several runs, one for each candidate and dispatch; ``notes`` say what gave way."""

    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    finals: dict[str, FinalRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failed_defaults(self) -> dict[str, str]:
        """Why the default of a dispatch cannot be compared with, by the dispatch's name."""
        defaults = {name: records[DEFAULT_ID] for name, records in self.records.items() if DEFAULT_ID in records}
        return {
            name: f"{record.state}: {record.reason}"
            for name, record in defaults.items()
            if record.state is not State.MEASURED
        }


def read_run(folder: Path) -> RunFindings:
    """What a run of ``pytest --tune`` left in ``folder``.

    Raises:
        InputError: it is no such folder.
    """
    path = folder / "summary.json"
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=Summary)
    except OSError as error:
        raise InputError(f"{folder} is no output folder of pytest --tune: {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no summary of this version of pytest-shark-tune: {error}") from error
    records = journal.read(folder / "records.jsonl", Record)
    finals = journal.read(folder / "finals.jsonl", FinalRecord)
    return RunFindings(str(folder), summary, tuple(records), tuple(finals))


def merge_runs(runs: Sequence[RunFindings]) -> Merged:
    """Join what several runs found out, those that are named first winning where all else is equal.

    Of a candidate that was tried twice the record with more samples stays. The finalists of all finals of a dispatch
    compete by their ratio to the default, which each was measured beside; a winner is declared as in one run.

    Raises:
        InputError: they were not made for the same target, by the same compiler, on devices of one model.
    """
    for what, values in (
        ("targets", [run.summary.run.target for run in runs]),
        ("device models", [run.summary.run.device for run in runs]),
        ("releases of IREE", [run.summary.run.versions.get("iree-base-compiler", "") for run in runs]),
    ):
        if len(set(values)) > 1:
            told = ", ".join(f"{run.name} ({value})" for run, value in zip(runs, values, strict=True))
            raise InputError(f"the runs are of different {what}, so their times do not compare: {told}")
    merged = Merged()
    finals: defaultdict[str, list[FinalRecord]] = defaultdict(list)
    replaced: Counter[str] = Counter()
    for run in runs:
        # A journal's later lines take the place of earlier ones.
        own = {(record.dispatch, record.id): record for record in run.records}
        for (dispatch, name), record in own.items():
            known = merged.records.setdefault(dispatch, {})
            if name in known:
                replaced[dispatch] += 1
            if name not in known or _weight(record) > _weight(known[name]):
                known[name] = record
        for final in {each.dispatch: each for each in run.finals}.values():
            finals[final.dispatch].append(final)
    for dispatch, count in replaced.items():
        what = "1 candidate was" if count == 1 else f"{count} candidates were"
        merged.notes.append(f"{dispatch}: {what} tried more than once; the record with more samples stays")
    for dispatch, found in finals.items():
        merged.finals[dispatch] = _joined(found, merged.records.get(dispatch, {}))
        if len(found) > 1:
            merged.notes.append(f"{dispatch}: the finalists of {len(found)} finals are compared by their ratios")
    _add_provisional(merged)
    return merged


def winner_of(final: FinalRecord, records: Mapping[str, Record]) -> WinnerRecord | None:
    """The record of a final's winner with all that makes its spec entry; ``None`` where nobody won.

    Raises:
        InputError: there is no record of the candidate that won.
    """
    if final.winner is None or final.root is None:
        return None
    record = records.get(final.winner)
    if record is None:
        raise InputError(f"records.jsonl has no line for {final.winner} of {final.dispatch}, which won: is it whole?")
    finalist = final.finalist(final.winner)
    return WinnerRecord(
        id=record.id,
        dispatch=final.dispatch,
        pipeline=record.pipeline,
        knobs=record.knobs,
        config=record.config,
        state=State.MEASURED,
        reason=final.reason,
        compile_s=record.compile_s,
        samples_us=finalist.samples_us,
        baseline_samples_us=final.baseline_samples_us,
        ratio=finalist.ratio,
        ratio_low=finalist.ratio_low,
        ratio_high=finalist.ratio_high,
        device=final.device,
        target=final.target,
        iree=final.iree,
        root=final.root,
        weight=final.weight,
        compilation_info=final.compilation_info,
    )
