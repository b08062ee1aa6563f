"""Stages for IREE's dispatches: the fixtures ``artifact`` and ``measurement``, for clients to change in part.

A client's change of a test holds for everything that the test compiles or times: the candidate, the default that it is
compared with, the finalists, and in guard mode the entry of a spec.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.verdict import EntryCheck, Verdict
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, Measurement
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import FormResult, KernelTask, Task
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import FinalRecord, SpecRecord, State
from pytest_shark_tune.tuning.compile_step import CompileStep, command_failure
from pytest_shark_tune.tuning.runner import RoundResult, default_failed
from pytest_shark_tune.tuning.session import Session

__all__ = ["DispatchStages", "Result", "Stage", "Timer", "time_in_turns"]

Result: TypeAlias = Measurement | FinalRecord | FormRecord | SpecRecord | Verdict
"""The value of the fixture ``measurement``."""

Timer: TypeAlias = Callable[[Artifact, str], Sequence[float]]
"""Times an artifact on the device of that URI, and returns the microseconds of some runs of its dispatch.

If that fails it raises `CandidateFailed`, or an error of `subprocess`.
"""


class Stage(Protocol):
    """The two steps of a test: the fixture ``artifact`` builds, and ``measurement`` measures."""

    def build(self) -> Artifact | None:
        """Compile the test's candidate; ``None`` if the test compiles while it measures.

        Raises:
            CandidateFailed: it cannot be compiled.
        """

    def measure(self, artifact: Artifact | None) -> Result | None:
        """Measure; ``None`` in a run that stops before that.

        Raises:
            CandidateFailed: the candidate cannot be run, runs too long, or its result is wrong.
        """


class DispatchStages:
    """Compiles and measures a test of dispatches.

    Args:
        session: the session of this process.
        case: the case of the test.
        guard: makes the stage of a test in guard mode.
    """

    def __init__(
        self, session: Session, case: TuningCase, guard: Callable[[TuningCase, Session], Stage] | None = None
    ) -> None:
        self._session = session
        self._case = case
        self._guard = guard

    @property
    def session(self) -> Session:
        """The session that this test compiles with: through the step that it asked for, if any."""
        return self._session

    def build(self, step: Callable[[str], str] | None = None, *, key: str = "") -> Artifact | None:
        """Compile the candidate.

        Args:
            step: changes every module that this test compiles. It takes the text of a module with its configs applied,
                at the compiler's phase ``executable-sources``, and returns it changed, at the same phase. The module is
                a dispatch's benchmark or, for the spec, a whole model. The step is called once at a time, in pytest's
                own process. It may raise CandidateFailed; the errors of ``subprocess`` count as that.
            key: names the step in the keys of compiled modules, so it has to change if the step does. Of several steps
                with one key, a process runs the first.

        Returns:
            The artifact; ``None`` for finals and for the spec, which compile while they measure.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied afterwards.
            InputError: there is a step without a key.
        """
        if step is not None:
            if not key:
                raise InputError("tune_dispatch.build: a step needs a key, by which compiled modules are stored")
            self._session = self._session.with_step(CompileStep(key, step))
        return self._stage.build()

    def measure(self, artifact: Artifact | None) -> Result | None:
        """Measure as the fixture ``measurement`` does if nobody overrides it; ``None`` in a run that stops before.

        Raises:
            CandidateFailed: the candidate cannot be run, runs too long, or its result is wrong.
        """
        return self._stage.measure(artifact)

    @property
    def _stage(self) -> Stage:
        if self._guard is not None:
            return self._guard(self._case, self._session)
        return _TuneStage(self._session, self._case)

    def compare(self, artifact: Artifact | None, timer: Timer) -> Result | None:
        """Measure with a client's own timer, after our runtime has checked the results.

        The timer is called in turns for the default and for the candidates that are compared with it, on a device that
        no other process uses meanwhile. It times one dispatch of a group of alike ones. Our own runner measures the
        merged spec.

        Raises:
            CandidateFailed: the candidate cannot be run or timed, or its result is wrong.
        """
        case = self._case
        check = case.guarded.check if case.guarded is not None else None
        if self._session.settings.stops_after_compile:
            return None
        if case.role is Role.FINAL:
            return self._session.finals.hold_by(self._task, partial(self._round, timer))
        if artifact is None or check not in (None, EntryCheck.FAST):
            return self.measure(artifact)
        self._session.runner.check_members(self._task, case.candidate, artifact)
        rounds: list[Measurement] = []
        for _ in range(1 if check is None else FINAL_ROUNDS):
            played = self._in_turns(timer, {artifact.candidate: artifact})
            for failure in played.failed.values():
                raise failure
            rounds += played.measured.values()
        return combine_rounds(rounds)

    def compare_in_model(self) -> FinalRecord:
        """Compare a dispatch's finalists in the model that it is part of. The winner makes the model fastest.

        All times in the record are the model's, which has its default in all other dispatches.

        Raises:
            InputError: the test is no final, or the dispatch is not part of one function that can be run.
        """
        if self._case.role is not Role.FINAL:
            raise InputError("tune_dispatch.compare_in_model is for finals, whose candidate.role is 'final'")
        return self._session.finals.hold_in_model(self._task, self._case.plan)

    @property
    def _task(self) -> Task:
        return _dispatch_of(self._case)

    def _round(self, timer: Timer, names: Sequence[str], number: int) -> RoundResult:
        """One round of a final. If a finalist fails, the others are measured without it."""
        artifacts: dict[str, Artifact] = {}
        failed: dict[str, CandidateFailed] = {}
        for name in names:
            candidate = self._task.candidate(name)
            try:
                artifact = self._session.builder.artifact(self._task, candidate)
                if number == 0:
                    self._session.runner.check_members(self._task, candidate)
                artifacts[name] = artifact
            except CandidateFailed as failure:
                failed[name] = failure
        timed = self._in_turns(timer, artifacts) if artifacts else RoundResult({}, {})
        return RoundResult(timed.measured, failed | dict(timed.failed))

    def _in_turns(self, timer: Timer, artifacts: Mapping[str, Artifact]) -> RoundResult:
        default = self._session.builder.artifact(self._task, self._task.default)
        with self._session.device() as uri:
            return time_in_turns(timer, uri, default, artifacts)


@dataclass(frozen=True)
class _TuneStage:
    """Picks the builder, the runner, the finals or the verifier by the test's role."""

    session: Session
    case: TuningCase

    def build(self) -> Artifact | None:
        case = self.case
        if case.config is None or isinstance(case.known_task, KernelTask):
            return None
        builder = self.session.builder
        if self.session.settings.stops_after_compile:
            builder.prepare(case.known_task, case.config)
        return builder.artifact(case.known_task, case.config)

    def measure(self, artifact: Artifact | None) -> Result | None:
        session, case = self.session, self.case
        if session.settings.stops_after_compile:
            return None
        match case.role:
            case Role.SPEC:
                return session.verifier.verify(case.plan)
            case Role.END_TO_END:
                return session.verifier.end_to_end(case.plan, case.model)
            case Role.FORM:
                return _form_measurement(case.form_result)
            case Role.FORM_FINAL:
                return session.form_finals.record(case.plan, case.model)
            case Role.FINAL:
                return session.finals.hold(_dispatch_of(case), case.plan)
        task = _dispatch_of(case)
        assert artifact is not None
        return session.runner.measure(task, case.candidate, artifact)


def _form_measurement(result: FormResult) -> Measurement | None:
    """The measurement of a form, which was taken when the run was planned; ``None`` for the default form.

    Raises:
        CandidateFailed: the form was not measured.
    """
    if result.state == State.MEASURED:
        return result.measurement
    raise CandidateFailed(result.state, result.reason, result.duplicate_of)


def _dispatch_of(case: TuningCase) -> Task:
    task = case.known_task
    if not isinstance(task, Task):
        raise InputError(
            f"{task.name} is a custom task, which only its suite can compile and run: override the fixtures "
            "artifact and measurement in its conftest.py, with tune_kernel.build and tune_kernel.compare"
        )
    return task


def time_in_turns(timer: Timer, uri: str, default: Artifact, artifacts: Mapping[str, Artifact]) -> RoundResult:
    """Time the default and the others in turns, and once more in the reverse order, so that a linear drift cancels.

    If one of the others fails, the rest is timed without it.

    Raises:
        CandidateFailed: the default cannot be timed; the message says so.
    """
    everyone: dict[str | None, Artifact] = {None: default}
    everyone.update(artifacts)
    samples: dict[str | None, list[float]] = {name: [] for name in everyone}
    failed: dict[str, CandidateFailed] = {}
    for name in (*everyone, *reversed(everyone)):
        if name in failed:
            continue
        try:
            samples[name] += _timed(timer, everyone[name], uri)
        except CandidateFailed as failure:
            if name is None:
                raise default_failed(failure) from failure
            failed[name] = failure
    measured = {name: Measurement.of_samples(samples[name], samples[None]) for name in artifacts if name not in failed}
    return RoundResult(measured, failed)


def _timed(timer: Timer, artifact: Artifact, uri: str) -> Sequence[float]:
    try:
        samples = timer(artifact, uri)
    except (CommandFailed, subprocess.SubprocessError, OSError) as error:
        raise command_failure(error, State.RUN_FAILED, State.RUN_TIMEOUT) from error
    if not samples or min(samples) <= 0:
        raise CandidateFailed(State.RUN_FAILED, f"the suite's timer gave {samples or 'no times'}")
    return samples
