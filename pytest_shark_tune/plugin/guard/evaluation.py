"""Evaluates the check of a test, as far as the suite's own fixtures have not done so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed, InputError
from pytest_shark_tune.guard.plan import GuardPlan
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.speed import RUN_ALPHA, judge
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.plugin.cases import Guarded, TuningCase
from pytest_shark_tune.plugin.stages import DispatchStages
from pytest_shark_tune.tuning.session import Session

__all__ = ["CaseEvaluator", "GuardStage", "verdict_on_failure"]


class CaseEvaluator:
    """Evaluates the checks that the tests of a process stand for.

    ``alpha`` is the probability of a false alarm of a speed check, its share of the whole run's.

    Args:
        session: the session of the run.
        plans: the guard plans of the run by the path of their spec.
    """

    def __init__(self, session: GuardSession, plans: Mapping[str, list[GuardPlan]]) -> None:
        self._session = session
        self._plans = plans
        self.alpha = RUN_ALPHA

    def stage(self, case: TuningCase, session: Session) -> GuardStage:
        """Return the stage of a test."""
        assert isinstance(session, GuardSession)
        return GuardStage(self, case, session)

    def artifact(self, case: TuningCase, session: GuardSession) -> Artifact | None:
        """Compile the config of an entry.

        Args:
            case: the case of the test.
            session: a session that compiles as the suite wants it.

        Returns:
            The artifact; ``None`` if it cannot be compiled since an earlier check fails, which the verdict then says.

        Raises:
            CandidateFailed: it cannot be compiled, and no earlier check says so.
        """
        assert case.guarded is not None
        assert isinstance(case.task, Task)
        try:
            return session.builder.artifact(case.task, case.candidate)
        except CandidateFailed:
            plan, entry = case.guarded.plan, case.guarded.entry
            earlier = session.evaluator.evaluate(plan, entry, EntryCheck.APPLIES, alpha=self.alpha)
            if earlier.outcome is CheckOutcome.PASSED:
                raise
            return None

    def evaluate(self, guarded: Guarded, artifact: object, session: GuardSession) -> Verdict:
        """Evaluate a check.

        Args:
            guarded: the entry and the check.
            artifact: the value of the fixture of that name.
            session: a session that compiles as the suite wants it.

        Raises:
            InputError: the artifact is none that our runner can run.
        """
        if artifact is not None and not isinstance(artifact, Artifact):
            raise InputError(
                f"the suite's own artifact gives a {type(artifact).__name__}, which only the suite can run: override "
                "the fixture measurement in its conftest.py, too"
            )
        verdict = session.evaluator.evaluate(guarded.plan, guarded.entry, guarded.check, artifact, alpha=self.alpha)
        if verdict.outcome is not CheckOutcome.FAILED or guarded.check is not EntryCheck.APPLIES or guarded.entry.tasks:
            return verdict
        # The entry has no dispatch in this test. It may still apply in a model of another test, to an op that is
        # rewritten later.
        elsewhere = (
            session.evaluator.evaluate(plan, plan.entry(guarded.entry.name), EntryCheck.APPLIES, alpha=self.alpha)
            for plan in self._plans[guarded.plan.spec_path]
            if plan is not guarded.plan
        )
        return next((other for other in elsewhere if other.outcome is CheckOutcome.PASSED), verdict)

    def verdict(self, guarded: Guarded, funcargs: Mapping[str, object]) -> Verdict:
        """Return the verdict on a check, by the test's fixtures; the check is evaluated here if none of them did."""
        stages = funcargs.get("tune_dispatch")
        session = stages.session if isinstance(stages, DispatchStages) else self._session
        assert isinstance(session, GuardSession)
        match funcargs.get("measurement"):
            case Verdict() as verdict:
                return verdict
            case Measurement() if guarded.check is not EntryCheck.FAST:
                return Verdict(entry=guarded.entry.name, check=guarded.check, outcome=CheckOutcome.PASSED)
            case Measurement() as measured if guarded.entry.is_local:
                criteria = self._session.evaluator.criteria(guarded.entry, self.alpha)
                verdict = judge(guarded.entry.name, measured, criteria)
                reason = verdict.reason and guarded.plan.blame(guarded.entry, verdict.reason)
                return msgspec.structs.replace(verdict, reason=reason)
            case Measurement():  # Of another device than the record's it says nothing, so ours is reported.
                return self.evaluate(guarded, None, session)
            case _:
                return self.evaluate(guarded, funcargs.get("artifact"), session)


@dataclass(frozen=True)
class GuardStage:
    """The stage of a test in guard mode: it builds an entry's config, and evaluates a check of the entry."""

    evaluator: CaseEvaluator
    """Evaluates the check."""
    case: TuningCase
    """The case of the test."""
    session: GuardSession
    """The session that compiles as the suite wants it."""

    def build(self) -> Artifact | None:
        """Compile the config; ``None`` for a check that needs no device, or if an earlier check fails.

        Raises:
            CandidateFailed: it cannot be compiled, and no earlier check says so.
        """
        return self.evaluator.artifact(self.case, self.session) if self.case.config is not None else None

    def measure(self, artifact: Artifact | None) -> Verdict:
        """Evaluate the check."""
        assert self.case.guarded is not None
        return self.evaluator.evaluate(self.case.guarded, artifact, self.session)


def verdict_on_failure(guarded: Guarded, failure: CandidateFailed) -> Verdict:
    """Return the verdict on a candidate that failed: its result is wrong, and its speed is not known."""
    name = guarded.entry.name
    if guarded.check is EntryCheck.FAST:
        reason = f"see [{name}-{EntryCheck.CORRECT}]: {failure}"
        return Verdict(entry=name, check=EntryCheck.FAST, outcome=CheckOutcome.SKIPPED, reason=reason)
    reason = guarded.plan.blame(guarded.entry, failure)
    return Verdict(entry=name, check=guarded.check, outcome=CheckOutcome.FAILED, reason=reason)
