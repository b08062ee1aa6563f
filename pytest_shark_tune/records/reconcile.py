"""Updating a suite's snapshot: which of its entries still hold, why the others do not, and what is tried first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.plan.wanted import Wanted
from pytest_shark_tune.records.snapshot import find_snapshots, read_records, why_not_replaced
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import content_key

__all__ = [
    "Requirements",
    "Subject",
    "Update",
    "as_it_is_now",
    "content_of",
    "entry_of_task",
    "first_tasks",
    "incumbent_of",
    "is_gone",
    "look_back",
    "ops_of",
    "starter_of",
    "untried_tests",
    "updated",
    "wanted_of",
    "why_stale",
    "with_ops",
    "write_incumbents",
]

_INCUMBENTS, _STARTERS = "incumbents.json", "starters.json"


@dataclass(frozen=True)
class Requirements:
    """What an entry of a snapshot for ``target`` has to agree with to be kept.

    ``setting`` is a hash of what its figures depend on besides the dispatch, ``iree`` and ``device`` name the two of
    these that users know; ``candidates`` is how many are asked for. A ``fresh`` run keeps nothing.
    """

    target: str
    setting: str
    iree: str
    device: str
    candidates: int
    fresh: bool = False


@dataclass(frozen=True)
class Subject:
    """A dispatch of a suite that a run is to tune; ``is_ours`` says that our own stages compile and measure it."""

    task: Task
    suite: str
    is_ours: bool = True


@dataclass
class Update:
    """What the snapshots of a run's suites say of its dispatches, by the dispatches' names.

    ``kept`` are records of entries that still hold, as this run names the dispatches; ``stale`` says of the other
    entries why not. ``first`` are the ids of candidates to try before all others: an entry's own config, then what won
    on other devices, whose snapshots are counted in ``others`` with the number of dispatches. ``incumbents`` are the
    ids of the entries' own alone, ``starters`` those of the starter spec's configs. ``stuck`` says which snapshots
    cannot be written, and why.
    """

    kept: dict[str, WinnerRecord] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    first: dict[str, tuple[str, ...]] = field(default_factory=dict)
    incumbents: dict[str, str] = field(default_factory=dict)
    starters: dict[str, str] = field(default_factory=dict)
    others: Counter[Path] = field(default_factory=Counter)
    stuck: dict[Path, str] = field(default_factory=dict)

    def add_starter(self, name: str, candidate: str) -> None:
        """Have the starter's config for a dispatch tried first, after that of the snapshot's own entry."""
        self.starters[name] = candidate
        own = [self.incumbents[name]] if name in self.incumbents else []
        self.first[name] = tuple(dict.fromkeys([*own, candidate, *self.first.get(name, ())]))

    def words(self) -> Iterator[str]:
        """What to tell the user when the run begins, a line each."""
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


def wanted_of(suite: Path, target: str) -> tuple[Wanted, ...]:
    """The configs of a suite's snapshots for a target, of all devices: each is to be tried where it can be."""
    return tuple(
        # One from outside of all spaces has no knobs.
        Wanted(record.root.key, record.pipeline, record.knobs, "" if record.knobs else record.compilation_info)
        for path in find_snapshots(suite, target)
        for record in read_records(path)
        if record.root is not None
    )


def look_back(subjects: Iterable[Subject], required: Requirements, snapshot_of: Callable[[str], Path]) -> Update:
    """Judge the entries of the snapshots beside the suites of ``subjects``; ``snapshot_of`` gives this device's.

    Several suites may have the same dispatch. It is tuned once for all of them, so it is kept only where each suite
    has an entry that holds, with the same config.
    """
    update = Update()
    alike: defaultdict[str, list[Subject]] = defaultdict(list)
    for subject in subjects:
        alike[subject.task.name].append(subject)
    own: dict[str, tuple[WinnerRecord, ...]] = {}
    others: dict[str, dict[Path, tuple[WinnerRecord, ...]]] = {}
    for suite in dict.fromkeys(each.suite for group in alike.values() for each in group):
        path = snapshot_of(suite)
        if why := why_not_replaced(path):
            update.stuck[path] = why
        own[suite] = read_records(path)
        found = find_snapshots(Path(suite), required.target)
        others[suite] = {other: read_records(other) for other in found if other != path}
    for name, group in alike.items():
        entries = [entry_of_task(each.task, own[each.suite]) for each in group]
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
    """Why the entries of one dispatch in several suites, or one, do not hold; empty where all do, and are alike."""
    for subject, entry in zip(group, entries, strict=True):
        if entry is None:
            return f"{subject.suite} has it too, and no entry for it"
        if stale := why_stale(subject.task, entry, required, is_ours=subject.is_ours):
            return stale
    if len({each.compilation_info for each in entries if each}) > 1:
        return f"{', '.join(each.suite for each in group)} have different configs for it"
    return ""


def entry_of_task(task: Task, records: Sequence[WinnerRecord]) -> WinnerRecord | None:
    """The record of a dispatch: of one of the same structure, else of one of the same name."""
    with_root = [each for each in records if each.root is not None]
    alike = (each for each in with_root if each.root and each.root.key == task.dispatch.key)
    return next(alike, None) or next((each for each in with_root if each.dispatch == task.name), None)


def why_stale(task: Task, record: WinnerRecord, required: Requirements, *, is_ours: bool = True) -> str:
    """Why an entry has to be tuned again, in words; empty where it still holds."""
    if not is_ours:
        return "its suite has stages of its own, and what they depend on is not known"
    # First what may change all else.
    if record.iree != required.iree:
        return f"tuned with IREE {record.iree}"
    if record.device != required.device:
        return f"tuned for another device, {record.device}"
    if not record.setting:
        return "its record does not say how it was tuned"
    if record.root is None or record.root.key != task.dispatch.key or set(record.ops) != set(ops_of(task)):
        return "its dispatch changed"
    if record.content and record.content != content_of(task):
        return "its dispatch changed around its root op"
    if record.setting != required.setting:
        return "flags, driver, the choice of configs or the way of measuring changed"
    if record.candidates < min(required.candidates, len(task.candidates)):
        return f"only {record.candidates} candidate{'s were' if record.candidates != 1 else ' was'} tried"
    return ""


def ops_of(task: Task) -> tuple[RecordedOp, ...]:
    """The ops that an entry for ``task`` is in force on."""
    return tuple(RecordedOp(each.source, each.symbol) for each in task.dispatch.members)


def content_of(task: Task) -> str:
    """A hash of all that is compiled of ``task``: also of what surrounds its root ops, which no matcher sees."""
    return content_key([member.module.text for member in task.dispatch.members])[:16]


def with_ops(winner: WinnerRecord, task: Task) -> WinnerRecord:
    """The record of a winner as that of ``task``: what its entry is in force on, was made of, and how many calls."""
    return msgspec.structs.replace(winner, weight=task.weight, ops=ops_of(task), content=content_of(task))


def updated(old: Iterable[WinnerRecord], decisions: Sequence[tuple[Task, WinnerRecord | None]]) -> list[WinnerRecord]:
    """The records of a snapshot after a run: winners in the places of the entries that they replace, new ones last.

    A dispatch that was decided without a winner has no entry any more; entries of others stay as they are.
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


def write_incumbents(exchange: Path, update: Update) -> None:
    """Tell whoever holds a final which candidate is its dispatch's winner so far, and which is the starter spec's.

    Raises:
        OSError: it cannot be written.
    """
    for name, candidates in ((_INCUMBENTS, update.incumbents), (_STARTERS, update.starters)):
        journal.replace_file(exchange / name, msgspec.json.encode(candidates))


def incumbent_of(exchange: Path, dispatch: str) -> str:
    """The id of a dispatch's winner so far; empty without one."""
    return _told(exchange / _INCUMBENTS, dispatch)


def starter_of(exchange: Path, dispatch: str) -> str:
    """The id of the candidate with the config that the starter spec has for a dispatch; empty without one."""
    return _told(exchange / _STARTERS, dispatch)


def _told(path: Path, dispatch: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    return msgspec.json.decode(content, type=dict[str, str]).get(dispatch, "")


def as_it_is_now(record: WinnerRecord, task: Task) -> WinnerRecord:
    """A record that is kept, with what may have changed and leaves its figures valid."""
    return msgspec.structs.replace(record, dispatch=task.name, weight=task.weight, ops=ops_of(task))


def _try_first(
    update: Update, task: Task, entry: WinnerRecord | None, others: Mapping[Path, Sequence[WinnerRecord]]
) -> None:
    first = list(update.first.get(task.name, ()))
    if entry is not None and (own := _candidate_of(task, entry)):
        first.append(own)
        update.incumbents.setdefault(task.name, own)
    for path, records in others.items():
        found = [each for each in records if each.root is not None and each.root.key == task.dispatch.key]
        if found and (other := _candidate_of(task, found[0])):
            first.append(other)
            update.others[path] += 1
    if first:
        update.first[task.name] = tuple(dict.fromkeys(first))


def _candidate_of(task: Task, record: WinnerRecord) -> str:
    """The id of the candidate that has a record's config; empty where it is none of the task's any more."""
    alike = [each for each in task.candidates if each.pipeline == record.pipeline and each.knobs == record.knobs]
    # Two spaces of one pipeline may have knobs of the same names.
    alike.sort(key=lambda each: each.compilation_info != record.compilation_info)
    if not record.knobs:  # It lies outside of all spaces.
        alike = [each for each in alike if each.compilation_info == record.compilation_info]
    return alike[0].id if alike else ""
