"""The stages as fixtures. A suite that compiles or times in its own way overrides one of them in its conftest.py.

They are registered in every run, so they import the rest of the package only when a test asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_shark_tune.compiler.artifact import Artifact
    from pytest_shark_tune.plugin.cases import TuningCase
    from pytest_shark_tune.plugin.guard.evaluation import CaseEvaluator
    from pytest_shark_tune.plugin.kernels import KernelStages
    from pytest_shark_tune.plugin.stages import DispatchStages, Result
    from pytest_shark_tune.tuning.session import Session

__all__ = [
    "GUARD_KEY",
    "SESSION_KEY",
    "artifact",
    "candidate",
    "measurement",
    "tune_dispatch",
    "tune_kernel",
    "tune_session",
    "tuned",
]

SESSION_KEY: pytest.StashKey[Session] = pytest.StashKey()
GUARD_KEY: pytest.StashKey[CaseEvaluator] = pytest.StashKey()
"""The session and, in guard mode, the evaluator of this process, in the stash of pytest's config."""
_NOT_MARKED = "this fixture of pytest-shark-tune is for tests that are marked with pytest.mark.tune"
_NO_SESSION = (
    "this test takes a fixture of pytest-shark-tune, and the run neither tunes nor guards: mark the test with "
    "pytest.mark.tune, or run it with --tune"
)


@pytest.fixture(scope="session")
def tune_session(pytestconfig: pytest.Config) -> Session:
    """The session of a run that tunes or guards: its compiler, cache and devices."""
    session = pytestconfig.stash.get(SESSION_KEY, None)
    if session is None:
        pytest.fail(_NO_SESSION, pytrace=False)
    return session


@pytest.fixture
def candidate(request: pytest.FixtureRequest) -> TuningCase:
    """The candidate of a test that is marked ``tune``: its dispatch, its config and its knobs."""
    from pytest_shark_tune.plugin.cases import TuningCase

    case = getattr(request, "param", None)
    if not isinstance(case, TuningCase):
        pytest.fail(_NOT_MARKED, pytrace=False)
    if case.problem:
        pytest.fail(case.problem, pytrace=False)
    return case


@pytest.fixture
def tune_kernel(candidate: TuningCase, tune_session: Session) -> KernelStages:
    """The stages of a `CustomTask`, for a suite that overrides ``artifact`` or ``measurement``."""
    from pytest_shark_tune.plugin.kernels import KernelStages

    return KernelStages(tune_session, candidate)


@pytest.fixture
def tune_dispatch(candidate: TuningCase, tune_session: Session, pytestconfig: pytest.Config) -> DispatchStages:
    """The stages of IREE's dispatches, for a suite that overrides ``artifact`` or ``measurement``."""
    from pytest_shark_tune.plugin.stages import DispatchStages

    guard = pytestconfig.stash[GUARD_KEY].stage if candidate.guarded is not None else None
    return DispatchStages(tune_session, candidate, guard)


@pytest.fixture
def artifact(tune_dispatch: DispatchStages) -> Artifact | None:
    """The compiled candidate, or ``None`` for finals and for the spec.

    Those compile while they measure. In guard mode the candidate is a spec entry's config, and it is ``None`` for a
    check that needs no device.
    """
    return tune_dispatch.build()


@pytest.fixture
def measurement(tune_dispatch: DispatchStages, artifact: Artifact | None) -> Result | None:
    """The candidate's time beside the default's, after a check of its results.

    It is a record for finals and for the spec. In guard mode it is the verdict of the check. In a run that stops after
    compiling it is ``None``.
    """
    return tune_dispatch.measure(artifact)


@pytest.fixture
def tuned(measurement: Result | None) -> Result | None:
    """The candidate after all stages: the value of ``measurement``."""
    return measurement
