"""The plan of a guard run: the entries of a spec, with their dispatches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION
from pytest_shark_tune.dispatch.foreign.trust import trusts_specs
from pytest_shark_tune.errors import InputError, SpecRefused
from pytest_shark_tune.guard.verdict import CHECKS_OF_BITWISE_ENTRY, CHECKS_OF_ENTRY, CHECKS_OF_FORM, EntryCheck
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.baseline import BaselineRecord, GoldenTime
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.snapshot import (
    DIRECTORY,
    damaged_records,
    places_of,
    read_text,
    records_digest,
    records_of,
    records_path,
    stream_records,
)
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space.candidate import applied_candidate
from pytest_shark_tune.spec.build import SPEC_VERSION, single_entry_spec
from pytest_shark_tune.spec.read import SpecRow, dropped_prints, read_spec, refused_entries
from pytest_shark_tune.spec.takers import takers
from pytest_shark_tune.system.cache import content_key

__all__ = ["GUARD_VERSION", "GuardEntry", "GuardPlan", "GuardedForm", "guard_key", "make_guard_plan"]

GUARD_VERSION: Final = 7
"""Which dispatches an entry is for, how static checks decide, and the form of a `GuardPlan` in the cache.

Raise it if the same spec may get another plan, or a static check another verdict.
"""

_WHOLE = "spec"
"""The name of the single entry that stands for a spec that does not parse and has no records."""
_OTHERS = "others"
"""The name of the entry that stands for all but the first records of entries that are gone."""
_MOST_GONE = 100
"""The most records whose entries are gone that get tests of their own."""
_MOST_UNPARSED = 1000
"""The most records of a spec that does not parse that get tests of their own."""
_ENTRY_ID = "entry"
"""The id of the candidate if no record has one."""


class RivalSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatch or a whole model that is compared with another compiler's."""

    compiler: str
    """The other compiler, by the name that the user gave."""
    model: str = ""
    """The model's name; empty for a dispatch."""
    spec: str = ""
    """The text of the spec with which a model is compared; empty without one."""
    task: Task | None = None
    """The dispatch as this compiler has it. With a spec its only candidate is the spec's config."""
    rival: Task | None = None
    """The dispatch of the same structure as the other compiler has it, with the same candidate."""
    calls: dict[str, int] = {}
    """How often each model calls the dispatch."""
    unmatched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """The dispatches of a model that only this compiler has, and those that only the other one has."""


class BaselineSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatch or a whole model that is compared with recorded times."""

    model: str = ""
    """The model's name; empty for a dispatch."""
    task: Task | None = None
    """The dispatch."""
    record: BaselineRecord | None = None
    """Its recorded time; ``None`` if it is to be recorded."""
    golden: GoldenTime | None = None
    """The longest time that the model may take, if that is to be checked."""


class GuardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec."""

    name: str
    """The name in the ids of its tests: the dispatch of its record, or else the symbol of its matcher."""
    matcher: str = ""
    """The symbol of its matcher; empty for a record whose entry is gone from the spec."""
    compilation_info: str = ""
    """Its config."""
    record: WinnerRecord | None = None
    """Its record, if it has one."""
    problem: str = ""
    """Why the entry or the spec does not parse, or how entry and record disagree. Such an entry has no tasks."""
    tasks: tuple[Task, ...] = ()
    """Its dispatches, with the entry's config as the only candidate.

    They have the structure of the record. If there are none, they are the dispatches to which the entry applies, or
    would apply if no entry before it matched them.
    """
    device: str = ""
    """The model of the device that it was measured on, by its record or the spec; empty if neither says."""
    is_local: bool = True
    """Whether that is the model of the devices here, or is not known."""
    note: str = ""
    """The ops of the spec that are left out; a note on the first entry that parses."""
    form: FormRecord | None = None
    """The record of a model's form, which is guarded like an entry."""
    rival: RivalSubject | None = None
    """What is compared with another compiler's code, in place of an entry of a spec."""
    baseline: BaselineSubject | None = None
    """What is compared with recorded times, in place of an entry of a spec."""

    @property
    def needs_no_spec(self) -> bool:
        """Whether it is no entry of a spec."""
        return self.rival is not None or self.baseline is not None

    @property
    def checks(self) -> tuple[EntryCheck, ...]:
        """The checks of the entry, in their order."""
        if self.rival is not None:
            return (EntryCheck.AGAINST,)
        if self.baseline is not None:
            return (EntryCheck.GOLDEN if self.baseline.golden is not None else EntryCheck.BASELINE,)
        if self.form is not None:
            return CHECKS_OF_FORM
        return CHECKS_OF_BITWISE_ENTRY if self.record is not None and self.record.bitwise else CHECKS_OF_ENTRY


class GuardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan for guarding a spec in the sources of one test function, or of one model file."""

    key: str
    """A hash of everything that it was made from, the compiler included."""
    spec_path: str
    """The path of the spec."""
    spec: str
    """The text of the spec."""
    entries: tuple[GuardEntry, ...]
    """The entries of the spec."""
    plan: Plan
    """The sources with all their dispatches, without candidates."""

    def entry(self, name: str) -> GuardEntry:
        """The entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    def blame(self, entry: GuardEntry, reason: object) -> str:
        """The message that an entry fails a check for a reason."""
        return f"{entry.name} of {self.spec_path}: {reason}"


def guard_key(
    plan_key: str, spec_path: Path, device_name: str, forms: Mapping[str, GuardedForm] = MappingProxyType({})
) -> str:
    """The content key of the guard plan that is made from the plan of that key. Static checks depend on nothing else.

    Raises:
        InputError: the spec cannot be read.
    """
    return content_key(
        "guard",
        [GUARD_VERSION, ARTIFACT_VERSION, SPEC_VERSION],
        plan_key,
        str(spec_path),
        _text(spec_path, forms),
        records_digest(spec_path),
        device_name,
        trusts_specs(),
        *([[(form.record, form.problem) for form in forms.values()]] if forms else []),
    )


def make_guard_plan(
    plan: Plan,
    plan_key: str,
    spec_path: Path,
    *,
    device_name: str,
    forms: Mapping[str, GuardedForm] = MappingProxyType({}),
) -> GuardPlan:
    """Find the dispatches of each entry of a spec.

    Args:
        plan: the dispatches, from `found_dispatches`.
        plan_key: the key of that plan.
        spec_path: the spec.
        device_name: the model of the devices here, empty without any.
        forms: the forms of the plan's models, by the model's name.

    Raises:
        InputError: the spec cannot be read. A spec that does not parse is no error.
    """
    spec = _text(spec_path, forms)
    drafts = _named_apart(_drafts(spec_path, spec)) if spec else ()
    found = [_localised(entry, device_name) for entry in _with_tasks(drafts, spec, plan.tasks)]
    entries = _with_note_on(spec_path, spec, found)
    entries = (*(_localised(form.entry, device_name) for form in forms.values()), *entries)
    key = guard_key(plan_key, spec_path, device_name, forms)
    return GuardPlan(key=key, spec_path=str(spec_path), spec=spec, entries=entries, plan=plan)


def _text(spec_path: Path, forms: Mapping[str, GuardedForm]) -> str:
    """The text of a spec; empty if only forms of models won.

    Raises:
        InputError: the spec cannot be read.
    """
    won_alone = bool(forms) and not any(form.record.spec for form in forms.values())
    return "" if won_alone and not spec_path.exists() else read_text(spec_path)


def _missing_records(spec_path: Path) -> Iterator[str]:
    """Yield a note if a snapshot lacks its records. Other specs have none, as a rule."""
    path = records_path(spec_path)
    if spec_path.parent.name == DIRECTORY and not path.exists():
        yield f"{path.name} is missing beside the snapshot: without it, no entry has a recorded speed to keep"


def _with_note_on(spec_path: Path, spec: str, entries: Sequence[GuardEntry]) -> tuple[GuardEntry, ...]:
    """Add a note on the whole spec to the first entry that parses: its records are missing, ops of it are left out."""
    parsed = next((entry for entry in entries if not entry.problem), None)
    notes = [*_missing_records(spec_path), *dropped_prints(spec)] if parsed is not None else []
    if parsed is None or not notes:
        return tuple(entries)
    noted = msgspec.structs.replace(parsed, note="; ".join(notes))
    return tuple(noted if entry is parsed else entry for entry in entries)


# Entries without their dispatches.


def _drafts(spec_path: Path, spec: str) -> Iterator[GuardEntry]:
    """The entries that the spec has or, by its records, should have."""
    try:
        rows = read_spec(spec)
    except SpecRefused as error:
        yield from _refused(spec, str(error), _records(spec_path))
        return
    except InputError as error:
        first, others = _first(_records(spec_path), _MOST_UNPARSED)
        yield from _unparsed(spec, str(error), first)
        if others:
            yield GuardEntry(name=_OTHERS, problem=f"{records_path(spec_path).name} has {others} more records: {error}")
        return
    found = records_of(rows, _records(spec_path))
    damaged = damaged_records(spec_path) if None in found else ()
    for row, record in zip(rows, found, strict=True):
        yield GuardEntry(
            name=_entry_name(row, record),
            matcher=row.matcher,
            compilation_info=row.compilation_info,
            record=record,
            problem=_disagreement(spec_path, row, record) if record else _damage(spec_path, row, damaged),
            device=str(row.provenance.get("device", "")),
        )
    used: dict[str, list[WinnerRecord]] = {}
    for record in filter(None, found):
        used.setdefault(record.dispatch, []).append(record)
    gone, others = _first(
        (record for record in _records(spec_path) if record not in used.get(record.dispatch, ())), _MOST_GONE
    )
    names = f"{spec_path.name} has no such entry any more"
    for record in gone:
        problem = (
            f"{records_path(spec_path).name} has a record of it, and {names}: tune it again with --tune, or delete its "
            "record"
        )
        yield GuardEntry(name=record.dispatch, record=record, problem=problem)
    if others:
        problem = f"{records_path(spec_path).name} has {others} more records of which {names}: delete them"
        yield GuardEntry(name=_OTHERS, problem=problem)


def _records(spec_path: Path) -> Iterator[WinnerRecord]:
    """The records beside a spec. Kernels have no entry."""
    return (record for record in stream_records(spec_path) if record.root is not None)


def _first(records: Iterator[WinnerRecord], most: int) -> tuple[list[WinnerRecord], int]:
    """The first of many records, and the number of the others, which have one entry together."""
    return list(islice(records, most)), sum(1 for _ in records)


def _refused(spec: str, problem: str, records: Iterable[WinnerRecord]) -> Iterator[GuardEntry]:
    """The entries of a spec that has forbidden content; nothing else of it is checked."""
    try:
        entries = refused_entries(spec)
    except InputError:
        entries = ()
    if not entries:
        yield GuardEntry(name=_WHOLE, problem=problem)
        return
    blamed = [row.matcher for row, said in entries if said]
    whole = f"the spec is refused as a whole, because of {', '.join(blamed)}" if blamed else problem
    for (row, said), record in zip(entries, records_of([row for row, _ in entries], records), strict=True):
        yield GuardEntry(name=_entry_name(row, record), matcher=row.matcher, record=record, problem=said or whole)


def _entry_name(row: SpecRow, record: WinnerRecord | None) -> str:
    return record.dispatch if record else str(row.provenance.get("dispatch") or row.matcher)


def _unparsed(spec: str, problem: str, records: Sequence[WinnerRecord]) -> Iterator[GuardEntry]:
    """The entries of a spec that does not parse, with the blame on the records that this IREE cannot use."""
    if not records:
        yield GuardEntry(name=_WHOLE, problem=problem)
        return
    faults = {record.dispatch: fault for record in records if (fault := _fault(record))}
    if not faults:
        # The records are fine, so somebody edited the spec: in the entries whose recorded config is not in it any more.
        edited = [
            record.dispatch
            for record in records
            if applied_candidate("", record.compilation_info, identifier="", knobs={}).config not in spec
        ]
        faults = dict.fromkeys(edited or [record.dispatch for record in records], problem)
    for record in records:
        said = faults.get(record.dispatch) or f"the spec as a whole does not parse, because of {', '.join(faults)}"
        yield GuardEntry(name=record.dispatch, record=record, problem=said)


def _fault(record: WinnerRecord) -> str:
    """Why this IREE cannot make the entry of a record; empty if it can."""
    assert record.root is not None
    try:
        single_entry_spec(record.root, record.compilation_info)
    except SpecRefused as error:
        return str(error)
    except InputError as error:
        return (
            f"{error}. It was written by IREE {record.iree}, this is {compiler_version()}: port it (`shark-tune port`)"
        )
    return ""


def _damage(spec_path: Path, row: SpecRow, lines: Sequence[int]) -> str:
    """Why the record of an entry that had one is missing; empty if the entry never had one.

    ``lines`` are the numbers of the lines beside the spec that are no record.
    """
    if "dispatch" not in row.provenance or not lines:
        return ""
    path = records_path(spec_path)
    return (
        f"no record of it can be read, and {places_of(path, lines)} is none: take {path.name} from version control "
        "again, or delete that line and tune the dispatch again with --tune"
    )


def _disagreement(spec_path: Path, row: SpecRow, record: WinnerRecord) -> str:
    """How an entry and its record disagree; empty if they agree."""
    names = f"{spec_path.name} has another config than its record in {records_path(spec_path).name}"
    remedy = (
        "if somebody edited the spec, tune the dispatch again with --tune, or delete the record to guard the spec as "
        "it stands"
    )
    try:
        recorded = applied_candidate("", record.compilation_info, identifier="", knobs={}).compilation_info
    except InputError as error:
        return f"{names}: {row.compilation_info} instead of what this IREE does not parse: {error}; {remedy}"
    if row.compilation_info == recorded:
        return ""
    return f"{names}: {row.compilation_info} instead of {recorded}; {remedy}"


def _named_apart(drafts: Iterable[GuardEntry]) -> list[GuardEntry]:
    """Give entries of equal names a number, since their tests need different ids."""
    used: set[str] = set()
    named = []
    for draft in drafts:
        name, number = draft.name, 1
        while name in used:
            number += 1
            name = f"{draft.name}_{number}"
        used.add(name)
        named.append(msgspec.structs.replace(draft, name=name))
    return named


class GuardedForm(msgspec.Struct, frozen=True, kw_only=True):
    """The form of a model, as its record beside the spec has it."""

    record: FormRecord
    """The record."""
    problem: str = ""
    """Why the model cannot be handed to the compiler in the form; empty if it can."""

    @property
    def entry(self) -> GuardEntry:
        """The entry that stands for the form."""
        return GuardEntry(name=f"{self.record.model}-form", form=self.record, problem=self.problem)


def _localised(entry: GuardEntry, device_name: str) -> GuardEntry:
    recorded = entry.record or entry.form
    device = recorded.device if recorded else entry.device
    is_local = not device or device == device_name
    return msgspec.structs.replace(entry, device=device, is_local=is_local)


# Their dispatches.


def _with_tasks(drafts: Sequence[GuardEntry], spec: str, tasks: Sequence[Task]) -> Iterator[GuardEntry]:
    of_structure = {
        draft.name: [task for task in tasks if draft.record.root and task.dispatch.key == draft.record.root.key]
        for draft in drafts
        if draft.record
    }
    sought = {draft.matcher for draft in drafts if not draft.problem and not of_structure.get(draft.name)}
    matched = _matched(spec, sought, tasks)
    for draft in drafts:
        if draft.problem:
            yield draft
            continue
        pairs = [(task, draft.compilation_info) for task in of_structure.get(draft.name, ())]
        pairs = pairs or [(task, info or draft.compilation_info) for task, info in matched.get(draft.matcher, ())]
        try:
            yield msgspec.structs.replace(draft, tasks=tuple(_task_of_entry(draft, task, info) for task, info in pairs))
        except InputError as error:
            yield msgspec.structs.replace(draft, problem=f"{draft.matcher}: {error}")


def _task_of_entry(entry: GuardEntry, task: Task, compilation_info: str) -> Task:
    """The task with the entry's config as its only candidate.

    Raises:
        InputError: the entry attaches no config that can be read.
    """
    candidate = applied_candidate(
        task.name,
        compilation_info,
        identifier=entry.record.id if entry.record else _ENTRY_ID,
        knobs=entry.record.knobs if entry.record else {},
    )
    return msgspec.structs.replace(task, candidates=(candidate,))


_Matched = dict[str, list[tuple[Task, str]]]
"""The tasks that each matcher takes, with the attached config; empty if the compiler refuses that."""


def _matched(spec: str, sought: Collection[str], tasks: Sequence[Task]) -> _Matched:
    """The tasks that the matchers in ``sought`` take, or would take if no earlier matcher took them."""
    if not sought:
        return {}
    matchers = [row.matcher for row in read_spec(spec)]
    found_of = [(task, takers(task.dispatch, spec, matchers)) for task in tasks]
    found: _Matched = {}
    for task, taken in found_of:
        for matcher, info in taken:
            found.setdefault(matcher, []).append((task, info))
    shadowed: _Matched = {}
    for task, taken in found_of if set(sought) - set(found) else ():
        names = {matcher for matcher, _ in taken}
        left = [matcher for matcher in matchers if matcher not in names]
        while left and (others := takers(task.dispatch, spec, left)):
            for matcher, info in others:
                shadowed.setdefault(matcher, []).append((task, info))
                left.remove(matcher)
    return shadowed | found
