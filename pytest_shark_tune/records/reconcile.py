"""Updating a suite's snapshot: which of its entries still hold, why the others do not, and what is tried first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Plan, Task, Wanted
from pytest_shark_tune.records.diff import diff, side_of, words
from pytest_shark_tune.records.snapshot import find_snapshots, read_records, why_not_replaced
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import content_key

__all__ = [
    "Requirements",
    "SnapshotChange",
    "Subject",
    "Update",
    "as_it_is_now",
    "content_of",
    "entry_of_task",
    "incumbent_of",
    "is_gone",
    "look_back",
    "ops_of",
    "starter_of",
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
            what = "1 dispatch is kept" if len(self.kept) == 1 else f"{len(self.kept)} dispatches are kept"
            yield f"{what}: nothing changed since the snapshot was tuned (--tune-fresh tunes everything again)"
        for name, reason in self.stale.items():
            yield f"retuning {name}: {reason}"
        for path, count in self.others.items():
            what = "1 dispatch" if count == 1 else f"{count} dispatches"
            yield f"what {path.name}, of another device, has for {what} is tried first"
        if self.starters:
            what = "1 dispatch" if len(self.starters) == 1 else f"{len(self.starters)} dispatches"
            yield f"the config that the starter spec has for {what} is tried first"
        for path, why in self.stuck.items():
            yield f"{path} will not be updated: {why}"


@dataclass(frozen=True)
class SnapshotChange:
    """A snapshot's text and records as they were before a run, empty without one, and as they are now.

    ``gone`` are the names of dispatches that are in the suite no more; ``unchecked`` those of which a winner was found
    and not put there, since not all that tries an entry in whole sources, ``untried``, came to a result. ``problem``
    says why nothing could be written. ``left_out`` are the entries that did not hold beside the others when the
    snapshot was about to be written, with the reasons; one without a record goes by its matcher after an ``@``.
    """

    path: Path
    old: tuple[str, tuple[WinnerRecord, ...]]
    new: tuple[str, tuple[WinnerRecord, ...]]
    gone: frozenset[str] = frozenset()
    unchecked: frozenset[str] = frozenset()
    untried: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_unwritten(self) -> bool:
        """Whether there was no snapshot, and still is none."""
        return not self.old[0] and not self.new[0]

    def words(self) -> tuple[str, ...]:
        """What changed, a line for each entry, and what did not and why; nothing where all is as it was."""
        lines = self._changed()
        if self.problem:
            lines += (f"not updated: {self.problem}",)
        lines += tuple(f"left out: {name}: {why}" for name, why in self.left_out.items())
        if self.unchecked:
            names, untried = ", ".join(sorted(self.unchecked)), ", ".join(sorted(self.untried))
            why = f"{untried} gave no result, and only what holds in the whole is written; run that as well"
            lines += (f"not updated with {names}: {why}",)
        return lines

    def _changed(self) -> tuple[str, ...]:
        if self.old == self.new:
            return ()
        if not self.old[0]:
            return ("new snapshot",)
        try:
            changes = diff(side_of("before", *self.old), side_of("now", *self.new))
        except InputError as error:
            return (f"what there was before cannot be read: {error}",)
        lines = tuple(
            words(each) + (": its dispatch is in the suite no more" if each.name in self.gone else "")
            for each in changes
        )
        return lines or ("measured again, with the same configs",)


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


def is_gone(record: WinnerRecord, plans: Iterable[Plan]) -> bool:
    """Whether the dispatch of an entry is in none of a suite's ``plans``.

    One that cannot be tuned now, or that takes too little of a model's time to be tuned, is not gone.
    """
    for plan in plans:
        if any(
            record.root is None or task.name == record.dispatch or task.dispatch.key == record.root.key
            for task in plan.tasks
        ):
            return False
        if any(each.dispatch == record.dispatch for each in plan.left_out):
            return False
        if {RecordedOp(each.source, each.name) for each in plan.untunable} & set(record.ops):
            return False
    return True


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
