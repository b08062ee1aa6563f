"""Promises: looks at what a spec entry promises, each with the tools that tuning uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, repeat

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.errors import CandidateFailed, PromiseBroken, PromiseUntold
from pytest_shark_tune.guard.allowed import Legality
from pytest_shark_tune.guard.applies import Reach
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.speed import Terms, hold_gate
from pytest_shark_tune.guard.verdict import Outcome, Promise, Verdict
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.runner import Bench
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["Promises"]


class Promises:
    """Looks at promises for one process of a run.

    Static ones that are kept are looked at once, for all processes and later runs. One that is broken may be so for a
    busy machine's sake, so it is remembered in this process alone. ``step`` is the key of the compile step that all
    goes through, empty without one; ``setting`` is what figures depend on, as in a record.
    """

    def __init__(
        self, settings: RunSettings, cache: Cache, builds: Builds, bench: Bench, *, setting: str, step: str = ""
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._builds = builds
        self._bench = bench
        self._setting = setting
        self._step = [step] if step else []
        self._legality = Legality(builds)
        self._reach = Reach(builds, cache, settings.route)
        self._static_verdicts: dict[str, Verdict] = {}

    def look(
        self,
        guarded: GuardPlan,
        entry: GuardEntry,
        promise: Promise,
        artifact: Artifact | None = None,
        *,
        alpha: float,
    ) -> Verdict:
        """What became of ``promise``; ``artifact`` is that of the entry's first task, where somebody has it already.

        ``alpha`` is the probability of a false alarm that this entry's speed promise has, of the whole run's.
        """
        for earlier in Promise:
            if earlier is promise:
                break
            if earlier.is_static and self._static(guarded, entry, earlier).outcome is Outcome.BROKEN:
                return _verdict(entry, promise, Outcome.SKIPPED, reason=f"see [{entry.name}-{earlier}]")
        if promise.is_static:
            return self._static(guarded, entry, promise)
        try:
            self._check_device(entry)
            if promise is Promise.CORRECT:
                verdict = self._correct(entry, artifact)
            else:
                verdict = self._fast(entry, artifact, self._terms(entry, alpha))
            return msgspec.structs.replace(verdict, reason=verdict.reason and _named(verdict.reason, guarded, entry))
        except PromiseBroken as reason:
            return _verdict(entry, promise, Outcome.BROKEN, reason=_named(reason, guarded, entry))
        except PromiseUntold as reason:
            return _verdict(entry, promise, Outcome.SKIPPED, reason=str(reason))

    # Promises that are looked at without a device.

    def _static(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> Verdict:
        key = content_key("promise", guarded.key, entry.name, promise, self._settings.route, *self._step)
        if key not in self._static_verdicts:
            self._static_verdicts[key] = self._cache.get_or_make(
                "checks",
                key,
                Verdict,
                lambda: self._look_static(guarded, entry, promise),
                lasts=lambda verdict: verdict.outcome is Outcome.KEPT,
            )
        return self._static_verdicts[key]

    def _look_static(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> Verdict:
        try:
            notes = self._notes(guarded, entry, promise)
        except PromiseBroken as reason:
            return _verdict(entry, promise, Outcome.BROKEN, reason=_named(reason, guarded, entry))
        except PromiseUntold as reason:
            return _verdict(entry, promise, Outcome.SKIPPED, reason=str(reason))
        return _verdict(entry, promise, Outcome.KEPT, note="; ".join(dict.fromkeys(notes)))

    def _notes(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> list[str]:
        """What is worth telling of a static promise that is kept.

        Raises:
            PromiseBroken, PromiseUntold: it is not kept, or cannot be looked at.
        """
        if promise is Promise.APPLIES:
            return self._reach.check(guarded, entry)
        if promise is Promise.ALLOWED:
            if not entry.tasks:
                raise PromiseUntold(f"it is for no dispatch here: see [{entry.name}-{Promise.APPLIES}]")
            return self._legality.check(entry)
        if entry.problem:
            raise PromiseBroken(entry.problem)
        return [entry.note] if entry.note else []

    # Promises that take a device.

    def _check_device(self, entry: GuardEntry) -> None:
        if not self._settings.devices:
            raise PromiseUntold(f"there is no device here that runs {self._builds.compiler.target} (--tune-device)")
        if not entry.tasks:
            raise PromiseUntold("it applies to ops before the compiler rewrites them, and runs only as part of a model")

    def _correct(self, entry: GuardEntry, artifact: Artifact | None) -> Verdict:
        for task, given in _with_artifact(entry, artifact):
            self._check_result(task, given)
        return _verdict(entry, Promise.CORRECT, Outcome.KEPT)

    def _check_result(self, task: Task, artifact: Artifact | None) -> None:
        (candidate,) = task.candidates
        try:
            self._bench.check_members(task, candidate, artifact)
        except CandidateFailed as failure:
            raise PromiseBroken(f"on {task.name}: {failure}") from failure

    def _terms(self, entry: GuardEntry, alpha: float) -> Terms:
        """What the entry's speed is held to in each dispatch: they share its probability of a false alarm.

        Raises:
            PromiseUntold: its figures say nothing of this device.
        """
        if not entry.is_local:
            raise PromiseUntold(f"recorded on {entry.device}, this is {self._settings.device_name}")
        return Terms(
            alpha=alpha / len(entry.tasks),
            device=self._settings.device_name,
            iree=compiler_version(),
            record=entry.record,
            tolerance=self._settings.tolerance,
            setting=self._setting,
        )

    def _fast(self, entry: GuardEntry, artifact: Artifact | None, terms: Terms) -> Verdict:
        verdicts = {
            task.name: self._hold_gate(entry, task, given, terms) for task, given in _with_artifact(entry, artifact)
        }
        return _joined(verdicts)

    def _hold_gate(self, entry: GuardEntry, task: Task, artifact: Artifact | None, terms: Terms) -> Verdict:
        (candidate,) = task.candidates
        try:
            return hold_gate(
                entry.name, lambda number: self._bench.gate_round(task, candidate, number, artifact), terms
            )
        except CandidateFailed as failure:
            try:
                self._check_result(task, artifact)
            except PromiseBroken:
                raise PromiseUntold(f"see [{entry.name}-{Promise.CORRECT}]") from failure
            raise PromiseBroken(f"while {task.name} was timed: {failure}") from failure


def _named(reason: Exception | str, guarded: GuardPlan, entry: GuardEntry) -> str:
    return f"{entry.name} of {guarded.spec_path}: {reason}"


def _with_artifact(entry: GuardEntry, artifact: Artifact | None) -> Iterator[tuple[Task, Artifact | None]]:
    """The tasks of an entry, the first with what was compiled for it."""
    return zip(entry.tasks, chain([artifact], repeat(None)))  # noqa: B905 - the second has no end


def _joined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on the speed of an entry in several dispatches: the worst of them, with the figures of its lowest."""
    worst = next(
        outcome
        for outcome in (Outcome.BROKEN, Outcome.UNDECIDED, Outcome.KEPT)
        if any(each.outcome is outcome for each in verdicts.values())
    )
    those = {name: each for name, each in verdicts.items() if each.outcome is worst}
    lowest = min(those.values(), key=lambda each: each.figures["ratio"])
    if len(verdicts) == 1:
        return lowest

    def joined(texts: Mapping[str, str]) -> str:
        return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)

    return msgspec.structs.replace(
        lowest,
        reason=joined({name: each.reason for name, each in those.items()}),
        note=joined({name: each.note for name, each in those.items()}),
    )


def _verdict(entry: GuardEntry, promise: Promise, outcome: Outcome, *, reason: str = "", note: str = "") -> Verdict:
    return Verdict(entry=entry.name, promise=promise, outcome=outcome, reason=reason, note=note)
