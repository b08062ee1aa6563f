"""The differences between two specs, or two states of one, entry by entry.

Two entries are the same if their match predicates are equal, however they are named. A spec that this IREE does not
parse is known by its records alone: the names of their dispatches stand for the predicates.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.errors import InputError, SpecRefused
from pytest_shark_tune.records.snapshot import read_text, records_of, stream_records
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.module import matcher_name
from pytest_shark_tune.spec.predicate import MatchPredicate, describe, relation
from pytest_shark_tune.spec.read import SpecRow, is_same_config, read_predicates, read_spec
from pytest_shark_tune.system.units import format_us

__all__ = ["Change", "SpecEntryView", "SpecView", "describe_change", "diff", "read_view", "view_of"]


class SpecEntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec."""

    row: SpecRow
    predicate: MatchPredicate | None = None
    """The match predicate, if it could be read."""
    record: WinnerRecord | None = None
    """The record, if there is one of this config."""
    is_edited: bool = False
    """Whether the config was changed since it was recorded."""

    @property
    def name(self) -> str:
        """The dispatch's name, else the matcher's."""
        return self.record.dispatch if self.record else str(self.row.provenance.get("dispatch", self.row.matcher))

    @property
    def op(self) -> str:
        """A description of the matched ops; empty if the predicate could not be read."""
        return describe(self.predicate) if self.predicate else ""

    @property
    def config(self) -> str:
        """The config in short: its knobs if there is a record, else the lowering config."""
        knobs = self.record.knobs if self.record else {}
        return ", ".join(f"{name}={value}" for name, value in knobs.items()) or self.row.config

    @property
    def device(self) -> str:
        """The device that the entry was measured on; empty if it is not recorded."""
        return self.record.device if self.record else str(self.row.provenance.get("device", ""))

    @property
    def iree(self) -> str:
        """The release of IREE that the entry was made with; empty if it is not recorded."""
        return self.record.iree if self.record else str(self.row.provenance.get("iree", ""))

    @property
    def time_us(self) -> float | None:
        """The median time of the recorded samples."""
        return statistics.median(self.record.samples_us) if self.record and self.record.samples_us else None


class SpecView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two specs."""

    name: str
    """The name of the spec in messages."""
    entries: tuple[SpecEntryView, ...] = ()
    problem: str = ""
    """The reason why the spec does not parse; its entries are then those of its records."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one entry; pairs are the values before and after."""

    name: str
    what: Literal["added", "removed", "changed", "moved"]
    """The kind of change: a moved entry now stands in front of another one that may match the same ops."""
    op: str = ""
    """A description of the matched ops."""
    pipeline: str = ""
    knobs: dict[str, tuple[int | None, int | None]] = {}
    """The knobs that differ, ``None`` on a side without such a knob; empty if a record is missing."""
    before: str = ""
    """The entry that a moved one now stands in front of."""
    configs: tuple[str, str] | None = None
    """The texts of the lowering configs if a record is missing, or of the whole configs if those are alike."""
    pipelines: tuple[str, str] | None = None
    iree: tuple[str, str] | None = None
    device: tuple[str, str] | None = None
    times_us: tuple[float | None, float | None] = (None, None)
    ratios: tuple[float | None, float | None] = (None, None)


def view_of(name: str, spec: str, records: Iterable[WinnerRecord]) -> SpecView:
    """Return the side for a spec's text and its records; an empty text has no entries.

    Raises:
        InputError: the text is no tuning spec that this IREE parses, and there are no records; or it is refused.
    """
    if not spec:
        return SpecView(name=name)
    try:
        rows, predicates = read_spec(spec), read_predicates(spec)
    except SpecRefused:
        raise
    except InputError as error:
        known = tuple(SpecEntryView(row=_row_of(record), record=record) for record in records)
        if not known:
            raise
        return SpecView(name=name, entries=known, problem=str(error))
    found = zip(rows, predicates, records_of(rows, records), strict=True)
    return SpecView(name=name, entries=tuple(_view_of_entry(*one) for one in found))


def _view_of_entry(row: SpecRow, predicate: MatchPredicate | None, record: WinnerRecord | None) -> SpecEntryView:
    if record is not None and row.config and record.config and not is_same_config(row.config, record.config):
        return SpecEntryView(row=row, predicate=predicate, is_edited=True)
    return SpecEntryView(row=row, predicate=predicate, record=record)


def read_view(path: Path) -> SpecView:
    """Read a spec file and the records beside it.

    Raises:
        InputError: the file cannot be read, or is no tuning spec and has no records.
    """
    text = read_text(path)
    try:
        return view_of(str(path), text, stream_records(path))
    except InputError as error:
        raise InputError(f"tuning spec {path}: {error}") from error


def diff(old: SpecView, new: SpecView) -> tuple[Change, ...]:
    """Return the changes in the order of the new spec's entries, then the entries that are gone.

    An entry that was measured again, with the same config, device and IREE, did not change.
    """
    changes: list[Change] = []
    left = list(old.entries)
    pairs: list[tuple[SpecEntryView, SpecEntryView]] = []
    for entry in new.entries:
        before = next((other for other in left if _is_same(other, entry)), None)
        if before is None:
            changes.append(_added_or_removed(entry, "added"))
            continue
        left.remove(before)
        pairs.append((before, entry))
        if (change := _changed(before, entry)) is not None:
            changes.append(change)
    changes += _reordered(old, pairs)
    changes += [_added_or_removed(entry, "removed") for entry in left]
    return tuple(changes)


def describe_change(change: Change) -> str:
    """Return one line that describes a change."""
    if change.what == "moved":
        return f"{change.name}: now stands in front of {change.before}, which may match the same ops"
    if change.what != "changed":
        time_us, ratio = (pair[change.what == "added"] for pair in (change.times_us, change.ratios))
        about = [change.op, change.pipeline, format_us(time_us), f"{ratio:.2f}x" if ratio else ""]
        return f"{change.name}: {change.what} ({', '.join(part for part in about if part and part != '-')})"
    parts = [f"{name}: {_value(old)} -> {_value(new)}" for name, (old, new) in change.knobs.items()]
    for name, pair in (
        ("pipeline", change.pipelines),
        ("config", change.configs),
        ("IREE", change.iree),
        ("device", change.device),
    ):
        if pair is not None:
            parts.append(f"{name}: {pair[0] or 'unknown'} -> {pair[1] or 'unknown'}")
    if any(change.times_us):
        parts.append(f"time: {_timing(change, 0)} -> {_timing(change, 1)}")
    return f"{change.name}: {', '.join(parts)}"


def _row_of(record: WinnerRecord) -> SpecRow:
    return SpecRow(
        matcher=matcher_name(record.dispatch),
        compilation_info=record.compilation_info,
        pipeline=record.pipeline,
        config=record.config,
    )


def _is_same(old: SpecEntryView, new: SpecEntryView) -> bool:
    if old.predicate is None or new.predicate is None:
        return old.name == new.name
    return relation(old.predicate, new.predicate) == "equal"


def _added_or_removed(entry: SpecEntryView, what: Literal["added", "removed"]) -> Change:
    ratio = entry.record.ratio if entry.record else None
    return Change(
        name=entry.name,
        what=what,
        op=entry.op,
        pipeline=entry.row.pipeline,
        times_us=(entry.time_us, None) if what == "removed" else (None, entry.time_us),
        ratios=(ratio, None) if what == "removed" else (None, ratio),
    )


def _changed(old: SpecEntryView, new: SpecEntryView) -> Change | None:
    """Return the change between two states of an entry, if there is any."""
    same_config = old.row.compilation_info == new.row.compilation_info
    part = "compilation_info" if old.row.config == new.row.config else "config"
    knobs = {} if same_config else _changed_knobs(old.record, new.record)
    change = Change(
        name=new.name,
        what="changed",
        op=new.op,
        knobs=knobs,
        pipelines=_pair(old.row.pipeline, new.row.pipeline),
        configs=None if same_config or knobs else (getattr(old.row, part), getattr(new.row, part)),
        iree=_pair(old.iree, new.iree),
        device=_pair(old.device, new.device),
    )
    if not (change.knobs or change.pipelines or change.configs or change.iree or change.device):
        return None
    ratios = [entry.record.ratio if entry.record else None for entry in (old, new)]
    return msgspec.structs.replace(change, times_us=(old.time_us, new.time_us), ratios=(ratios[0], ratios[1]))


def _changed_knobs(old: WinnerRecord | None, new: WinnerRecord | None) -> dict[str, tuple[int | None, int | None]]:
    if old is None or new is None:
        return {}
    return {
        name: (old.knobs.get(name), new.knobs.get(name))
        for name in dict.fromkeys([*old.knobs, *new.knobs])
        if old.knobs.get(name) != new.knobs.get(name)
    }


def _reordered(old: SpecView, pairs: Sequence[tuple[SpecEntryView, SpecEntryView]]) -> Iterable[Change]:
    """Yield the entries that changed their order with another one, if that may change which of the two wins."""
    for position, (before, entry) in enumerate(pairs):
        for other_before, other in pairs[position + 1 :]:
            if old.entries.index(other_before) < old.entries.index(before) and not _are_apart(entry, other):
                yield Change(name=entry.name, what="moved", op=entry.op, before=other.name)


def _are_apart(one: SpecEntryView, other: SpecEntryView) -> bool:
    return one.predicate is None or other.predicate is None or relation(one.predicate, other.predicate) == "apart"


def _pair(old: str, new: str) -> tuple[str, str] | None:
    return None if old == new else (old, new)


def _value(value: int | None) -> str:
    return "none" if value is None else str(value)


def _timing(change: Change, view: int) -> str:
    ratio = change.ratios[view]
    return format_us(change.times_us[view]) + (f" ({ratio:.2f}x)" if ratio else "")
