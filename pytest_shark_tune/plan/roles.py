"""The roles of tests, and the phases in which they run."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["Phase", "Role"]


class Phase(IntEnum):
    """When a test may start: once every test of the phases before has ended."""

    ORDINARY = 0
    CANDIDATE = 1
    FINAL = 2
    SPEC = 3
    END_TO_END = 4


class Role(StrEnum):
    """What a test is for."""

    DEFAULT = "default"
    CANDIDATE = "candidate"
    FINAL = "final"
    SPEC = "spec"
    END_TO_END = "end-to-end"
    INPUT = "input"
    PROMISE = "promise"

    @property
    def phase(self) -> Phase:
        """When a test of this role may run."""
        return _PHASES[self]


_PHASES = {
    Role.DEFAULT: Phase.CANDIDATE,
    Role.CANDIDATE: Phase.CANDIDATE,
    Role.FINAL: Phase.FINAL,
    Role.SPEC: Phase.SPEC,
    Role.END_TO_END: Phase.END_TO_END,
    Role.INPUT: Phase.ORDINARY,
    Role.PROMISE: Phase.ORDINARY,
}
