"""What differs between two specs, or two states of one, entry by entry and in words.

Two entries are one and the same where they ask the same of an op, however they are named. A spec that this IREE does
not parse is known by its records alone, whose dispatches' names stand for the questions.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.snapshot import read_records, record_of
from pytest_shark_tune.stages.question import Question, describe, read_questions, relation
from pytest_shark_tune.stages.record import WinnerRecord
from pytest_shark_tune.stages.spec import SpecRow, matcher_name, read_spec

__all__ = ["Change", "Side", "SideEntry", "diff", "read_side", "side_of", "words"]


class SideEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec: its row, what it asks where that could be read, and its record if there is one."""

    row: SpecRow
    question: Question | None = None
    record: WinnerRecord | None = None

    @property
    def name(self) -> str:
        """The dispatch's name, else the matcher's."""
        return self.record.dispatch if self.record else str(self.row.provenance.get("dispatch", self.row.matcher))

    @property
    def device(self) -> str:
        """What the entry was measured on, empty where nobody wrote it down."""
        return self.record.device if self.record else str(self.row.provenance.get("device", ""))

    @property
    def iree(self) -> str:
        """The release of IREE that the entry was made with, empty where nobody wrote it down."""
        return self.record.iree if self.record else str(self.row.provenance.get("iree", ""))

    @property
    def time_us(self) -> float | None:
        """The median time of the recorded samples."""
        return statistics.median(self.record.samples_us) if self.record and self.record.samples_us else None


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two specs; ``name`` is what words call it."""

    name: str
    entries: tuple[SideEntry, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one entry; ``old`` is before and ``new`` after, in pairs.

    ``what`` is ``moved`` where the entry is the same, but stands on the other side of one that matches some of its ops.
    ``knobs`` are those that differ, ``None`` where one side has no such knob, by name; they are empty where a record is
    missing, and then ``configs`` are the texts of the compilation infos, if these differ.
    """

    name: str
    what: Literal["added", "removed", "changed", "moved"]
    op: str = ""
    knobs: dict[str, tuple[int | None, int | None]] = {}
    configs: tuple[str, str] | None = None
    pipelines: tuple[str, str] | None = None
    iree: tuple[str, str] | None = None
    device: tuple[str, str] | None = None
    times_us: tuple[float | None, float | None] = (None, None)
    ratios: tuple[float | None, float | None] = (None, None)


def side_of(name: str, spec: str, records: Sequence[WinnerRecord]) -> Side:
    """A side made of a spec's text and its records; an empty text has no entries.

    Raises:
        InputError: the text is no tuning spec that this IREE parses, and there are no records.
    """
    raise NotImplementedError


def read_side(path: Path) -> Side:
    """A spec file and the records beside it.

    Raises:
        InputError: the file cannot be read, or is no tuning spec and has no records.
    """
    raise NotImplementedError


def diff(old: Side, new: Side) -> tuple[Change, ...]:
    """What differs, in the order of the new side's entries, then of those that are gone; nothing where all is alike.

    An entry that was measured again, with the same config, device and IREE, did not change.
    """
    raise NotImplementedError


def words(change: Change) -> str:
    """One line that says what became of an entry."""
    raise NotImplementedError
