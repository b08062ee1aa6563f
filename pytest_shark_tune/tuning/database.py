"""What earlier runs found out, kept by content: what was measured on this very device is not measured again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION
from pytest_shark_tune.device.identity import runtime_version, ways_of_driving
from pytest_shark_tune.measurement.correctness import CHECK_VERSION
from pytest_shark_tune.measurement.timing import MEASUREMENT_VERSION
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import FinalRecord, Record, SpecRecord, State, lasts
from pytest_shark_tune.records.winner import WINNER_VERSION
from pytest_shark_tune.search import PriorResult, ProblemFacts, pipeline_label
from pytest_shark_tune.search.facts import FACTS_VERSION
from pytest_shark_tune.search_space.candidate import DEFAULT_ID, Candidate
from pytest_shark_tune.spec.build import SPEC_VERSION
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.machine import driver_version, processors
from pytest_shark_tune.tuning.model_profile import PROFILE_VERSION
from pytest_shark_tune.tuning.settings import RunSettings
from pytest_shark_tune.tuning.verifier import VERIFY_VERSION

__all__ = ["KEPT_VERSION", "Recall"]

KEPT_VERSION: Final = 1
"""The form of records, finals, checks and profiles in the cache.

Raise it where a field of one is added, removed or means something else: all is then measured anew.
"""

_MOST_SIMILAR = 500
"""So many results of other dispatches are enough to learn from, and learned from in a fraction of a second."""


class _Kept(msgspec.Struct, frozen=True):
    """A record and the config that it is about: names and ids may differ from run to run.

    ``label`` is what tables call the candidate's pipeline. ``digest`` is a hash of all three.
    """

    config: str
    record: Record
    label: str
    digest: str

    @classmethod
    def of(cls, config: str, record: Record, label: str) -> _Kept:
        """What is kept of a record."""
        return cls(config, record, label, content_key(config, record, label))

    def __post_init__(self) -> None:
        """Refuse what changed since it was written, so that its line counts as one that cannot be read."""
        if self.digest != content_key(self.config, self.record, self.label):
            raise ValueError("its content has another digest than was written with it")


class _Known(msgspec.Struct, frozen=True):
    """A dispatch of which there are records, the key of its journal, and what a search may know of it."""

    key: str
    facts: ProblemFacts


class Recall:
    """Records, finals, checked specs and profiles of one compiler build, runtime, device, driver and way of measuring.

    A fresh run, as ``settings`` say, recalls nothing, and keeps what it finds out in place of what was known.
    ``setting`` is a hash of all these. What is recalled depends, besides, on the versions of our own ways of finding
    it out, so that it is found out anew where one of them changed.
    ``step`` is the key of a client's compile step, where there is one: what it changes is known by that. So is a bundle
    known by its digest: whatever it holds may be named as something else. Of clients'
    other stages nothing is known here, and only what our own found out is kept. Files are only ever added
    to, or replaced whole, so runs at the same time may share a cache.
    """

    def __init__(self, cache: Cache, compiler: Compiler, settings: RunSettings, *, step: str = "") -> None:
        self._cache = cache
        self._fresh = settings.fresh
        self.setting = content_key(
            "setting",
            compiler.identity,
            runtime_version(),
            settings.device_name,
            processors(),
            driver_version(compiler.target.driver),
            settings.rotate_bytes,
            *ways_of_driving(settings.devices, compiler.target.driver),
        )
        versions = [KEPT_VERSION, MEASUREMENT_VERSION, CHECK_VERSION, ARTIFACT_VERSION, SPEC_VERSION]
        self._base = content_key(self.setting, versions, *filter(None, (step, settings.bundle)))
        self._device = settings.device_name
        self._jobs = settings.jobs
        self._indexed: set[str] = set()

    def records(self, task: Task) -> list[Record]:
        """What is known of the default and the candidates of ``task``, each once."""
        if self._fresh:
            return []
        # A line takes the place of those before it.
        kept = {each.config: each.record for each in journal.read(self._journal_of(self._key(task)), _Kept)}
        known = [
            msgspec.structs.replace(kept[key], id=candidate.id, dispatch=task.name)
            for candidate in (task.default, *task.candidates)
            if (key := _config_key(candidate)) in kept
        ]
        # Whose binary a duplicate shares comes before it; where that one is to be tried again, either may be it.
        ids = {DEFAULT_ID, *(record.id for record in known)}
        told = [record for record in known if record.state is not State.DUPLICATE or record.duplicate_of in ids]
        return sorted(told, key=lambda record: record.state is State.DUPLICATE)

    def damaged(self, task: Task) -> list[str]:
        """The lines that `records` leaves out since they cannot be read, as FILE:NUMBER."""
        path = self._journal_of(self._key(task))
        return [] if self._fresh else [f"{path}:{number}" for number in journal.damaged_lines(path, _Kept)]

    def keep(self, task: Task, record: Record) -> None:
        """Keep what was found out about a candidate, unless it tells of the machine, or of a default that fails."""
        if record.id == DEFAULT_ID and record.state is not State.MEASURED:
            return
        if not lasts(record.state, record.reason):
            return
        candidate = task.candidate(record.id)
        kept = _Kept.of(_config_key(candidate), record, pipeline_label(candidate.pipeline, candidate.space))
        key = self._key(task)
        journal.append(self._journal_of(key), kept)
        if key not in self._indexed:
            self._indexed.add(key)
            facts = task.facts_on(self._device)
            journal.append(self._index(task), _Known(key, facts))

    def similar(self, task: Task) -> list[PriorResult]:
        """What is known of other dispatches of the same kind of op, those of the latest runs first; at most 500.

        Of a dispatch with more records than there is room for, they are picked evenly over its course.
        """
        if self._fresh:
            return []
        own = self._key(task)
        known = {each.key: each.facts for each in reversed(journal.read(self._index(task), _Known)) if each.key != own}
        found: list[PriorResult] = []
        for key, facts in known.items():
            if len(found) >= _MOST_SIMILAR:
                break
            results = list(_results(journal.read(self._journal_of(key), _Kept), facts, self._jobs))
            found += _evenly(results, _MOST_SIMILAR - len(found))
        return found

    def final(self, task: Task, finalists: Iterable[str], incumbent: str) -> FinalRecord | None:
        """The final of just these finalists, if there was one with the same incumbent."""
        return (
            None if self._fresh else self._cache.get("finals", self._final_key(task, finalists, incumbent), FinalRecord)
        )

    def keep_final(self, task: Task, finalists: Iterable[str], incumbent: str, final: FinalRecord) -> None:
        """Keep the final of these finalists, unless what came of one of them tells of the machine."""
        if all(lasts(each.state, each.reason) for each in final.finalists):
            self._cache.put("finals", self._final_key(task, finalists, incumbent), final)

    def checked(self, plan: Plan, draft: Draft, *, model: str = "") -> SpecRecord | None:
        """What came of the spec of a draft on the sources of ``plan``, or on one ``model``, if it was tried."""
        return None if self._fresh else self._cache.get("checks", self.check_key(plan, draft, model), SpecRecord)

    def keep_checked(self, plan: Plan, draft: Draft, record: SpecRecord, *, model: str = "") -> None:
        """Keep what came of that spec."""
        self._cache.put("checks", self.check_key(plan, draft, model), record)

    def profile(self, plan: Plan, source: Source) -> Profile | None:
        """Where the time of a source of ``plan`` goes, if it was measured."""
        return None if self._fresh else self._cache.get("profiles", self.profile_key(plan, source), Profile)

    def keep_profile(self, plan: Plan, source: Source, profile: Profile) -> None:
        """Keep where the time of a source goes."""
        self._cache.put("profiles", self.profile_key(plan, source), profile)

    def profile_key(self, plan: Plan, source: Source) -> str:
        """A hash of what the profile of a source depends on."""
        names = [task.name for task in plan.tasks]
        return content_key("profile", PROFILE_VERSION, self._base, source.content, names)

    def _key(self, task: Task) -> str:
        return content_key(self._base, _texts(task))

    def _journal_of(self, key: str) -> Path:
        return self._cache.file("records", key, ".jsonl")

    def _index(self, task: Task) -> Path:
        """Where the dispatches of one kind are listed, once for each run that found something out about them."""
        key = content_key(self._base, FACTS_VERSION, task.dispatch.root.kind)
        return self._cache.file("records", key, ".dispatches.jsonl")

    def _final_key(self, task: Task, finalists: Iterable[str], incumbent: str) -> str:
        configs = sorted((name, _config_key(task.candidate(name))) for name in finalists)
        return content_key(self._base, WINNER_VERSION, task.name, task.weight, _texts(task), configs, incumbent)

    def check_key(self, plan: Plan, draft: Draft, model: str = "") -> str:
        """A hash of what trying the spec of a draft depends on: entries are tried alike wherever they come from."""
        sources = [source.content for source in plan.sources]
        entries = sorted(draft.configs.items())
        names = [task.name for task in plan.tasks]
        return content_key(self._base, VERIFY_VERSION, sources, names, entries, draft.starter, model)


def _results(kept: Sequence[_Kept], facts: ProblemFacts, jobs: int) -> Iterator[PriorResult]:
    """What came of each candidate, the default left out; a duplicate is as fast as the one whose binary it shares."""
    ratios = {each.record.id: each.record.ratio for each in kept} | {DEFAULT_ID: 1.0}
    for each in {each.config: each for each in kept}.values():
        record = each.record
        ratio = record.ratio
        if record.state is State.DUPLICATE:
            ratio = ratios.get(record.duplicate_of)
        # That a duplicate's time is not known does not mean that it failed, and 0 is what rounding left of a ratio.
        if record.id != DEFAULT_ID and (ratio or record.state not in (State.MEASURED, State.DUPLICATE)):
            yield PriorResult(
                pipeline=each.label, knobs=record.knobs, ratio=ratio, seconds=record.cost_s(jobs), facts=facts
            )


def _evenly(results: Sequence[PriorResult], most: int) -> Sequence[PriorResult]:
    """``most`` of ``results`` at even distances, or all where they are no more."""
    if len(results) <= most:
        return results
    return [results[position * len(results) // most] for position in range(most)]


def _config_key(candidate: Candidate) -> str:
    return content_key(candidate.compilation_info)


def _texts(task: Task) -> list[str]:
    return [member.module.text for member in task.dispatch.members]
