"""Guard mode as a pytest plugin: registered once a marked test is collected that has something to guard."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from pytest_shark_tune.errors import UndecidedWarning
from pytest_shark_tune.guard.speed import RUN_ALPHA
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.plugin.fixtures import GUARD_KEY, SESSION_KEY
from pytest_shark_tune.plugin.guard.collection import GuardCollector, drop_strangers
from pytest_shark_tune.plugin.guard.evaluation import CaseEvaluator
from pytest_shark_tune.plugin.guard.reports import VERDICT, attach_failure, conclude
from pytest_shark_tune.plugin.guard.setup import GuardSetup, set_up_guard
from pytest_shark_tune.plugin.items import case_of
from pytest_shark_tune.plugin.preflight import refuse_strays
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.terminal import escaped

__all__ = ["GuardingPlugin", "golden_cases_of", "guard_cases_of"]

_NAME = "shark-tune-guard"


def guard_cases_of(metafunc: pytest.Metafunc, sources: Sequence[object]) -> list[TuningCase]:
    """Return the cases of a marked test; none if there is no spec to guard for it.

    The first test that has something to guard starts the plugin.
    """
    return _plugin_of(metafunc).cases(sources, metafunc.definition.path)


def golden_cases_of(metafunc: pytest.Metafunc, sources: Sequence[object], golden: str) -> list[TuningCase]:
    """Return the cases of a test that is marked to guard models without a spec; see `GuardCollector.golden_cases`."""
    return _plugin_of(metafunc).golden_cases(sources, metafunc.definition.path, golden)


def _plugin_of(metafunc: pytest.Metafunc) -> GuardingPlugin:
    """The plugin of this process, which is started if there is none."""
    config, problem = metafunc.config, ""
    plugin = config.pluginmanager.get_plugin(_NAME)
    if plugin is None:
        try:
            plugin = GuardingPlugin(config, set_up_guard(config))
        except pytest.UsageError as error:  # Reported only here: a run without anything to guard must not mind.
            problem = str(error)
    if problem:
        pytest.fail(problem, pytrace=False)
    assert isinstance(plugin, GuardingPlugin)
    return plugin


class GuardingPlugin:
    """One test process's share of a guard run."""

    def __init__(self, config: pytest.Config, setup: GuardSetup) -> None:
        self._config = config
        self._setup = setup
        self._collector = GuardCollector(setup)
        self._evaluator = CaseEvaluator(setup.session, self._collector.plans)
        config.stash[SESSION_KEY] = setup.session
        config.stash[GUARD_KEY] = self._evaluator
        setup.interrupts.install()
        config.pluginmanager.register(self, _NAME)

    def cases(self, sources: Sequence[object], path: Path) -> list[TuningCase]:
        """Return the cases of a test in the file ``path`` that is marked with ``sources``."""
        return self._collector.cases(sources, path)

    def golden_cases(self, sources: Sequence[object], path: Path, golden: str) -> list[TuningCase]:
        """Return the cases of a test in the file ``path`` that guards ``sources`` without a spec."""
        return self._collector.golden_cases(sources, path, golden)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Leave entries to the tests that they are for, and divide the false alarms, before any test is deselected."""
        refuse_strays(self._config, self._setup.session, items)
        drop_strangers(items, session, self._setup.guard.spec)
        guarded = [case.guarded for item in items if (case := case_of(item)) and case.guarded]
        self._evaluator.alpha = RUN_ALPHA / max(
            1, sum(check.check is EntryCheck.FAST or check.check.needs_no_spec for check in guarded)
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Fail the test if its check failed, before its own lines have a say."""
        case = case_of(pyfuncitem)
        if case is not None and case.guarded is not None:
            verdict = self._evaluator.verdict(case.guarded, pyfuncitem.funcargs)
            pyfuncitem.stash[VERDICT] = verdict
            self._raise_for_verdict(verdict)
        return (yield)

    def _raise_for_verdict(self, verdict: Verdict) -> None:
        match verdict.outcome:
            case CheckOutcome.FAILED:
                pytest.fail(verdict.reason, pytrace=False)
            case CheckOutcome.SKIPPED:
                pytest.skip(verdict.reason)
            case CheckOutcome.UNDECIDED if self._setup.guard.strict:
                pytest.fail(f"{verdict.reason}\n(--tune-strict)", pytrace=False)
            case CheckOutcome.UNDECIDED:
                warned = UndecidedWarning(escaped(verdict.reason))
                try:
                    warnings.warn(warned, stacklevel=2)
                except UndecidedWarning:
                    pytest.fail(f"UndecidedWarning: {verdict.reason}\n(warnings are errors here)", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a candidate's failure a verdict, and send the result of the test along with its report."""
        report = yield
        case = case_of(item)
        if case is not None:
            if case.guarded is not None and call.when != "teardown":
                conclude(self._setup, item, case.guarded, call, report)
            attach_failure(item, report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """End the child processes."""
        self._setup.interrupts.wind_down()
        self._setup.session.close()
        if status := self._setup.interrupts.status:
            session.exitstatus = status
        return (yield)

    def pytest_keyboard_interrupt(self) -> None:
        """From here on, the run is ending."""
        self._setup.interrupts.wind_down()

    def pytest_unconfigure(self) -> None:
        """Remove the temporary files of this run."""
        self._setup.session.close()
        cleanup.clear()
        self._setup.interrupts.restore()
