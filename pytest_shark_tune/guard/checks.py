"""The evaluator: runs the checks of spec entries with the tools that tuning uses."""

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
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.tuning.session import Session

__all__ = ["Promises"]


class Promises:
    """Evaluates checks for one process of a run.

    A static check that passes is stored for all processes and later runs. If it fails, a busy machine may be to blame,
    so only this process remembers it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._legality = Legality(session.builder)
        self._reach = Reach(session.builder, session.cache, session.settings.route)
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
        """Evaluate one check of an entry. It is skipped if a static check before it fails.

        Args:
            guarded: the plan.
            entry: its entry.
            promise: the check.
            artifact: the artifact of the entry's first task, if the caller has it.
            alpha: the probability of a false alarm that the entry's speed check has, of the whole run's.
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

    # Checks that need no device.

    def _static(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> Verdict:
        step, route = self._session.step, self._session.settings.route
        key = content_key("promise", guarded.key, entry.name, promise, route, *filter(None, [step]))
        if key not in self._static_verdicts:
            self._static_verdicts[key] = self._session.cache.get_or_make(
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
        """Run a static check, and return notes.

        Raises:
            PromiseBroken: it fails.
            PromiseUntold: it cannot run.
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

    # Checks that need a device.

    def _check_device(self, entry: GuardEntry) -> None:
        if not self._session.settings.devices:
            raise PromiseUntold(f"there is no device here that runs {self._session.compiler.target} (--tune-device)")
        if not entry.tasks:
            raise PromiseUntold("it applies to ops before the compiler rewrites them, and runs only as part of a model")

    def _correct(self, entry: GuardEntry, artifact: Artifact | None) -> Verdict:
        for task, given in _with_artifact(entry, artifact):
            self._check_result(task, given)
        return _verdict(entry, Promise.CORRECT, Outcome.KEPT)

    def _check_result(self, task: Task, artifact: Artifact | None) -> None:
        (candidate,) = task.candidates
        try:
            self._session.runner.check_members(task, candidate, artifact)
        except CandidateFailed as failure:
            raise PromiseBroken(f"on {task.name}: {failure}") from failure

    def _terms(self, entry: GuardEntry, alpha: float) -> Terms:
        """The criteria for the entry's speed in each dispatch, which share its probability of a false alarm.

        Raises:
            PromiseUntold: the entry was measured on another device.
        """
        if not entry.is_local:
            raise PromiseUntold(f"recorded on {entry.device}, this is {self._session.settings.device_name}")
        return Terms(
            alpha=alpha / len(entry.tasks),
            device=self._session.settings.device_name,
            iree=compiler_version(),
            record=entry.record,
            tolerance=self._session.settings.tolerance,
            setting=self._session.setting,
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
                entry.name,
                lambda number: self._session.runner.gate_round(task, candidate, number, artifact),
                terms,
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
    """The tasks of an entry, the first with its artifact."""
    return zip(entry.tasks, chain([artifact], repeat(None)))  # noqa: B905 - the second has no end


def _joined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on an entry's speed in several dispatches: the worst outcome, with the lowest ratio's figures."""
    worst = next(
        outcome
        for outcome in (Outcome.BROKEN, Outcome.UNDECIDED, Outcome.KEPT)
        if any(verdict.outcome is outcome for verdict in verdicts.values())
    )
    those = {name: verdict for name, verdict in verdicts.items() if verdict.outcome is worst}
    lowest = min(those.values(), key=lambda verdict: verdict.figures["ratio"])
    if len(verdicts) == 1:
        return lowest

    def joined(texts: Mapping[str, str]) -> str:
        return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)

    return msgspec.structs.replace(
        lowest,
        reason=joined({name: verdict.reason for name, verdict in those.items()}),
        note=joined({name: verdict.note for name, verdict in those.items()}),
    )


def _verdict(entry: GuardEntry, promise: Promise, outcome: Outcome, *, reason: str = "", note: str = "") -> Verdict:
    return Verdict(entry=entry.name, promise=promise, outcome=outcome, reason=reason, note=note)
