"""The result of a test, as it travels to the controller."""

from __future__ import annotations

import msgspec

from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import FinalRecord, Record, SpecRecord

__all__ = ["TestResult"]


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one test, as it travels with the test's report."""

    __test__ = False  # pytest is not to collect it.

    plan: str
    """The plan's key in the cache."""
    suite: str
    """The directory of the test's suite; empty for a model file."""
    record: Record | None = None
    final: FinalRecord | None = None
    spec: SpecRecord | None = None
    form: FormRecord | None = None
    compiled: tuple[str, str] | None = None
    """A dispatch's name and the id of a candidate that was compiled and not measured."""
    is_ours: bool = True
    """False if a suite's own stages gave the result."""
