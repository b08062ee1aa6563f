"""Stages for IREE's dispatches: what the fixtures ``artifact`` and ``measurement`` do, for clients to change in part.

Whatever a client changes for a test holds for all that the test compiles or times: the candidate, the default that it
is compared with, the finalists, and in guard mode the entry of a spec.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.verdict import Promise, Verdict
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, Measurement, combine_rounds
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import KernelTask, Task
from pytest_shark_tune.plugin.cases import Trial
from pytest_shark_tune.records.types import FinalRecord, SpecRecord, State
from pytest_shark_tune.tuning.compile_step import CompileStep, command_failure
from pytest_shark_tune.tuning.session import Session

if TYPE_CHECKING:
    from pytest_shark_tune.plugin.guard.evaluation import CaseEvaluator

__all__ = ["DispatchStages", "Timer", "time_in_turns"]

Timer: TypeAlias = Callable[[Artifact, str], Sequence[float]]
"""Times an artifact on the device of that URI: the microseconds that each run of its dispatch took, as many as it has.

It raises `CandidateFailed`, or what `subprocess` raises, where that fails.
"""


class DispatchStages:
    """Compiles and measures what one test tries; ``guard`` looks at promises, in guard mode."""

    def __init__(self, session: Session, trial: Trial, guard: CaseEvaluator | None = None) -> None:
        self._session = session
        self._trial = trial
        self._guard = guard

    @property
    def session(self) -> Session:
        """The session that this test compiles with: through the step that it asked for, if any."""
        return self._session

    def build(self, step: Callable[[str], str] | None = None, *, key: str = "") -> Artifact | None:
        """Compile the candidate; ``None`` for finals and for the spec, which compile what they compare.

        With a ``step`` this test compiles nothing without it. It takes the text of a module whose configs are in
        force, at the compiler's phase ``executable-sources`` (a dispatch's benchmark module, or a whole model for the
        spec), and gives it changed, at the same phase. It is called once at a time, in pytest's own process. What is
        compiled is kept by ``key``, so that has to change where what the step does changes; of steps with equal keys a
        process runs the first. It raises CandidateFailed for what it cannot do; the errors of ``subprocess`` count as
        that.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not in force afterwards.
            InputError: there is a step without a key.
        """
        if step is not None:
            if not key:
                raise InputError("tune_dispatch.build: a step needs a key, by which what is compiled is kept")
            self._session = self._session.with_step(CompileStep(key, step))
        trial = self._trial
        if trial.config is None or isinstance(trial.known_task, KernelTask):
            return None
        if self._guard is not None:
            return self._guard.artifact(trial, self._session)
        if self._session.settings.stops_after_compile:
            self._session.prepare(trial.known_task, trial.config)
        return self._session.artifact(trial.known_task, trial.config)

    def measure(self, artifact: Artifact | None) -> Measurement | FinalRecord | SpecRecord | Verdict | None:
        """Do what the fixture ``measurement`` does where nobody overrides it; in a run that stops before, nothing.

        Raises:
            CandidateFailed: the candidate cannot be run, runs too long, or its result is wrong.
        """
        trial = self._trial
        if trial.guarded is not None and self._guard is not None:
            return self._guard.look(trial.guarded, artifact, self._session)
        if self._session.settings.stops_after_compile:
            return None
        if trial.role is Role.SPEC:
            return self._session.verify(trial.plan)
        if trial.role is Role.END_TO_END:
            return self._session.end_to_end(trial.plan, trial.model)
        task = self._task
        if trial.role is Role.FINAL:
            return self._session.final(task)
        assert artifact is not None
        return self._session.measure(task, trial.candidate, artifact)

    def compare(
        self, artifact: Artifact | None, timer: Timer
    ) -> Measurement | FinalRecord | SpecRecord | Verdict | None:
        """Do the same with a ``timer`` of the client's own, once our runtime found the results right.

        The timer is called in turns for the default and whoever is compared with it, on a device that no other
        process uses meanwhile. It times one dispatch of a group of alike ones. The merged spec is measured by us.

        Raises:
            CandidateFailed: the candidate cannot be run or timed, or its result is wrong.
        """
        trial = self._trial
        promise = trial.guarded.promise if trial.guarded is not None else None
        if self._session.settings.stops_after_compile:
            return None
        if trial.role is Role.FINAL:
            return self._session.hold_final(
                self._task, lambda names, failed, number: self._round(timer, names, failed, number)
            )
        if artifact is None or promise not in (None, Promise.FAST):
            return self.measure(artifact)
        self._session.check(self._task, trial.candidate, artifact)
        rounds: list[Measurement] = []
        failed: dict[str, CandidateFailed] = {}
        for _ in range(1 if promise is None else FINAL_ROUNDS):
            rounds += self._in_turns(timer, {artifact.candidate: artifact}, failed).values()
            for failure in failed.values():
                raise failure
        return combine_rounds(rounds)

    def compare_in_model(self) -> FinalRecord:
        """Compare a dispatch's finalists in the model that it is part of: the winner makes that fastest.

        All figures of the record are the model's. The model has its default in all other dispatches.

        Raises:
            InputError: the test is no final, or the dispatch is not part of one function that can be run.
        """
        if self._trial.role is not Role.FINAL:
            raise InputError("tune_dispatch.compare_in_model is for finals, whose candidate.role is 'final'")
        return self._session.final_in_model(self._task, self._trial.plan)

    @property
    def _task(self) -> Task:
        task = self._trial.known_task
        if not isinstance(task, Task):
            raise InputError(
                f"{task.name} is a custom task, which only its suite can compile and run: override the fixtures "
                "artifact and measurement in its conftest.py, with tune_kernel.build and tune_kernel.compare"
            )
        return task

    def _round(
        self, timer: Timer, names: Sequence[str], failed: dict[str, CandidateFailed], number: int
    ) -> Iterator[tuple[str, Measurement]]:
        """One round of a final; whoever fails is put into ``failed``, and the rest go on."""
        artifacts: dict[str, Artifact] = {}
        for name in names:
            candidate = self._task.candidate(name)
            try:
                artifacts[name] = self._session.artifact(self._task, candidate)
                if number == 0:
                    self._session.check(self._task, candidate)
            except CandidateFailed as failure:
                artifacts.pop(name, None)
                failed[name] = failure
        if artifacts:
            yield from self._in_turns(timer, artifacts, failed).items()

    def _in_turns(
        self, timer: Timer, artifacts: Mapping[str, Artifact], failed: dict[str, CandidateFailed]
    ) -> dict[str, Measurement]:
        default = self._session.artifact(self._task, self._task.default)
        with self._session.device() as uri:
            return time_in_turns(timer, uri, default, artifacts, failed)


def time_in_turns(
    timer: Timer, uri: str, default: Artifact, artifacts: Mapping[str, Artifact], failed: dict[str, CandidateFailed]
) -> dict[str, Measurement]:
    """Time the default and all others in turns, and once more in the reverse order, so that a linear drift cancels.

    Whoever fails is put into ``failed``, and the rest go on.

    Raises:
        CandidateFailed: the default cannot be timed; the message says so.
    """
    everyone: dict[str | None, Artifact] = {None: default}
    everyone.update(artifacts)
    samples: dict[str | None, list[float]] = {name: [] for name in everyone}
    for name in (*everyone, *reversed(everyone)):
        if name in failed:
            continue
        try:
            samples[name] += _timed(timer, everyone[name], uri)
        except CandidateFailed as failure:
            if name is None:
                reason = f"the default config to compare with failed: {failure}"
                raise CandidateFailed(State.RUN_FAILED, reason) from failure
            failed[name] = failure
    return {name: Measurement.of_samples(samples[name], samples[None]) for name in artifacts if name not in failed}


def _timed(timer: Timer, artifact: Artifact, uri: str) -> Sequence[float]:
    try:
        samples = timer(artifact, uri)
    except (CommandFailed, subprocess.SubprocessError, OSError) as error:
        raise command_failure(error, State.RUN_FAILED, State.RUN_TIMEOUT) from error
    if not samples or min(samples) <= 0:
        raise CandidateFailed(State.RUN_FAILED, f"the suite's timer gave {samples or 'no times'}")
    return samples
