"""The stages as fixtures; a client that compiles or times in its own way overrides one in its conftest.py."""

from __future__ import annotations

import pytest

from pytest_shark_tune.session import Session
from pytest_shark_tune.stages.artifact import Artifact
from pytest_shark_tune.stages.measurement import Measurement
from pytest_shark_tune.stages.record import FinalRecord, SpecRecord
from pytest_shark_tune.trial import Role, Trial

__all__ = ["SESSION_KEY", "artifact", "candidate", "measurement", "tune_session"]

SESSION_KEY = pytest.StashKey[Session]()


@pytest.fixture(scope="session")
def tune_session(pytestconfig: pytest.Config) -> Session:
    """The running session: compiler, cache and devices."""
    return pytestconfig.stash[SESSION_KEY]


@pytest.fixture
def candidate(request: pytest.FixtureRequest) -> Trial:
    """What this test tries; the plugin parametrizes it from the ``tune`` marker."""
    trial = request.param
    assert isinstance(trial, Trial)
    if trial.problem:
        pytest.fail(trial.problem, pytrace=False)
    return trial


@pytest.fixture
def artifact(candidate: Trial, tune_session: Session) -> Artifact | None:
    """The compiled candidate; ``None`` for finals and for the spec, which compile what they compare."""
    if candidate.config is None:
        return None
    return tune_session.artifact(candidate.known_task, candidate.config)


@pytest.fixture
def measurement(
    candidate: Trial, artifact: Artifact | None, tune_session: Session
) -> Measurement | FinalRecord | SpecRecord:
    """The candidate timed beside the default, its result checked; for finals and the spec, what they gave."""
    match candidate.role:
        case Role.FINAL:
            return tune_session.final(candidate.known_task)
        case Role.SPEC:
            return tune_session.verify(candidate.plan)
        case _:
            assert artifact is not None
            return tune_session.measure(candidate.known_task, candidate.candidate, artifact)
