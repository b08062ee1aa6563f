"""The plan of a guard run: which entries of which spec are looked at, each with the dispatches that it is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION, Applied, ConfigureFailed, configure_with
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.trust import trusts_specs
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import InputError, SpecRefused
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.snapshot import damaged_records, read_records, read_text, records_of, records_path
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space.candidate import applied_candidate, default_candidate
from pytest_shark_tune.spec.build import SPEC_VERSION, single_entry_spec
from pytest_shark_tune.spec.read import (
    SpecRow,
    dropped_prints,
    mark_entries,
    read_spec,
    refused_entries,
    select_entries,
)
from pytest_shark_tune.system.cache import content_key

__all__ = [
    "GUARD_VERSION",
    "GuardEntry",
    "GuardPlan",
    "applied_to",
    "found_dispatches",
    "guard_key",
    "make_guard_plan",
    "takers",
]

GUARD_VERSION: Final = 1
"""Which dispatches an entry is for, what static promises are held to, and the form of a `GuardPlan` in the cache.

Raise it where the same spec may get another plan, or a static promise of it another verdict.
"""

_WHOLE = "spec"
"""The name of the one entry of a spec that does not parse and has no records."""
_ENTRY_ID = "entry"
"""The candidate's id where no record gives it one."""


class GuardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec. ``name`` is NAME of its tests' ids: its record's dispatch, else its matcher's symbol.

    ``matcher`` is that symbol, empty where the record is there and the entry is gone from the spec. ``problem`` says in
    words why the entry, or the whole spec, does not parse, or how entry and record disagree; such an entry has no
    tasks. ``tasks`` are the dispatches of the sources that it is for, each with its default and, as the only candidate,
    this entry's config: those of the record's structure, without any those on which it is in force, or would be if no
    entry before it matched them. ``device`` is the model of device that its figures were taken on, as its record or
    the spec itself tells, empty where neither does; ``is_local`` says that it is this very one, or that nobody
    knows. ``note`` is worth telling of an entry that parses: which ops of the spec are left out, said of its first one.
    """

    name: str
    matcher: str = ""
    compilation_info: str = ""
    record: WinnerRecord | None = None
    problem: str = ""
    tasks: tuple[Task, ...] = ()
    device: str = ""
    is_local: bool = True
    note: str = ""


class GuardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one test function, or one model file, guards: a spec's text and entries, and what they are looked at in.

    ``plan`` has the sources and all dispatches, each with its default and no candidates. ``key`` is a hash of all that
    this was made from, the compiler included.
    """

    key: str
    spec_path: str
    spec: str
    entries: tuple[GuardEntry, ...]
    plan: Plan

    def entry(self, name: str) -> GuardEntry:
        """The entry of that name."""
        return next(each for each in self.entries if each.name == name)


def found_dispatches(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    processors: int,
    rotate_bytes: int = 0,
    tell: Callable[[str], None] = lambda message: None,
) -> Plan:
    """The dispatches of ``sources``, each with its default and no candidates: no space is looked at.

    ``rotate_bytes`` is as for `make_plan`.

    Raises:
        InputError: the compiler rejects a source.
    """
    extracted = extract_dispatches(sources, compiler, processors, tell)
    tasks = (
        Task(
            dispatch=rotated_dispatch(each, rotate_bytes),
            default=default_candidate(each),
            candidates=(),
            space_size=None,
        )
        for each in extracted.dispatches
    )
    return Plan(sources=extracted.sources, tasks=tuple(tasks), untunable=extracted.untunable)


def guard_key(plan_key: str, spec_path: Path, device_name: str) -> str:
    """The content key of what ``make_guard_plan`` makes of the plan of that key; static promises depend on no more.

    Raises:
        InputError: the spec cannot be read.
    """
    records = [read_records(spec_path), damaged_records(spec_path)]
    return content_key(
        "guard",
        [GUARD_VERSION, ARTIFACT_VERSION, SPEC_VERSION],
        plan_key,
        str(spec_path),
        read_text(spec_path),
        records,
        device_name,
        trusts_specs(),
    )


def make_guard_plan(plan: Plan, plan_key: str, spec_path: Path, *, device_name: str) -> GuardPlan:
    """Find the dispatches of ``plan`` (``found_dispatches``) that each entry of the spec is for.

    ``device_name`` is the model of the devices here, empty without any.

    Raises:
        InputError: the spec cannot be read; one that does not parse is no error.
    """
    spec = read_text(spec_path)
    drafts = _named_apart(_drafts(spec_path, spec, read_records(spec_path)))
    entries = _noted(spec, [_localised(each, device_name) for each in _with_tasks(drafts, spec, plan.tasks)])
    key = guard_key(plan_key, spec_path, device_name)
    return GuardPlan(key=key, spec_path=str(spec_path), spec=spec, entries=entries, plan=plan)


def _noted(spec: str, entries: Sequence[GuardEntry]) -> tuple[GuardEntry, ...]:
    """The entries of a spec, the first that parses with a note on what is left out of the spec."""
    parsed = next((each for each in entries if not each.problem), None)
    if parsed is None or not (left_out := dropped_prints(spec)):
        return tuple(entries)
    noted = msgspec.structs.replace(parsed, note="; ".join(left_out))
    return tuple(noted if each is parsed else each for each in entries)


def applied_to(dispatch: Dispatch, marked: str) -> list[Applied]:
    """The entries of a marked spec (``mark_entries``) that are in force on the dispatch's root op, as it was dumped.

    Raises:
        ConfigureFailed: the compiler refuses a config.
    """
    applied = configure_with(dispatch.members[0].module.text, marked).applied
    return [each for each in applied if each.entry and each.op == dispatch.root.op]


# Entries without what they are for.


def _drafts(spec_path: Path, spec: str, records: Sequence[WinnerRecord]) -> Iterator[GuardEntry]:
    """The entries that the spec has or, as far as its records tell, should have."""
    records = [each for each in records if each.root is not None]  # Kernels have no entry.
    try:
        rows = read_spec(spec)
    except SpecRefused as error:
        yield from _refused(spec, str(error), records)
        return
    except InputError as error:
        yield from _unparsed(spec, str(error), records)
        return
    found = records_of(rows, records)
    for row, record in zip(rows, found, strict=True):
        yield GuardEntry(
            name=_name(row, record),
            matcher=row.matcher,
            compilation_info=row.compilation_info,
            record=record,
            problem=_disagreement(spec_path, row, record) if record else _damage(spec_path, row),
            device=str(row.provenance.get("device", "")),
        )
    for record in records:
        if record not in found:
            problem = (
                f"{records_path(spec_path).name} has a record of it, and {spec_path.name} has no such entry any more: "
                "tune it again with --tune, or delete its record"
            )
            yield GuardEntry(name=record.dispatch, record=record, problem=problem)


def _refused(spec: str, problem: str, records: Sequence[WinnerRecord]) -> Iterator[GuardEntry]:
    """The entries of a spec that holds more than a spec may: none is looked at any further."""
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
        yield GuardEntry(name=_name(row, record), matcher=row.matcher, record=record, problem=said or whole)


def _name(row: SpecRow, record: WinnerRecord | None) -> str:
    return record.dispatch if record else str(row.provenance.get("dispatch") or row.matcher)


def _unparsed(spec: str, problem: str, records: Sequence[WinnerRecord]) -> Iterator[GuardEntry]:
    """The entries of a spec that does not parse: each record tells whether it is to blame."""
    if not records:
        yield GuardEntry(name=_WHOLE, problem=problem)
        return
    faults = {each.dispatch: fault for each in records if (fault := _fault(each))}
    if not faults:
        # Records are fine, so that somebody edited the spec. Where it happened a recorded config is not there any more.
        edited = [each.dispatch for each in records if _config(each) not in spec]
        faults = dict.fromkeys(edited or [each.dispatch for each in records], problem)
    for record in records:
        said = faults.get(record.dispatch) or f"the spec as a whole does not parse, because of {', '.join(faults)}"
        yield GuardEntry(name=record.dispatch, record=record, problem=said)


def _fault(record: WinnerRecord) -> str:
    """Why this IREE cannot make the entry of a record; empty where it can."""
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


def _config(record: WinnerRecord) -> str:
    """A record's lowering config as this IREE spells it."""
    return applied_candidate("", record.compilation_info, identifier="", knobs={}).config


def _damage(spec_path: Path, row: SpecRow) -> str:
    """Why the record of an entry that was made from one may not be known; empty where there just is none."""
    if "dispatch" not in row.provenance or not (lines := damaged_records(spec_path)):
        return ""
    path = records_path(spec_path)
    places = ", ".join(f"{path.name}:{number}" for number in lines)
    return (
        f"no record of it can be read, and {places} is none: take {path.name} from version control again, or delete "
        "that line and tune the dispatch again with --tune"
    )


def _disagreement(spec_path: Path, row: SpecRow, record: WinnerRecord) -> str:
    """How an entry and its record disagree, in words; empty where they do not."""
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
    """Give entries of equal names a number: their tests are told apart by it."""
    used: set[str] = set()
    named = []
    for each in drafts:
        name, number = each.name, 1
        while name in used:
            number += 1
            name = f"{each.name}_{number}"
        used.add(name)
        named.append(msgspec.structs.replace(each, name=name))
    return named


def _localised(entry: GuardEntry, device_name: str) -> GuardEntry:
    device = entry.record.device if entry.record else entry.device
    is_local = not device or device == device_name
    return msgspec.structs.replace(entry, device=device, is_local=is_local)


# What they are for.


def _with_tasks(drafts: Sequence[GuardEntry], spec: str, tasks: Sequence[Task]) -> Iterator[GuardEntry]:
    of_structure = {
        each.name: [task for task in tasks if each.record.root and task.dispatch.key == each.record.root.key]
        for each in drafts
        if each.record
    }
    sought = {each.matcher for each in drafts if not each.problem and not of_structure.get(each.name)}
    matched = _matched(spec, sought, tasks)
    for each in drafts:
        if each.problem:
            yield each
            continue
        pairs = [(task, each.compilation_info) for task in of_structure.get(each.name, ())]
        pairs = pairs or [(task, info or each.compilation_info) for task, info in matched.get(each.matcher, ())]
        try:
            yield msgspec.structs.replace(each, tasks=tuple(_task(each, task, info) for task, info in pairs))
        except InputError as error:
            yield msgspec.structs.replace(each, problem=f"{each.matcher}: {error}")


def _task(entry: GuardEntry, task: Task, compilation_info: str) -> Task:
    """The task with the entry's config as its only candidate.

    Raises:
        InputError: the entry attaches none that can be told.
    """
    candidate = applied_candidate(
        task.name,
        compilation_info,
        identifier=entry.record.id if entry.record else _ENTRY_ID,
        knobs=entry.record.knobs if entry.record else {},
    )
    return msgspec.structs.replace(task, candidates=(candidate,))


_Matched = dict[str, list[tuple[Task, str]]]
"""By matcher, the tasks whose root op it takes, and the config that comes of it, empty where none does."""


def _matched(spec: str, sought: Collection[str], tasks: Sequence[Task]) -> _Matched:
    """What the matchers in ``sought`` take: those that an earlier one takes it all from, what they would take."""
    if not sought:
        return {}
    matchers = [row.matcher for row in read_spec(spec)]
    found_of = [(task, takers(task, spec, matchers)) for task in tasks]
    found: _Matched = {}
    for task, taken in found_of:
        for matcher, info in taken:
            found.setdefault(matcher, []).append((task, info))
    shadowed: _Matched = {}
    for task, taken in found_of if set(sought) - set(found) else ():
        names = {matcher for matcher, _ in taken}
        left = [each for each in matchers if each not in names]
        while left and (others := takers(task, spec, left)):
            for matcher, info in others:
                shadowed.setdefault(matcher, []).append((task, info))
                left.remove(matcher)
    return shadowed | found


def takers(task: Task, spec: str, matchers: Sequence[str]) -> list[tuple[str, str]]:
    """Which of ``matchers``, tried in their order, takes the root op of ``task``, with the config that comes of it."""
    try:
        applied = applied_to(task.dispatch, mark_entries(select_entries(spec, matchers)))
    except ConfigureFailed:
        if len(matchers) == 1:  # It matches, and its config is refused.
            return [(matchers[0], "")]
        return next((found for each in matchers if (found := takers(task, spec, [each]))), [])
    return [(each.entry, each.compilation_info) for each in applied]
