"""Checks of a spec entry and their verdicts."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["CheckOutcome", "EntryCheck", "Verdict"]


class EntryCheck(StrEnum):
    """The checks of an entry, in the order in which they run: none can pass if one before it fails."""

    PARSES = "parses"
    ALLOWED = "allowed"
    APPLIES = "applies"
    CORRECT = "correct"
    FAST = "fast"

    @property
    def is_static(self) -> bool:
        """Whether it needs no device."""
        return self not in (EntryCheck.CORRECT, EntryCheck.FAST)


class CheckOutcome(StrEnum):
    """The outcome of a check: skipped if it cannot run here, undecided if the time did not suffice."""

    PASSED = "kept"
    FAILED = "broken"
    UNDECIDED = "undecided"
    SKIPPED = "skipped"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of one check of one entry."""

    entry: str
    """The name of the entry."""
    check: EntryCheck = msgspec.field(name="promise")
    """The check."""
    outcome: CheckOutcome
    """The outcome."""
    reason: str = ""
    """Why the check failed, was not decided or was skipped."""
    note: str = ""
    """A remark on a check that passed, for instance that the default is as fast by now."""
    metrics: dict[str, float] = msgspec.field(default_factory=dict, name="figures")
    """The numbers behind the verdict, by a name with the unit (``ratio``, ``ratio_low``, ``baseline_us``, ...)."""
