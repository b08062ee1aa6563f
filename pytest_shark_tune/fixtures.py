"""The stages as fixtures; a client that compiles or times in its own way overrides one in its conftest.py.

They are there in every run, so what they take is imported where a test asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_shark_tune.guarding import GuardingPlugin
    from pytest_shark_tune.kernels import KernelStages
    from pytest_shark_tune.session import Session
    from pytest_shark_tune.stages.artifact import Artifact
    from pytest_shark_tune.stages.guard import Verdict
    from pytest_shark_tune.stages.measurement import Measurement
    from pytest_shark_tune.stages.record import FinalRecord, SpecRecord
    from pytest_shark_tune.trial import Trial

__all__ = ["GUARD_KEY", "SESSION_KEY", "artifact", "candidate", "measurement", "tune_kernel", "tune_session"]

SESSION_KEY: pytest.StashKey[Session] = pytest.StashKey()
GUARD_KEY: pytest.StashKey[GuardingPlugin] = pytest.StashKey()


@pytest.fixture(scope="session")
def tune_session(pytestconfig: pytest.Config) -> Session:
    """The running session: compiler, cache and devices."""
    return pytestconfig.stash[SESSION_KEY]


@pytest.fixture
def candidate(request: pytest.FixtureRequest) -> Trial:
    """What this test tries; the plugin parametrizes it from the ``tune`` marker."""
    from pytest_shark_tune.trial import Trial

    trial = request.param
    assert isinstance(trial, Trial)
    if trial.problem:
        pytest.fail(trial.problem, pytrace=False)
    return trial


@pytest.fixture
def tune_kernel(candidate: Trial, tune_session: Session) -> KernelStages:
    """What compiles and compares a custom task's configs, for a client's own ``artifact`` and ``measurement``."""
    from pytest_shark_tune.kernels import KernelStages

    return KernelStages(tune_session, candidate)


@pytest.fixture
def artifact(candidate: Trial, tune_session: Session, pytestconfig: pytest.Config) -> Artifact | None:
    """The compiled candidate; ``None`` for finals and for the spec, which compile what they compare.

    In guard mode the candidate is a spec entry's config, and there is none for a promise that takes no device.
    """
    from pytest_shark_tune.plan import KernelTask

    if candidate.config is None or isinstance(candidate.known_task, KernelTask):
        return None
    if candidate.guarded is not None:
        return pytestconfig.stash[GUARD_KEY].artifact(candidate)
    if tune_session.settings.stops_after_compile:
        tune_session.prepare(candidate.known_task, candidate.config)
    return tune_session.artifact(candidate.known_task, candidate.config)


@pytest.fixture
def measurement(
    candidate: Trial, artifact: Artifact | None, tune_session: Session, pytestconfig: pytest.Config
) -> Measurement | FinalRecord | SpecRecord | Verdict | None:
    """The candidate timed beside the default, its result checked; for finals and the spec, what they gave.

    In guard mode it is what became of the promise; in a run that stops after compiling it is ``None``.
    """
    from pytest_shark_tune.errors import InputError
    from pytest_shark_tune.plan import Task
    from pytest_shark_tune.trial import Role

    if candidate.guarded is not None:
        return pytestconfig.stash[GUARD_KEY].look(candidate.guarded, artifact)
    if tune_session.settings.stops_after_compile:
        return None
    if candidate.role is Role.SPEC:
        return tune_session.verify(candidate.plan)
    if candidate.role is Role.END_TO_END:
        return tune_session.end_to_end(candidate.plan, candidate.model)
    task = candidate.known_task
    if not isinstance(task, Task):
        raise InputError(
            f"{task.name} is a custom task, which only its suite can compile and run: override the fixtures artifact "
            "and measurement in its conftest.py, with tune_kernel.build and tune_kernel.compare"
        )
    if candidate.role is Role.FINAL:
        return tune_session.final(task)
    assert artifact is not None
    return tune_session.measure(task, candidate.candidate, artifact)
