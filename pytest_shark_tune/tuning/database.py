"""The tuning database: results of earlier runs, by content, so that nothing is measured twice on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import AnyTask, Plan, Task
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import FinalRecord, Record, SpecRecord, State, lasts
from pytest_shark_tune.records.winner import WINNER_VERSION
from pytest_shark_tune.search import PriorResult, ProblemFacts, pipeline_label
from pytest_shark_tune.search.facts import FACTS_VERSION
from pytest_shark_tune.search_space.candidate import DEFAULT_ID, Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, Kind, content_key
from pytest_shark_tune.tuning.model.profile import PROFILE_VERSION
from pytest_shark_tune.tuning.settings import RunSettings
from pytest_shark_tune.tuning.verifier import VERIFY_VERSION

__all__ = ["DATABASE_VERSION", "TuningDatabase"]

DATABASE_VERSION: Final = 4
"""The form of records, finals, checks and profiles in the cache.

Raise it if a field is added, removed or changes its meaning: everything is then measured anew.
"""

_MOST_SIMILAR = 500
"""So many results of other dispatches are enough to learn from, and take a fraction of a second."""


_T = TypeVar("_T")


class _StoredRecord(msgspec.Struct, frozen=True):
    """A record and the config that it is about, since names and ids may differ from run to run."""

    config: str
    """The key of the config."""
    record: Record
    """The record."""
    label: str
    """The name of the candidate's pipeline in tables."""
    digest: str
    """A hash of the three."""

    @classmethod
    def of(cls, config: str, record: Record, label: str) -> _StoredRecord:
        """Make the stored form of a record."""
        return cls(config, record, label, content_key(config, record, label))

    def __post_init__(self) -> None:
        """Refuse a record that changed since it was written: its line counts as damaged."""
        if self.digest != content_key(self.config, self.record, self.label):
            raise ValueError("its content does not match its digest")


class _Known(msgspec.Struct, frozen=True):
    """A dispatch that has records."""

    key: str
    """The key of its journal."""
    facts: ProblemFacts
    """Its facts, for a search."""


class TuningDatabase:
    """Records, finals, checked specs and profiles by earlier runs in the same environment.

    Results also depend on the versions of our own ways of finding them: if one of these changes, everything is found
    anew. A fresh run reads nothing, and replaces known results by its own. Only results of our own stages are stored,
    since nothing is known of clients' stages. Files are only appended to, or replaced whole, so concurrent runs may
    share a cache.

    Args:
        cache: where the results are.
        compiler: the compiler of this run.
        settings: the settings of this run. The content of a bundle may go by other names elsewhere, so results
            depend on its digest.
        step: the key of a client's compile step; empty without one.
    """

    def __init__(self, cache: Cache, compiler: Compiler, settings: RunSettings, *, step: str = "") -> None:
        self._cache = cache
        self._fresh = settings.fresh
        self.fingerprint = settings.fingerprint(compiler)
        """The fingerprint of the environment."""
        self.base = settings.results_key(compiler, DATABASE_VERSION, step)
        """A hash of everything that all results depend on."""
        self._device = settings.device_name
        self._jobs = settings.jobs
        self._indexed: set[str] = set()

    def records(self, task: Task) -> list[Record]:
        """The known records of the default and the candidates of ``task``, one for each."""
        if self._fresh:
            return []
        # A later line replaces an earlier one.
        kept = {line.config: line.record for line in journal.read(self._journal_of(self._key(task)), _StoredRecord)}
        known = [
            msgspec.structs.replace(kept[key], id=candidate.id, dispatch=task.name)
            for candidate in (task.default, *task.candidates)
            if (key := _config_key(candidate)) in kept and lasts(kept[key].state, kept[key].reason)
        ]
        # A duplicate follows the candidate whose binary it shares. If that candidate is retried, either one may own it.
        ids = {DEFAULT_ID, *(record.id for record in known)}
        usable = [record for record in known if record.state is not State.DUPLICATE or record.duplicate_of in ids]
        return sorted(usable, key=lambda record: record.state is State.DUPLICATE)

    def damaged(self, task: Task) -> list[str]:
        """The damaged lines, which `records` leaves out, as FILE:NUMBER."""
        path = self._journal_of(self._key(task))
        return [] if self._fresh else [f"{path}:{number}" for number in journal.damaged_lines(path, _StoredRecord)]

    def add(self, task: Task, record: Record) -> None:
        """Store a candidate's record, unless it is about the state of the machine, or about a default that failed."""
        if record.id == DEFAULT_ID and record.state is not State.MEASURED:
            return
        if not lasts(record.state, record.reason):
            return
        candidate = task.candidate(record.id)
        kept = _StoredRecord.of(_config_key(candidate), record, pipeline_label(candidate.pipeline, candidate.space))
        key = self._key(task)
        journal.append(self._journal_of(key), kept)
        if key not in self._indexed:
            self._indexed.add(key)
            facts = task.facts_on(self._device)
            journal.append(self._index(task), _Known(key, facts))

    def similar(self, task: AnyTask) -> list[PriorResult]:
        """The results of other dispatches of the same kind of op, those of the latest runs first; at most 500.

        If a dispatch has more records than are wanted, they are picked at even distances. Kernels have none.
        """
        if self._fresh or not isinstance(task, Task):
            return []
        own = self._key(task)
        listed = reversed(journal.read(self._index(task), _Known))
        known = {dispatch.key: dispatch.facts for dispatch in listed if dispatch.key != own}
        found: list[PriorResult] = []
        for key, facts in known.items():
            if len(found) >= _MOST_SIMILAR:
                break
            results = list(_results(journal.read(self._journal_of(key), _StoredRecord), facts, self._jobs))
            found += _evenly(results, _MOST_SIMILAR - len(found))
        return found

    def final(
        self, task: Task, finalists: Iterable[str], incumbent: str, hold: Callable[[], FinalRecord]
    ) -> FinalRecord:
        """The final of just these finalists with that incumbent; held now if no earlier run held it."""
        key = self._final_key(task, finalists, incumbent)
        # The failure of a finalist may be the machine's fault.
        return self.reused(
            "finals",
            key,
            FinalRecord,
            hold,
            lambda final: not final.is_provisional and all(lasts(one.state, one.reason) for one in final.finalists),
        )

    def has_final(self, task: Task, finalists: Iterable[str], incumbent: str) -> bool:
        """Whether an earlier run held the final of just these finalists with that incumbent."""
        key = self._final_key(task, finalists, incumbent)
        return not self._fresh and self._cache.get("finals", key, FinalRecord) is not None

    def check(self, plan: Plan, draft: Draft, run: Callable[[], SpecRecord], *, model: str = "") -> SpecRecord:
        """The check of a draft's spec in the sources of ``plan``, or in one ``model``; run now if it was not before."""
        return self.reused("checks", self.check_key(plan, draft, model), SpecRecord, run)

    def profile(self, plan: Plan, source: Source, measure: Callable[[], Profile]) -> Profile:
        """The profile of a source of ``plan``; measured now if it was not before."""
        return self.reused("profiles", self.profile_key(plan, source), Profile, measure)

    def profile_key(self, plan: Plan, source: Source) -> str:
        """A hash of everything that the profile of a source depends on."""
        names = [task.name for task in plan.tasks]
        return content_key("profile", PROFILE_VERSION, self.base, source.content, names)

    def reused(
        self,
        kind: Kind,
        key: str,
        form: type[_T],
        make: Callable[[], _T],
        lasts: Callable[[_T], bool] = lambda result: True,
    ) -> _T:
        """A result by an earlier run, or made now, and then stored if it ``lasts``.

        Args:
            kind: The kind of values in the cache.
            key: The key, made of `base` and of everything else that the result depends on.
            form: The type of the result.
            make: Makes the result.
            lasts: Whether a result stays true, so that a later run may use it.
        """
        known = None if self._fresh else self._cache.get(kind, key, form)
        if known is None:
            known = make()
            if lasts(known):
                self._cache.put(kind, key, known)
        return known

    def _key(self, task: Task) -> str:
        return content_key(self.base, _texts(task))

    def _journal_of(self, key: str) -> Path:
        return self._cache.file("records", key, ".jsonl")

    def _index(self, task: Task) -> Path:
        """The journal that lists the dispatches of one kind, once for each run that has results of them."""
        key = content_key(self.base, FACTS_VERSION, task.dispatch.root.kind)
        return self._cache.file("records", key, ".dispatches.jsonl")

    def _final_key(self, task: Task, finalists: Iterable[str], incumbent: str) -> str:
        configs = sorted((name, _config_key(task.candidate(name))) for name in finalists)
        return content_key(self.base, WINNER_VERSION, task.name, task.weight, _texts(task), configs, incumbent)

    def check_key(self, plan: Plan, draft: Draft, model: str = "") -> str:
        """A hash of everything that the check of a draft depends on. The origin of an entry makes no difference."""
        sources = [source.content for source in plan.sources]
        entries = sorted(draft.configs.items())
        names = [task.name for task in plan.tasks]
        return content_key(self.base, VERIFY_VERSION, sources, names, entries, draft.starter, model)


def _results(kept: Sequence[_StoredRecord], facts: ProblemFacts, jobs: int) -> Iterator[PriorResult]:
    """The result of each candidate but the default. A duplicate is as fast as the candidate that owns its binary."""
    ratios = {line.record.id: line.record.ratio for line in kept} | {DEFAULT_ID: 1.0}
    for line in {line.config: line for line in kept}.values():
        record = line.record
        ratio = record.ratio
        if record.state is State.DUPLICATE:
            ratio = ratios.get(record.duplicate_of)
        # A duplicate of unknown time did not fail. A ratio of 0 was rounded.
        if record.id != DEFAULT_ID and (ratio or record.state not in (State.MEASURED, State.DUPLICATE)):
            yield PriorResult(
                pipeline=line.label, knobs=record.knobs, ratio=ratio, seconds=record.cost_s(jobs), facts=facts
            )


def _evenly(results: Sequence[PriorResult], most: int) -> Sequence[PriorResult]:
    """Pick ``most`` of ``results`` at even distances, or all if there are no more."""
    if len(results) <= most:
        return results
    return [results[position * len(results) // most] for position in range(most)]


def _config_key(candidate: Candidate) -> str:
    return content_key(candidate.compilation_info)


def _texts(task: Task) -> list[str]:
    modules = [member.module for member in task.dispatch.members]
    return [part for module in modules for part in (module.text, *module.flags)]
