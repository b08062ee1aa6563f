"""The pytest plugin of every process of a tuning run: collects and runs tests. Registered only where a run tunes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress

import pytest

from pytest_shark_tune.plugin.benchmark import BenchmarkBridge, DeviceStamp
from pytest_shark_tune.plugin.collection import CaseCollector
from pytest_shark_tune.plugin.coverage import CollectionWatch
from pytest_shark_tune.plugin.fixtures import SESSION_KEY
from pytest_shark_tune.plugin.items import case_of, exempt_from_timeouts, is_ours, manifest_of
from pytest_shark_tune.plugin.marker import check_stages, marks_of
from pytest_shark_tune.plugin.preflight import refuse_strays
from pytest_shark_tune.plugin.tune.controller import TuneController, store_of
from pytest_shark_tune.plugin.tune.light_items import LightItems
from pytest_shark_tune.plugin.tune.reports import conclude
from pytest_shark_tune.plugin.tune.setup import Setup, set_up
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["TuningPlugin", "start_tuning"]


def start_tuning(config: pytest.Config) -> None:
    """Check the options, and register the plugins of this process.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    setup = set_up(config)
    store = None if hasattr(config, "workerinput") else store_of(setup)
    config.pluginmanager.register(TuningPlugin(config, setup, store), "shark-tune-session")
    config.pluginmanager.register(LightItems(), "shark-tune-items")
    config.pluginmanager.register(DeviceStamp(setup.settings.device_name))
    if store is not None:  # After the first plugin, so that at the end of the run its turn comes before.
        config.pluginmanager.register(TuneController(config, setup, store), "shark-tune-controller")
        config.pluginmanager.register(BenchmarkBridge(config), "shark-tune-benchmark")


class TuningPlugin:
    """One process's share of a tuning run; ``store`` is there if this process also controls the run."""

    def __init__(self, config: pytest.Config, setup: Setup, store: ResultStore | None) -> None:
        self._config = config
        self._setup = setup
        self._session = setup.session
        self._store = store
        self._collector = CaseCollector(setup)
        self._watch = CollectionWatch()
        config.stash[SESSION_KEY] = setup.session
        config.pluginmanager.register(self._watch, "shark-tune-watch")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """From here on, an interrupt ends the run with the results so far."""
        self._setup.interrupts.install()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a marked test with its plan's cases."""
        test = metafunc.definition
        marks = marks_of(test)
        if marks is None:
            return
        if "candidate" not in metafunc.fixturenames:
            pytest.fail(
                f"{test.name} is marked tune and takes none of the fixtures tuned, candidate, artifact and "
                "measurement, so nothing would be tuned",
                pytrace=False,
            )
        check_stages(metafunc)
        cases = self._collector.cases(marks, test.path, test.nodeid)
        self._watch.add(test.path, cases)
        metafunc.parametrize("candidate", cases, ids=[escaped_line(case.id) for case in cases], indirect=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tune nothing if an option is about a model that was not collected."""
        refuse_strays(self._config, self._session, items)
        if self._config.pluginmanager.has_plugin("timeout"):
            exempt_from_timeouts(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Give the controller the test manifest; all workers write the same one."""
        if self._store is None:
            with suppress(OSError):  # The controller misses it, and says so once for all workers.
                self._setup.session.run.write_manifest(
                    lambda: manifest_of(session.items, self._watch.collected_in(session))
                )
            return
        self._store.add_collected(self._watch.collected_in(session))
        cases = filter(None, map(case_of, session.items))
        for key, suite in dict.fromkeys((case.plan_key, case.suite) for case in cases if case.plan_key):
            self._store.add_plan(key, suite)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave candidates out of a bundle that only their suite can compile or measure."""
        if self._setup.stops_after_compile and case_of(item) and not is_ours(item):
            pytest.skip("its suite has an artifact or measurement of its own, which no bundle can hold")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Skip the test's own lines if there is no measurement for them."""
        return True if self._setup.stops_after_compile and case_of(pyfuncitem) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a candidate's failure data, and send the result of the test along with its report."""
        report = yield
        case = case_of(item)
        if case is not None and case.plan_key:
            conclude(self._setup, item, case, call, report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """End the child processes."""
        self._setup.interrupts.wind_down()
        self._session.close()
        return (yield)

    def pytest_keyboard_interrupt(self) -> None:
        """From here on, the run is ending."""
        self._setup.interrupts.wind_down()

    def pytest_unconfigure(self) -> None:
        """Remove the temporary files of this run, and cut the cache to its size."""
        self._session.close()
        cleanup.clear()
        if self._store is not None:
            Cache(self._setup.options.cache).evict(self._setup.options.cache_bytes)
        self._setup.interrupts.restore()
