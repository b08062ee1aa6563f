"""Checks of a spec entry and their verdicts."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pytest_shark_tune.records.baseline import BaselineRecord

__all__ = ["CHECKS_OF_BITWISE_ENTRY", "CHECKS_OF_ENTRY", "CHECKS_OF_FORM", "CheckOutcome", "EntryCheck", "Verdict"]


class EntryCheck(StrEnum):
    """The checks of an entry or of a model's form, in their order: none can pass if one before it fails.

    The last ones need no spec: they compare a dispatch or a model with what another compiler makes of it, or with
    recorded times.
    """

    COMPILES = "compiles"
    PARSES = "parses"
    ALLOWED = "allowed"
    APPLIES = "applies"
    CORRECT = "correct"
    BITS = "bits"
    FAST = "fast"
    AGAINST = "against"
    BASELINE = "baseline"
    GOLDEN = "golden"

    @property
    def needs_no_spec(self) -> bool:
        """Whether it checks no entry of a spec."""
        return self in (EntryCheck.AGAINST, EntryCheck.BASELINE, EntryCheck.GOLDEN)

    @property
    def is_static(self) -> bool:
        """Whether it needs no device."""
        return self not in (EntryCheck.CORRECT, EntryCheck.BITS, EntryCheck.FAST) and not self.needs_no_spec


CHECKS_OF_FORM = (EntryCheck.COMPILES, EntryCheck.CORRECT, EntryCheck.FAST)
"""The checks of a model's form."""
CHECKS_OF_BITWISE_ENTRY = tuple(
    check for check in EntryCheck if check is not EntryCheck.COMPILES and not check.needs_no_spec
)
"""The checks of an entry of a spec that was tuned with ``--tune-bitwise``."""
CHECKS_OF_ENTRY = tuple(check for check in CHECKS_OF_BITWISE_ENTRY if check is not EntryCheck.BITS)
"""The checks of another entry of a spec."""


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
    by_identity: bool = False
    """Whether a speed check passed without a measurement, since the machine code is the one that was measured."""
    recorded: BaselineRecord | None = None
    """The times of a dispatch or model that the baseline did not have."""
    calls: dict[str, int] = msgspec.field(default_factory=dict)
    """How often each model calls a dispatch that was compared with another compiler's."""
    calibration: dict[str, float] = msgspec.field(default_factory=dict)
    """The times of microbenchmarks beside a measured speed, if a history is kept; see `guard.history`."""
    metrics: dict[str, float] = msgspec.field(default_factory=dict, name="figures")
    """The numbers behind the verdict, by a name with the unit (``ratio``, ``ratio_low``, ``baseline_us``, ...)."""
