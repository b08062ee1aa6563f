"""The step of ``shark-tune merge --generalize``: entries that differ in one size become entries for ranges of sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.commands.session import open_session
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import devices_for
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.guard.generalize import generalize
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.records.draft import spec_of
from pytest_shark_tune.records.generalize import families
from pytest_shark_tune.records.merge import MergedSpec, MergeInput, merge
from pytest_shark_tune.records.types import WinnerRecord

__all__ = ["describe_families", "generalized"]


def describe_families(records: Iterable[WinnerRecord]) -> Iterator[str]:
    """Yield the families that would be measured, a line each."""
    found = families(records)
    for family in found:
        yield f"{family}; {len(family.configs)} of their configs would be measured at each of these sizes"
    if not found:
        yield "no two entries with records differ in one size of a contraction: there is nothing to generalize"


def generalized(
    merged: MergedSpec, name: str, devices: Sequence[str], cache_directory: Path | None, flags: Sequence[str]
) -> tuple[MergedSpec, tuple[str, ...]]:
    """Measure the families of a merged spec, and put general entries in the place of theirs.

    Args:
        merged: The spec.
        name: Its name in messages.
        devices: The devices that may be used.
        cache_directory: The cache; the user's own without one.
        flags: The user's flags for iree-compile.

    Returns:
        The spec, and what was measured.

    Raises:
        InputError: There is no device for the records' target, or their entries are for several targets.
    """
    found = families(merged.records)
    if not found:
        return merged, tuple(describe_families(merged.records))
    targets = {family.records[0].target for family in found}
    if len(targets) > 1:
        raise InputError(
            f"--generalize: the entries are for several targets, {', '.join(sorted(targets))}: merge those of one"
        )
    compiler = Compiler(Target.parse(*targets), flags)
    compiler.check()
    with open_session(compiler, devices_for(compiler.target, devices), ModelInput(), cache_directory) as session:
        here = session.settings.device_name
        local = [family for family in found if family.records[0].device == here]
        parts = [generalize(family, session) for family in local]
    notes = [f"{family}: they were measured on {family.records[0].device}, and this is {here}" for family in found]
    notes = [note for note, family in zip(notes, found, strict=True) if family not in local]
    notes += [note for part in parts for note in part.notes]
    records = tuple(record for part in parts for record in part.records)
    if not records:
        return merged, tuple(notes)
    general = MergeInput(name="the generalized entries", text=spec_of(records).text, records=records)
    again = merge([general, MergeInput(name=name, text=merged.text, records=merged.records)])
    earlier = tuple(conflict for conflict in merged.conflicts)
    replaced = tuple(conflict for conflict in again.conflicts if conflict.outcome != "dropped")
    return msgspec.structs.replace(again, conflicts=earlier + replaced, warnings=merged.warnings), tuple(notes)
