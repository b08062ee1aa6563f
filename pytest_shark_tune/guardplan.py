"""The plan of a guard run: which entries of which spec are looked at, each with the dispatches that it is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.plan import Plan, Source, Task
from pytest_shark_tune.stages.record import WinnerRecord
from pytest_shark_tune.tools.compiler import Compiler

__all__ = ["GuardEntry", "GuardPlan", "make_guard_plan"]


class GuardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec. ``name`` is NAME of its tests' ids: its record's dispatch, else its matcher's symbol.

    ``matcher`` is that symbol, empty where the record is there and the entry is gone from the spec. ``problem`` says in
    words why the entry, or the whole spec, does not parse. ``tasks`` are the dispatches of the sources that it is for,
    each with its default and, as the only candidate, this entry's config: those of the record's structure, without a
    record those that it matches. ``is_local`` says that its figures were taken on this very model of device, or that
    nobody knows where.
    """

    name: str
    matcher: str = ""
    compilation_info: str = ""
    record: WinnerRecord | None = None
    problem: str = ""
    tasks: tuple[Task, ...] = ()
    is_local: bool = True


class GuardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one test function, or one model file, guards: a spec's text and entries, and what they are looked at in.

    ``plan`` has the sources and all dispatches, each with its default and no candidates.
    """

    spec_path: str
    spec: str
    entries: tuple[GuardEntry, ...]
    plan: Plan

    def entry(self, name: str) -> GuardEntry:
        """The entry of that name."""
        return next(each for each in self.entries if each.name == name)


def make_guard_plan(
    sources: Sequence[Source],
    spec_path: Path,
    compiler: Compiler,
    *,
    device_name: str,
    processors: int,
    tell: Callable[[str], None] = lambda message: None,
) -> GuardPlan:
    """Extract the dispatches of ``sources`` and find those that each entry of the spec is for.

    Raises:
        InputError: the compiler rejects a source, or the spec cannot be read; one that does not parse is no error.
    """
    raise NotImplementedError
