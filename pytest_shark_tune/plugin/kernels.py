"""Stages for a suite's own kernels: the suite compiles and loads them, and the stages compare them.

A test of a custom task compares one candidate with the default, or in a final the fastest candidates with it. So the
suite's fixtures hand over a function that compiles a config and a function that loads it.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.measurement.correctness import EXACT, Tolerance, check_output
from pytest_shark_tune.measurement.timing import FINAL, Measurement, Run, compare, compare_finalists
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import KernelTask
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.records.types import FinalRecord, State
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.tuning.compile_step import command_failure
from pytest_shark_tune.tuning.runner import RoundResult, default_failed
from pytest_shark_tune.tuning.session import Session

__all__ = ["Built", "Kernel", "KernelStages", "as_failure"]

_A = TypeVar("_A")


class Kernel(NamedTuple):
    """A kernel that is loaded."""

    run: Run
    """Runs the kernel n times and returns the seconds."""
    result: Callable[[], NDArray[Any]]
    """Returns the result of the last run."""


@dataclass(frozen=True)
class Built(Generic[_A]):
    """The compiled configs of one test, by the ids of their candidates."""

    artifacts: Mapping[str, _A]
    failed: Mapping[str, CandidateFailed]
    """The finalists that cannot be compiled."""
    compile_s: Mapping[str, float]


class KernelStages:
    """Compiles and compares the configs of one test of a custom task, for the suite's fixtures."""

    def __init__(self, session: Session, case: TuningCase) -> None:
        self._session = session
        self._case = case
        if case.role in (Role.DEFAULT, Role.CANDIDATE, Role.FINAL) and isinstance(case.known_task, KernelTask):
            self._task = case.known_task
        else:
            raise InputError("tune_kernel is for the tests of a CustomTask; IREE's dispatches have stages already")

    def build(self, compile_kernel: Callable[[Mapping[str, int]], _A]) -> Built[_A]:
        """Compile every config of this test.

        Args:
            compile_kernel: compiles the kernel with these knobs, and returns an artifact for ``compare`` to load. A
                process calls it once for equal knobs. It raises CandidateFailed or an error of ``subprocess`` if it
                cannot compile the kernel.

        Raises:
            CandidateFailed: the candidate, or the default that it is compared with, cannot be compiled.
        """
        artifacts: dict[str, _A] = {}
        failed: dict[str, CandidateFailed] = {}
        seconds: dict[str, float] = {}
        for config in self._configs():
            try:
                artifacts[config.id], seconds[config.id] = self._compiled(config, compile_kernel)
            except CandidateFailed as failure:
                if self._case.role is not Role.FINAL or config.id == self._task.default.id:
                    raise self._reported(config, failure) from failure
                failed[config.id] = failure
        return Built(artifacts, failed, seconds)

    def compare(
        self, built: Built[_A], load: Callable[[_A, int], Kernel], tolerance: Tolerance = EXACT
    ) -> Measurement | FinalRecord:
        """Time the compiled configs in turns with the default, once their results agree with the default's.

        Args:
            built: the compiled configs, from ``build``.
            load: loads an artifact with inputs from a seed. A final calls it again for every round, with another seed.
                It runs in this process: if kernels may crash or hang, it has to run them in processes of their own.
            tolerance: the tolerance of results.

        Raises:
            CandidateFailed: the candidate, or the default, cannot be loaded or run, or its result is wrong.
        """
        if self._case.role is Role.FINAL:
            return self._session.finals.hold_by(self._task, partial(self._round, built, load, tolerance))
        config, default, seed = self._case.candidate, self._task.default, self._session.settings.seed
        with self._session.device():
            try:
                baseline, expected = _loaded(load, built.artifacts[default.id], seed)
                if config.id == default.id:
                    # The default is its own reference: a result that changes from run to run can verify nothing.
                    baseline.run(1)
                    _check(baseline.result(), expected, tolerance, seed)
                    timed = _checked(baseline.run, default.id)
                    return compare(timed, timed)
            except CandidateFailed as failure:
                raise self._reported(default, failure) from failure
            kernel, result = _loaded(load, built.artifacts[config.id], seed)
            _check(result, expected, tolerance, seed)
            return compare(_checked(kernel.run, config.id), _checked(baseline.run, default.id))

    def _round(
        self,
        built: Built[_A],
        load: Callable[[_A, int], Kernel],
        tolerance: Tolerance,
        names: Sequence[str],
        number: int,
    ) -> RoundResult:
        """One round of a final on new inputs. If a finalist fails, the others are measured without it."""
        failed = {name: built.failed[name] for name in names if name in built.failed}
        seed = self._session.settings.seed + 1 + number
        runs: dict[str, Run] = {}
        with self._session.device():
            baseline, expected = _loaded(load, built.artifacts[self._task.default.id], seed)
            for name in names:
                if name in failed:
                    continue
                try:
                    kernel, result = _loaded(load, built.artifacts[name], seed)
                    _check(result, expected, tolerance, seed)
                    runs[name] = _checked(kernel.run, name)
                except CandidateFailed as failure:
                    failed[name] = failure
            measured = (
                compare_finalists(runs, _checked(baseline.run, self._task.default.id), FINAL, seed=seed) if runs else {}
            )
        return RoundResult(measured, failed)

    def _configs(self) -> tuple[Candidate, ...]:
        task = self._task
        if self._case.role is Role.FINAL:
            finalists = tuple(map(task.candidate, self._session.finals.finalists(task)))
            return (task.default, *finalists) if finalists else ()
        config = self._case.candidate
        return (task.default,) if config.id == task.default.id else (task.default, config)

    def _compiled(self, config: Candidate, compile_kernel: Callable[[Mapping[str, int]], _A]) -> tuple[_A, float]:
        memory = self._session.kernels
        key = (self._case.plan_key, self._task.name, config.id)
        if key not in memory:
            started = time.perf_counter()
            try:
                with self._session.processor():
                    made: Any = compile_kernel(config.knobs)
            except CandidateFailed as failure:
                made = failure
            except (CommandFailed, subprocess.SubprocessError, OSError) as error:
                made = command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT)
            memory[key] = made, round(time.perf_counter() - started, 3)
        made, seconds = memory[key]
        if isinstance(made, CandidateFailed):
            raise CandidateFailed(made.state, made.reason) from made
        return made, seconds

    def _reported(self, config: Candidate, failure: CandidateFailed) -> CandidateFailed:
        """The failure as the test reports it: a failure of the default is one of the candidate, too."""
        if self._case.role is not Role.CANDIDATE or config.id != self._task.default.id:
            return failure
        return default_failed(failure)


def as_failure(error: BaseException | None) -> BaseException | None:
    """Return the failure of a candidate if ``error`` is that of a suite's command, run by `system.process`."""
    if not isinstance(error, CommandFailed):
        return error
    state = State.COMPILE_TIMEOUT if error.timed_out else State.COMPILE_FAILED
    return CandidateFailed(state, first_error(error))


def _loaded(load: Callable[[_A, int], Kernel], artifact: _A, seed: int) -> tuple[Kernel, NDArray[Any]]:
    kernel = load(artifact, seed)
    kernel.run(1)
    return kernel, kernel.result().copy()


def _checked(run: Run, name: str) -> Run:
    """Return ``run`` with its answer checked. It raises CandidateFailed for a time that is none."""

    def timed(count: int) -> float:
        seconds = run(count)
        if not 0 < seconds < math.inf:
            raise CandidateFailed(
                State.RUN_FAILED, f"run({count}) of the kernel {name} returned {seconds!r}, which is no time in seconds"
            )
        return seconds

    return timed


def _check(result: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance, seed: int) -> None:
    try:
        check = check_output(expected, result, tolerance, seed=seed)
    except ValueError as error:
        raise CandidateFailed(State.WRONG_RESULT, str(error)) from error
    if not check.ok:
        raise CandidateFailed(State.WRONG_RESULT, check.reason, check)
