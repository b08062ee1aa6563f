"""The roles of tests, and the phases in which they run."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["Phase", "Role"]


class Phase(IntEnum):
    """The phase of a test. A test may start once every test of the earlier phases has ended."""

    ORDINARY = 0
    CANDIDATE = 1
    FINAL = 2
    FORM_FINAL = 3
    SPEC = 4
    END_TO_END = 5


class Role(StrEnum):
    """The purpose of a test."""

    DEFAULT = "default"
    CANDIDATE = "candidate"
    FORM = "form"
    FINAL = "final"
    FORM_FINAL = "form-final"
    SPEC = "spec"
    END_TO_END = "end-to-end"
    INPUT = "input"
    CHECK = "promise"

    @property
    def phase(self) -> Phase:
        """The phase of a test with this role: the one of its name, or that of ordinary tests."""
        return Phase.CANDIDATE if self is Role.DEFAULT else Phase.__members__.get(self.name, Phase.ORDINARY)
