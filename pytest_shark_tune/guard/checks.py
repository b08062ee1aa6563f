"""The evaluator: runs the checks of spec entries with the tools that tuning uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, repeat

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.errors import CandidateFailed, CheckFailed, CheckSkipped
from pytest_shark_tune.guard.allowed import ConstraintCheck
from pytest_shark_tune.guard.applies import Applicability
from pytest_shark_tune.guard.forms import FormChecks, record_of_form
from pytest_shark_tune.guard.identity import IdentityCheck
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.sizes import unseen_tasks_of
from pytest_shark_tune.guard.speed import AcceptanceCriteria, run_sequential_test, session_allowance
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.tuning.session import Session

__all__ = ["EntryEvaluator"]


class EntryEvaluator:
    """Evaluates checks for one process of a run.

    A static check that passes is stored for all processes and later runs. If it fails, a busy machine may be to blame,
    so only this process remembers it.
    """

    def __init__(
        self,
        session: Session,
        defaults: dict[str, Source],
        identity: IdentityCheck,
        against: Callable[[GuardPlan, GuardEntry, AcceptanceCriteria], Verdict],
    ) -> None:
        self._session = session
        self._identity = identity
        self._against = against
        self._constraint_check = ConstraintCheck(session.builder)
        self._forms = FormChecks(session.untuned, session.models, defaults)
        self._applicability = Applicability(session.builder, session.cache, session.settings.route)
        self._static_verdicts: dict[str, Verdict] = {}

    def evaluate(
        self,
        guarded: GuardPlan,
        entry: GuardEntry,
        check: EntryCheck,
        artifact: Artifact | None = None,
        *,
        alpha: float,
    ) -> Verdict:
        """Evaluate one check of an entry. It is skipped if a static check before it fails.

        Args:
            guarded: the plan.
            entry: its entry.
            check: the check.
            artifact: the artifact of the entry's first task, if the caller has it.
            alpha: the probability of a false alarm that the entry's speed check has, of the whole run's.
        """
        for earlier in entry.checks:
            if earlier is check:
                break
            if earlier.is_static and self._static(guarded, entry, earlier).outcome is CheckOutcome.FAILED:
                return _make_verdict(entry, check, CheckOutcome.SKIPPED, reason=f"see [{entry.name}-{earlier}]")
        if check.is_static:
            return self._static(guarded, entry, check)
        try:
            if check is EntryCheck.FAST and entry.form is None and self._is_identical(guarded, entry, artifact):
                return Verdict(entry=entry.name, check=check, outcome=CheckOutcome.PASSED, by_identity=True)
            self._check_device(entry)
            verdict = self._run(guarded, entry, check, artifact, alpha)
            reason = verdict.reason and guarded.blame(entry, verdict.reason)
            return msgspec.structs.replace(verdict, reason=reason)
        except CheckFailed as failed:
            return _make_verdict(entry, check, CheckOutcome.FAILED, reason=guarded.blame(entry, failed))
        except CheckSkipped as skipped:
            return _make_verdict(entry, check, CheckOutcome.SKIPPED, reason=str(skipped))

    def _run(
        self, guarded: GuardPlan, entry: GuardEntry, check: EntryCheck, artifact: Artifact | None, alpha: float
    ) -> Verdict:
        """Run a check that needs a device."""
        if entry.needs_no_spec:
            allowance = -math.log(1 - self._session.settings.tolerance)
            criteria = msgspec.structs.replace(self.criteria(entry, alpha), allowance=allowance)
            return self._against(guarded, entry, criteria)
        if check in (EntryCheck.CORRECT, EntryCheck.BITS) and entry.form is None:
            return self._correct(guarded, entry, check, artifact)
        if check is EntryCheck.CORRECT:
            self._forms.correct(guarded, entry)
            return _make_verdict(entry, check, CheckOutcome.PASSED)
        if not entry.is_local:
            raise CheckSkipped(f"recorded on {entry.device}, this is {self._session.settings.device_name}")
        if entry.form is not None:
            criteria = msgspec.structs.replace(self.criteria(entry, alpha), record=record_of_form(entry.form))
            timed = partial(self._form_fast, guarded, entry, criteria)
        else:
            timed = partial(self._fast, entry, artifact, alpha)
        return self._beside_calibration(timed)

    # Checks that need no device.

    def _static(self, guarded: GuardPlan, entry: GuardEntry, check: EntryCheck) -> Verdict:
        step, route = self._session.step, self._session.settings.route
        key = content_key("promise", guarded.key, entry.name, check, route, *filter(None, [step]))
        if key not in self._static_verdicts:
            self._static_verdicts[key] = self._session.cache.get_or_make(
                "checks",
                key,
                Verdict,
                lambda: self._evaluate_static(guarded, entry, check),
                lasts=lambda verdict: verdict.outcome is CheckOutcome.PASSED,
            )
        return self._static_verdicts[key]

    def _evaluate_static(self, guarded: GuardPlan, entry: GuardEntry, check: EntryCheck) -> Verdict:
        try:
            notes = self._notes(guarded, entry, check)
        except CheckFailed as reason:
            return _make_verdict(entry, check, CheckOutcome.FAILED, reason=guarded.blame(entry, reason))
        except CheckSkipped as reason:
            return _make_verdict(entry, check, CheckOutcome.SKIPPED, reason=str(reason))
        return _make_verdict(entry, check, CheckOutcome.PASSED, note="; ".join(dict.fromkeys(notes)))

    def _notes(self, guarded: GuardPlan, entry: GuardEntry, check: EntryCheck) -> list[str]:
        """Run a static check, and return notes.

        Raises:
            CheckFailed: it fails.
            CheckSkipped: it cannot run.
        """
        if check is EntryCheck.COMPILES:
            self._forms.compile(guarded, entry)
            return []
        if check is EntryCheck.APPLIES:
            return self._applicability.check(guarded, entry)
        if check is EntryCheck.ALLOWED:
            if not entry.tasks:
                raise CheckSkipped(f"it is for no dispatch here: see [{entry.name}-{EntryCheck.APPLIES}]")
            return self._constraint_check.check(entry)
        if entry.problem:
            raise CheckFailed(entry.problem)
        return [entry.note] if entry.note else []

    # Checks that need a device.

    def _is_identical(self, guarded: GuardPlan, entry: GuardEntry, artifact: Artifact | None) -> bool:
        """Whether the recorded speed holds by the identity of machine code, where it cannot or need not be measured.

        Raises:
            CheckSkipped: the code changed, and no device of the record's model is here.
        """
        settings = self._session.settings
        is_here = bool(settings.devices) and entry.is_local
        if not entry.tasks or entry.record is None or entry.record.code is None:
            return False
        if is_here and not settings.trusts_identity:
            return False
        why = self._identity.why_changed(guarded, entry, artifact)
        if why and not is_here:
            here = f"this is {settings.device_name}" if settings.devices else "there is none here (--tune-device)"
            raise CheckSkipped(f"recorded on {entry.device}, {here}: it needs the device, since {why}")
        return not why

    def _check_device(self, entry: GuardEntry) -> None:
        if not self._session.settings.devices:
            raise CheckSkipped(f"there is no device here that runs {self._session.compiler.target} (--tune-device)")
        if not entry.tasks and entry.form is None and not entry.needs_no_spec:
            raise CheckSkipped("it applies to ops before the compiler rewrites them, and runs only as part of a model")

    def _form_fast(self, guarded: GuardPlan, entry: GuardEntry, criteria: AcceptanceCriteria) -> Verdict:
        """Measure the speed of a model in its form.

        Raises:
            CheckFailed: the model does not compile.
            CheckSkipped: no function can be run, or the run fails.
        """
        try:
            play = self._forms.timer(guarded, entry)
            return run_sequential_test(entry.name, lambda _: play(), criteria)
        except CandidateFailed as failure:
            raise CheckSkipped(f"see [{entry.name}-{EntryCheck.CORRECT}]: {failure}") from failure

    def _correct(self, guarded: GuardPlan, entry: GuardEntry, check: EntryCheck, artifact: Artifact | None) -> Verdict:
        bitwise = check is EntryCheck.BITS
        for task, given in _with_artifact(entry, artifact):
            self._check_result(task, given, bitwise=bitwise)
        for task in unseen_tasks_of(entry, guarded.spec, self._session):
            self._check_result(task, None, bitwise=bitwise)
        return _make_verdict(entry, check, CheckOutcome.PASSED)

    def _check_result(self, task: Task, artifact: Artifact | None, *, bitwise: bool = False) -> None:
        (candidate,) = task.candidates
        try:
            self._session.runner.check_members(task, candidate, artifact, bitwise=bitwise)
        except CandidateFailed as failure:
            raise CheckFailed(f"on {task.name}: {failure}") from failure

    def criteria(self, entry: GuardEntry, alpha: float) -> AcceptanceCriteria:
        """The criteria for the entry's speed in one dispatch, with the probability ``alpha`` of a false alarm."""
        return AcceptanceCriteria(
            alpha=alpha,
            device=self._session.settings.device_name,
            iree=compiler_version(),
            record=entry.record,
            tolerance=self._session.settings.tolerance,
            fingerprint=self._session.fingerprint_of(bitwise=bool(entry.record and entry.record.bitwise)),
            allowance=session_allowance(self._session.settings.spread, alpha),
        )

    def _beside_calibration(self, measure: Callable[[], Verdict]) -> Verdict:
        """Measure a speed, and if a history is kept the speed of the machine beside it."""
        if self._session.settings.spread is None:
            return measure()
        with self._session.children.fresh() as child:
            calibration = self._session.microbenchmarks.calibrate(child)
        return msgspec.structs.replace(measure(), calibration=calibration)

    def _fast(self, entry: GuardEntry, artifact: Artifact | None, alpha: float) -> Verdict:
        """Measure the entry's speed in each dispatch. The dispatches share its probability of a false alarm."""
        criteria = self.criteria(entry, alpha / len(entry.tasks))
        verdicts = {
            task.name: self._run_sequential_test(entry, task, given, criteria)
            for task, given in _with_artifact(entry, artifact)
        }
        return _join_verdicts(verdicts)

    def _run_sequential_test(
        self, entry: GuardEntry, task: Task, artifact: Artifact | None, criteria: AcceptanceCriteria
    ) -> Verdict:
        (candidate,) = task.candidates
        try:
            return run_sequential_test(
                entry.name,
                lambda number: self._session.runner.guard_round(task, candidate, number, artifact),
                criteria,
            )
        except CandidateFailed as failure:
            try:
                self._check_result(task, artifact)
            except CheckFailed:
                raise CheckSkipped(f"see [{entry.name}-{EntryCheck.CORRECT}]") from failure
            raise CheckFailed(f"while {task.name} was timed: {failure}") from failure


def _with_artifact(entry: GuardEntry, artifact: Artifact | None) -> Iterator[tuple[Task, Artifact | None]]:
    """The tasks of an entry, the first with its artifact."""
    return zip(entry.tasks, chain([artifact], repeat(None)))  # noqa: B905 - the second has no end


def _join_verdicts(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on an entry's speed in several dispatches: the worst outcome, with the lowest ratio's figures."""
    worst = next(
        outcome
        for outcome in (CheckOutcome.FAILED, CheckOutcome.UNDECIDED, CheckOutcome.PASSED)
        if any(verdict.outcome is outcome for verdict in verdicts.values())
    )
    those = {name: verdict for name, verdict in verdicts.items() if verdict.outcome is worst}
    lowest = min(those.values(), key=lambda verdict: verdict.metrics["ratio"])
    if len(verdicts) == 1:
        return lowest

    def joined(texts: Mapping[str, str]) -> str:
        return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)

    return msgspec.structs.replace(
        lowest,
        reason=joined({name: verdict.reason for name, verdict in those.items()}),
        note=joined({name: verdict.note for name, verdict in those.items()}),
    )


def _make_verdict(
    entry: GuardEntry, check: EntryCheck, outcome: CheckOutcome, *, reason: str = "", note: str = ""
) -> Verdict:
    return Verdict(entry=entry.name, check=check, outcome=outcome, reason=reason, note=note)
