"""Reconciling a suite's snapshot with a run: which entries stay valid, which are tuned again, and which are gone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import Plan, Task, Wanted, WantedOfSuite
from pytest_shark_tune.records.form_files import forms_of_models
from pytest_shark_tune.records.snapshot import DIRECTORY, find_snapshots, read_records, why_not_replaced
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.system.cache import content_key

__all__ = [
    "Requirements",
    "Subject",
    "Update",
    "as_it_is_now",
    "content_of",
    "entry_of_task",
    "first_tasks",
    "is_gone",
    "ops_of",
    "reconcile",
    "untried_tests",
    "updated",
    "wanted_of",
    "why_stale",
    "with_ops",
]


@dataclass(frozen=True)
class Requirements:
    """The conditions under which an entry of a snapshot is kept."""

    target: str
    fingerprint: str
    """The environment fingerprint: a hash of everything but the dispatch that an entry's figures depend on."""
    iree: str
    """The compiler's release."""
    device: str
    """The device's name."""
    candidates: int
    """The number of candidates to try."""
    fresh: bool = False
    """True if the run keeps no entry."""


@dataclass(frozen=True)
class Subject:
    """A dispatch of a suite that a run is to tune."""

    task: Task
    suite: str
    """The suite's directory."""
    is_ours: bool = True
    """False if the suite's own stages compile or measure it."""


@dataclass
class Update:
    """The use of snapshots for a run: entries that are kept, and candidates to try first, by the dispatch's name."""

    kept: dict[str, WinnerRecord] = field(default_factory=dict)
    """The records of valid entries, with the names that this run gives the dispatches."""
    stale: dict[str, str] = field(default_factory=dict)
    """The reasons why other entries are tuned again."""
    first: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The ids of candidates to try first: the entry's own config, then the winners of other devices."""
    incumbents: dict[str, str] = field(default_factory=dict)
    """The ids of the candidates that have the entries' own configs."""
    starters: dict[str, str] = field(default_factory=dict)
    """The ids of the candidates that have the starter spec's configs."""
    others: Counter[Path] = field(default_factory=Counter)
    """The number of dispatches for which another device's snapshot has a config to try first."""
    stuck: dict[Path, str] = field(default_factory=dict)
    """The snapshots that cannot be written, with the reasons."""

    def add_starter(self, name: str, candidate: str) -> None:
        """Have the starter's config for a dispatch tried first, after that of the snapshot's own entry."""
        self.starters[name] = candidate
        own = [self.incumbents[name]] if name in self.incumbents else []
        self.first[name] = tuple(dict.fromkeys([*own, candidate, *self.first.get(name, ())]))

    def describe(self) -> Iterator[str]:
        """Yield the lines to show the user when the run begins."""
        if self.kept:
            what = "is kept" if len(self.kept) == 1 else "are kept"
            yield (
                f"{_dispatches(len(self.kept))} {what}: nothing changed since the snapshot was tuned (--tune-fresh "
                "tunes everything again)"
            )
        for name, reason in self.stale.items():
            yield f"retuning {name}: {reason}"
        for path, count in self.others.items():
            yield f"what {path.name}, of another device, has for {_dispatches(count)} is tried first"
        if self.starters:
            yield f"the config that the starter spec has for {_dispatches(len(self.starters))} is tried first"
        for path, why in self.stuck.items():
            yield f"{path} will not be updated: {why}"


def _dispatches(count: int) -> str:
    return "1 dispatch" if count == 1 else f"{count} dispatches"


def wanted_of(suite: Path, target: str) -> WantedOfSuite:
    """Return the configs and forms of a suite's snapshots for a target.

    Raises:
        InputError: the record of a form cannot be read.
    """
    configs = tuple(
        # A config from outside all spaces has no knobs.
        Wanted(record.root.key, record.pipeline, record.knobs, "" if record.knobs else record.compilation_info)
        for path in find_snapshots(suite, target)
        for record in read_records(path)
        if record.root is not None
    )
    return WantedOfSuite(configs, forms_of_models(suite / DIRECTORY, target))


def reconcile(subjects: Iterable[Subject], required: Requirements, snapshot_of: Callable[[str], Path]) -> Update:
    """Judge the entries of the snapshots beside the suites.

    Several suites may have the same dispatch. It is tuned once for all of them, so it is kept only if every one of
    these suites has a valid entry for it, with the same config.

    Args:
        subjects: the dispatches to tune, by suite.
        required: the conditions under which an entry is kept.
        snapshot_of: returns the path of a suite's snapshot for this device.
    """
    update = Update()
    alike: defaultdict[str, list[Subject]] = defaultdict(list)
    for subject in subjects:
        alike[subject.task.name].append(subject)
    own: dict[str, tuple[WinnerRecord, ...]] = {}
    others: dict[str, dict[Path, tuple[WinnerRecord, ...]]] = {}
    for suite in dict.fromkeys(subject.suite for group in alike.values() for subject in group):
        path = snapshot_of(suite)
        if why := why_not_replaced(path):
            update.stuck[path] = why
        own[suite] = read_records(path)
        found = find_snapshots(Path(suite), required.target)
        others[suite] = {other: read_records(other) for other in found if other != path}
    for name, group in alike.items():
        entries = [entry_of_task(subject.task, own[subject.suite]) for subject in group]
        known = next(filter(None, entries), None)
        if known is not None and not required.fresh:
            stale = _why_not_kept(group, entries, required)
            if not stale:
                update.kept[name] = as_it_is_now(known, group[0].task)
                continue
            update.stale[name] = stale
        for subject, entry in zip(group, entries, strict=True):
            _try_first(update, subject.task, entry, others[subject.suite])
    return update


def _why_not_kept(group: Sequence[Subject], entries: Sequence[WinnerRecord | None], required: Requirements) -> str:
    """Return why the entries of one dispatch in one or several suites are stale; empty if all are valid and alike."""
    for subject, entry in zip(group, entries, strict=True):
        if entry is None:
            return f"{subject.suite} has it too, and no entry for it"
        if stale := why_stale(subject.task, entry, required, is_ours=subject.is_ours):
            return stale
    if len({entry.compilation_info for entry in entries if entry}) > 1:
        return f"{', '.join(subject.suite for subject in group)} have different configs for it"
    return ""


def entry_of_task(task: Task, records: Sequence[WinnerRecord]) -> WinnerRecord | None:
    """Return the record of a dispatch of the same structure, else of one of the same name."""
    with_root = [record for record in records if record.root is not None]
    alike = (record for record in with_root if record.root and record.root.key == task.dispatch.key)
    return next(alike, None) or next((record for record in with_root if record.dispatch == task.name), None)


def why_stale(task: Task, record: WinnerRecord, required: Requirements, *, is_ours: bool = True) -> str:
    """Return why an entry has to be tuned again; empty if it is valid.

    An entry is valid if its dispatch, compiler, flags, device, driver and measurement settings are unchanged and enough
    candidates were tried.

    Args:
        task: the dispatch.
        record: the entry's record.
        required: the conditions under which an entry is kept.
        is_ours: false if the suite's own stages compile or measure the dispatch.
    """
    if not is_ours:
        return "its suite has stages of its own, and what they depend on is not known"
    # The causes come first that may change everything else.
    if record.iree != required.iree:
        return f"tuned with IREE {record.iree}"
    if record.device != required.device:
        return f"tuned for another device, {record.device}"
    if not record.fingerprint:
        return "its record does not say how it was tuned"
    if record.root is None or record.root.key != task.dispatch.key or set(record.ops) != set(ops_of(task)):
        return "its dispatch changed"
    if record.content and record.content != content_of(task):
        return "its dispatch changed around its root op"
    if record.fingerprint != required.fingerprint:
        return "flags, driver, the choice of configs or the way of measuring changed"
    if record.candidates < min(required.candidates, len(task.candidates)):
        return f"only {record.candidates} candidate{'s were' if record.candidates != 1 else ' was'} tried"
    return ""


def ops_of(task: Task) -> tuple[RecordedOp, ...]:
    """Return the ops that an entry for a dispatch is applied to."""
    return tuple(dict.fromkeys(RecordedOp(member.source, member.symbol) for member in task.dispatch.members))


def content_of(task: Task) -> str:
    """Return a hash of all that is compiled of a dispatch, also of the ops around its root, which no matcher sees."""
    return content_key([member.module.text for member in task.dispatch.members])[:16]


def with_ops(winner: WinnerRecord, task: Task) -> WinnerRecord:
    """Return the record of a winner as that of ``task``, with its ops, its content and the number of its calls."""
    return msgspec.structs.replace(winner, weight=task.weight, ops=ops_of(task), content=content_of(task))


def updated(old: Iterable[WinnerRecord], decisions: Sequence[tuple[Task, WinnerRecord | None]]) -> list[WinnerRecord]:
    """Return the records of a snapshot after a run.

    Winners take the places of the entries that they replace, and new ones come last. A dispatch that was decided
    without a winner has no entry any more. Entries of others stay as they are.

    Args:
        old: the records before the run.
        decisions: the dispatches that the run decided on, with the winner's record or ``None``.
    """
    decided = {task.name: winner for task, winner in decisions}
    by_key = {task.dispatch.key: task.name for task, _ in decisions}
    records: list[WinnerRecord] = []
    placed: set[str] = set()
    for record in old:
        name = by_key.get(record.root.key if record.root else "", record.dispatch)
        if name not in decided:
            records.append(record)
        elif name not in placed and (winner := decided[name]):
            records.append(winner)
        placed.add(name)
    return records + [winner for name, winner in decided.items() if winner and name not in placed]


def is_gone(record: WinnerRecord, plans: Collection[Plan]) -> bool:
    """Return whether the dispatch of an entry is in none of a suite's ``plans``, of which one at least has any.

    A dispatch that cannot be tuned now, or that takes too little of a model's time to be tuned, is not gone.
    """
    tasks = [task for plan in plans for task in plan.tasks]
    if not tasks or record.root is None:
        return False
    if any(task.name == record.dispatch or task.dispatch.key == record.root.key for task in tasks):
        return False
    if any(share.dispatch == record.dispatch for plan in plans for share in plan.left_out):
        return False
    untunable = {RecordedOp(op.source, op.name) for plan in plans for op in plan.untunable}
    return not untunable & set(record.ops)


def first_tasks(plans: Iterable[Plan]) -> dict[str, Task]:
    """Return the dispatches of a suite by name, each as the first of its ``plans`` has it."""
    tasks: dict[str, Task] = {}
    for plan in plans:
        for task in plan.tasks:
            tasks.setdefault(task.name, task)
    return tasks


def untried_tests(plans: Mapping[str, Plan], checked: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the tests of whole sources that an entry of each of a suite's dispatches still has to pass, by dispatch.

    Args:
        plans: the suite's plans by key.
        checked: the tests that came to a result, by the plan's key and the model's name, empty for ``[spec]``.
    """
    untried: dict[str, set[str]] = {}
    for key, plan in plans.items():
        models = {model.name for model in plan.models}
        for task in plan.tasks:
            used = models & {member.source for member in task.dispatch.members}
            tests = {"": f"[{Role.SPEC}]", **{model: f"[{model}-{Role.END_TO_END}]" for model in used}}
            untried.setdefault(task.name, set()).update(
                test for model, test in tests.items() if (key, model) not in checked
            )
    return untried


def as_it_is_now(record: WinnerRecord, task: Task) -> WinnerRecord:
    """Return a kept record with the dispatch's present name, calls and ops, which leave its figures valid."""
    return msgspec.structs.replace(record, dispatch=task.name, weight=task.weight, ops=ops_of(task))


def _try_first(
    update: Update, task: Task, entry: WinnerRecord | None, others: Mapping[Path, Sequence[WinnerRecord]]
) -> None:
    first = list(update.first.get(task.name, ()))
    if entry is not None and (own := _candidate_of(task, entry)):
        first.append(own)
        update.incumbents.setdefault(task.name, own)
    for path, records in others.items():
        found = [record for record in records if record.root is not None and record.root.key == task.dispatch.key]
        if found and (other := _candidate_of(task, found[0])):
            first.append(other)
            update.others[path] += 1
    if first:
        update.first[task.name] = tuple(dict.fromkeys(first))


def _candidate_of(task: Task, record: WinnerRecord) -> str:
    """Return the id of the candidate that has a record's config; empty if the task has it no more."""
    same_knobs = [
        candidate
        for candidate in task.candidates
        if candidate.pipeline == record.pipeline and candidate.knobs == record.knobs
    ]
    # Two spaces of one pipeline may have knobs of the same names.
    same = [candidate for candidate in same_knobs if candidate.compilation_info == record.compilation_info]
    # A config without knobs lies outside all spaces.
    found = same or (same_knobs if record.knobs else [])
    return found[0].id if found else ""
