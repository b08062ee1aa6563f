"""Checks of a spec entry and their verdicts."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["Outcome", "Promise", "Verdict"]


class Promise(StrEnum):
    """What an entry promises, in the order in which it is looked at: none can hold where one before it fails."""

    PARSES = "parses"
    ALLOWED = "allowed"
    APPLIES = "applies"
    CORRECT = "correct"
    FAST = "fast"

    @property
    def is_static(self) -> bool:
        """Whether it is kept or broken without a device."""
        return self not in (Promise.CORRECT, Promise.FAST)


class Outcome(StrEnum):
    """What became of a promise: skipped where it cannot be looked at here, undecided where time did not decide."""

    KEPT = "kept"
    BROKEN = "broken"
    UNDECIDED = "undecided"
    SKIPPED = "skipped"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one promise of one entry.

    ``reason`` says in words why it is broken, undecided or skipped. ``note`` is what is worth telling of one that is
    kept: that the default is as fast by now. ``figures`` are the numbers behind it, by a name with its unit
    (``ratio``, ``ratio_low``, ``ratio_high``, ``baseline_us``, ``tuned_us``, ``rounds``).
    """

    entry: str
    promise: Promise
    outcome: Outcome
    reason: str = ""
    note: str = ""
    figures: dict[str, float] = {}
