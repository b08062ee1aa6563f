"""Merging specs: which entries stay, in which order, and why.

In a spec the first matcher that matches an op wins, so an entry behind one that matches all of its ops is dead. If two
entries may match the same op otherwise, both stay, and a finding tells which of them wins there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from pytest_shark_tune.records.diff import SpecEntryView, view_of
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.link import SpecPart, merge_specs
from pytest_shark_tune.spec.predicate import MatchPredicate, Relation, relation

__all__ = ["MergeConflict", "MergeInput", "MergedSpec", "merge"]


class MergeInput(msgspec.Struct, frozen=True, kw_only=True):
    """A spec to merge."""

    name: str
    text: str
    records: tuple[WinnerRecord, ...] = ()
    is_starter: bool = False
    """True if its entries stand behind those of all others."""


_RELATIONS = {
    "equal": "matches the same ops as",
    "covered": "matches only ops that also match",
    "covers": "matches, besides others, all ops of",
    "overlaps": "may match the same ops as",
}


class MergeConflict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for an entry that may match the same ops as another one, which stands in front of it."""

    spec: str
    """The name of the entry's spec."""
    entry: str
    """The entry's matcher."""
    op: str
    """A description of the matched ops."""
    relation: Relation
    """The relation of the entry's match predicate to the other one's."""
    other_spec: str
    """The name of the other entry's spec."""
    other: str
    """The other entry's matcher."""
    outcome: Literal["dropped", "behind"]
    why: str
    """The reason why the other entry is preferred."""

    def __str__(self) -> str:
        """Return one line for people."""
        how = _RELATIONS.get(self.relation, "has a matcher that cannot be read here, so it may match the same ops as")
        outcome = "dropped" if self.outcome == "dropped" else "kept behind it"
        return f"{self.spec}: {self.entry} ({self.op}) {how} {self.other} of {self.other_spec}: {outcome}, {self.why}"


class MergedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A merged spec."""

    text: str
    entries: int
    """The number of its entries."""
    records: tuple[WinnerRecord, ...]
    """The records of its entries, as far as they have any."""
    conflicts: tuple[MergeConflict, ...]
    warnings: tuple[str, ...]
    """Sentences about entries that may not fit together."""


def merge(inputs: Sequence[MergeInput], *, prefer_faster: bool = False) -> MergedSpec:
    """Make one spec of several.

    The entries of earlier specs win. An entry is dropped if another one in front of it matches all of its ops.

    Args:
        inputs: the specs.
        prefer_faster: whether entries with the higher recorded speedup win. An entry for fewer ops is then put in front
            of one that matches all of its ops if it has a speedup of its own, because it was measured on just those
            ops. Without one it stays in front only if it stood there before.

    Raises:
        InputError: an input is no tuning spec, or they cannot be linked.
    """
    entries = _merge_entries(inputs)
    order = sorted(entries, key=lambda entry: (entry.is_starter, -(entry.speedup or 0) if prefer_faster else 0))
    kept: list[_MergeEntry] = []
    dropped: list[tuple[_MergeEntry, _MergeEntry]] = []
    for entry in order:
        in_front = [(other, relation(entry.predicate, other.predicate)) for other in kept]
        winner = next((other for other, how in in_front if how == "equal"), None)
        covering = [other for other, how in in_front if how == "covered"]
        if winner is None and covering and not (prefer_faster and _goes_in_front(entry, covering)):
            winner = covering[0]
        if winner is not None:
            dropped.append((entry, winner))
        elif covering:
            kept.insert(kept.index(covering[0]), entry)
        else:
            kept.append(entry)
    names = _names(kept)
    parts = [
        SpecPart(text=given.text, entries={entry.matcher: names[entry] for entry in kept if entry.source == number})
        for number, given in enumerate(inputs)
    ]
    return MergedSpec(
        text=merge_specs(parts, [(entry.source, entry.matcher) for entry in kept]),
        entries=len(kept),
        records=tuple(
            msgspec.structs.replace(entry.record, dispatch=names[entry]) for entry in kept if entry.record is not None
        ),
        conflicts=tuple(_conflicts(kept, dropped, prefer_faster=prefer_faster)),
        warnings=tuple(_warnings(kept)),
    )


@dataclass(frozen=True, eq=False)
class _MergeEntry:
    """An entry of an input."""

    source: int
    """The number of the input."""
    place: int
    """The entry's position among those of all inputs."""
    spec: str
    is_starter: bool
    given: SpecEntryView

    @property
    def matcher(self) -> str:
        return self.given.row.matcher

    @property
    def predicate(self) -> MatchPredicate:
        assert self.given.predicate is not None  # The text was parsed.
        return self.given.predicate

    @property
    def record(self) -> WinnerRecord | None:
        return self.given.record

    @property
    def speedup(self) -> float | None:
        """The recorded ratio, else the one in the spec itself."""
        if self.record is not None and self.record.ratio is not None:
            return self.record.ratio
        try:
            return float(self.given.row.provenance["speedup"])
        except (KeyError, ValueError):
            return None


def _merge_entries(inputs: Sequence[MergeInput]) -> list[_MergeEntry]:
    entries: list[_MergeEntry] = []
    for source, given in enumerate(inputs):
        for entry in view_of(given.name, given.text, given.records).entries:
            entries.append(_MergeEntry(source, len(entries), given.name, given.is_starter, entry))
    return entries


def _goes_in_front(entry: _MergeEntry, covering: Sequence[_MergeEntry]) -> bool:
    """Return whether an entry belongs in front of entries that match all of its ops and more."""
    if entry.is_starter and not all(other.is_starter for other in covering):
        return False
    return entry.speedup is not None or all(entry.place < other.place for other in covering)


def _names(kept: Sequence[_MergeEntry]) -> dict[_MergeEntry, str]:
    """Return the dispatch's name of each entry, made unique among them; empty for an entry that never had any."""
    taken: set[str] = set()
    names: dict[_MergeEntry, str] = {}
    for entry in sorted(kept, key=lambda entry: entry.place):
        name = entry.given.name if entry.record or "dispatch" in entry.given.row.provenance else ""
        fresh, number = name, 1
        while name and fresh in taken:
            number += 1
            fresh = f"{name}_{number}"
        taken.add(fresh)
        names[entry] = fresh
    return names


def _conflicts(
    kept: Sequence[_MergeEntry], dropped: Sequence[tuple[_MergeEntry, _MergeEntry]], *, prefer_faster: bool
) -> Iterable[MergeConflict]:
    pairs = [(entry, other) for position, entry in enumerate(kept) for other in kept[:position]]
    # The author of a spec wanted its own order: nothing is said of it as long as it stays.
    behind = [(entry, other) for entry, other in pairs if entry.source != other.source or entry.place < other.place]
    for entry, other in [*dropped, *behind]:
        if (how := relation(entry.predicate, other.predicate)) != "apart":
            yield MergeConflict(
                spec=entry.spec,
                entry=entry.matcher,
                op=entry.given.op,
                relation=how,
                other_spec=other.spec,
                other=other.matcher,
                outcome="behind" if entry in kept else "dropped",
                why=_why(entry, other, how, prefer_faster=prefer_faster),
            )


def _why(entry: _MergeEntry, winner: _MergeEntry, how: Relation, *, prefer_faster: bool) -> str:
    """Return why ``winner`` is preferred to ``entry``."""
    if entry.is_starter and not winner.is_starter:
        return "since a starter's entries stand behind"
    if prefer_faster and how == "covers":
        return "since that entry is for fewer ops" + (" and was measured on these" if winner.speedup else "")
    ours, theirs = entry.speedup, winner.speedup
    if prefer_faster and (theirs or 0) > (ours or 0):
        return f"since that entry is faster ({theirs:.3f}x, this one {'unknown' if ours is None else f'{ours:.3f}x'})"
    if prefer_faster and (theirs or 0) < (ours or 0):
        return "since that entry must stand in front of one that matches all of its ops"
    if entry.source == winner.source:
        return "since that entry stands in front of it"
    remedy = f"; it stays if {entry.spec} is named first" if how == "covered" else ""
    return f"since {winner.spec} comes first{remedy}"


def _warnings(kept: Iterable[_MergeEntry]) -> Iterable[str]:
    """Yield sentences about entries that were made for different devices or targets."""
    for what in ("device", "target"):
        specs: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for entry in kept:
            found = entry.given.device if what == "device" else entry.record.target if entry.record else ""
            if found:
                specs[found][entry.spec] = None
        if len(specs) > 1:
            listed = "; ".join(f"{found} ({', '.join(names)})" for found, names in specs.items())
            yield f"entries were made for different {what}s: {listed}"
