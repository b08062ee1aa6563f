"""The parameters of marked tests in a run that does not tune: checks of committed specs, or a reason to skip.

It is there in every run that does not tune, so it imports the rest of guard mode only if there is something to guard.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.plugin.guard.reporter import SNAPSHOTS, UNGUARDED
from pytest_shark_tune.plugin.guard.unguarded import missing_file, nothing_to_guard
from pytest_shark_tune.plugin.marker import check_stages
from pytest_shark_tune.plugin.options import guard_is_given
from pytest_shark_tune.system.terminal import escaped_line

if TYPE_CHECKING:
    from pytest_shark_tune.plugin.cases import TuningCase
    from pytest_shark_tune.plugin.marker import GuardMarks

__all__ = ["golden_parameters", "guard_parameters", "has_snapshots"]

_PROBLEMS = "shark-tune-input-problems"


def guard_parameters(metafunc: pytest.Metafunc, sources: Sequence[object]) -> list[Any]:
    """Return the parameters of a test that is marked with ``sources``."""
    path, config = metafunc.definition.path, metafunc.config
    kernels = _kernels(sources)
    params = [
        _skipped(name, f"{name} is a kernel of the suite's own, so no spec has an entry to guard") for name in kernels
    ]
    if sources and len(kernels) == len(sources):
        return params
    cases: Sequence[TuningCase] = ()
    if guard_is_given(config) or (path.suffix == ".py" and has_snapshots(path.parent)):
        from pytest_shark_tune.plugin.guard.plugin import guard_cases_of

        cases = guard_cases_of(metafunc, sources)
    if cases:
        check_stages(metafunc)
    if not cases and (problem := missing_file(sources, path.parent)):
        cases = [_failing(problem, config)]
    if not cases:
        return [*params, _skipped(UNGUARDED, nothing_to_guard(path, config))]
    return params + [pytest.param(case, id=escaped_line(case.id)) for case in cases]


def golden_parameters(metafunc: pytest.Metafunc, marks: GuardMarks, *, tunes: bool) -> list[Any]:
    """Return the parameters of a test that is marked to guard models without a spec."""
    if tunes:
        return [_skipped(UNGUARDED, "it is marked tune_guard, and this run tunes")]
    from pytest_shark_tune.plugin.guard.plugin import golden_cases_of

    cases = golden_cases_of(metafunc, marks.sources, marks.golden)
    if not cases:
        return [_skipped(UNGUARDED, "there are no times to compare with: give --tune-baseline FILE, or golden=FILE")]
    return [pytest.param(case, id=escaped_line(case.id)) for case in cases]


def has_snapshots(directory: Path) -> bool:
    """Whether a directory has snapshots or forms of models, of any target and device."""
    return any(any((directory / SNAPSHOTS).glob(pattern)) for pattern in ("*.mlir", "*.form.json"))


def _kernels(sources: Sequence[object]) -> list[str]:
    """The names of the custom tasks among ``sources``: if there is one, its module is loaded."""
    custom = sys.modules.get("pytest_shark_tune.plan.custom")
    return [source.name for source in sources if isinstance(source, custom.CustomTask)] if custom is not None else []


def _failing(problem: str, config: pytest.Config) -> TuningCase:
    """The case of a test that fails since its input cannot be used."""
    from pytest_shark_tune.plan.roles import Role
    from pytest_shark_tune.plugin.cases import NO_PLAN, TuningCase

    if not config.pluginmanager.has_plugin(_PROBLEMS):
        config.pluginmanager.register(_InputProblems(), _PROBLEMS)
    return TuningCase(Role.INPUT, NO_PLAN, problem=problem)


class _InputProblems:
    """Fails tests whose input cannot be used before their fixtures ask for a session, which this run need not have."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail the test with the problem of its case."""
        from pytest_shark_tune.plugin.items import case_of

        if (case := case_of(item)) is not None and case.problem:
            pytest.fail(case.problem, pytrace=False)


def _skipped(name: str, reason: str) -> Any:
    """The parameter of a test that is skipped."""
    return pytest.param(None, id=escaped_line(name), marks=pytest.mark.skip(reason=reason))
