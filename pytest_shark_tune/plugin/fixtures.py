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


@pytest.fixture(scope="session")
def tune_session(pytestconfig: pytest.Config) -> Session:
    """The running session: compiler, cache and devices."""
    return pytestconfig.stash[SESSION_KEY]


@pytest.fixture
def candidate(request: pytest.FixtureRequest) -> TuningCase:
    """The tuning case of this test; the plugin parametrizes it from the ``tune`` marker."""
    from pytest_shark_tune.plugin.cases import TuningCase

    case = request.param
    assert isinstance(case, TuningCase)
    if case.problem:
        pytest.fail(case.problem, pytrace=False)
    return case


@pytest.fixture
def tune_kernel(candidate: TuningCase, tune_session: Session) -> KernelStages:
    """Compiles and compares a custom task's configs, for a suite's own ``artifact`` and ``measurement``."""
    from pytest_shark_tune.plugin.kernels import KernelStages

    return KernelStages(tune_session, candidate)


@pytest.fixture
def tune_dispatch(candidate: TuningCase, tune_session: Session, pytestconfig: pytest.Config) -> DispatchStages:
    """Compiles and measures IREE's dispatches, for a suite's own ``artifact`` and ``measurement``."""
    from pytest_shark_tune.plugin.stages import DispatchStages

    guard = pytestconfig.stash[GUARD_KEY].stage if candidate.guarded is not None else None
    return DispatchStages(tune_session, candidate, guard)


@pytest.fixture
def artifact(tune_dispatch: DispatchStages) -> Artifact | None:
    """The compiled candidate; ``None`` for finals and for the spec, which compile while they measure.

    In guard mode the candidate is a spec entry's config, and it is ``None`` for a check that needs no device.
    """
    return tune_dispatch.build()


@pytest.fixture
def measurement(tune_dispatch: DispatchStages, artifact: Artifact | None) -> Result | None:
    """The candidate's time beside the default's, after a check of its result; a record for finals and for the spec.

    In guard mode it is the verdict of the check. In a run that stops after compiling it is ``None``.
    """
    return tune_dispatch.measure(artifact)


@pytest.fixture
def tuned(measurement: Result | None) -> Result | None:
    """The measurement. A test that takes this fixture alone goes through all stages."""
    return measurement
