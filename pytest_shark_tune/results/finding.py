"""The result of a test, as it travels to the controller."""

from __future__ import annotations

import msgspec

from pytest_shark_tune.records.types import FinalRecord, Record, SpecRecord

__all__ = ["Finding"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one test found out, as it travels with the test's report; ``plan`` is the plan's key in the cache.

    ``suite`` is the folder of the suite that the test belongs to, empty for a model file. ``is_ours`` says that our own
    stages found it out. ``compiled`` are a dispatch's name and the id of a candidate with which nothing more was done.
    """

    plan: str
    suite: str
    record: Record | None = None
    final: FinalRecord | None = None
    spec: SpecRecord | None = None
    compiled: tuple[str, str] | None = None
    is_ours: bool = True
