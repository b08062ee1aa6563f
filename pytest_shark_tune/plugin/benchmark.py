"""Hands measurements to pytest-benchmark, if the user asks it for a report.

pytest-benchmark disables itself under xdist, because its own timing is not reliable there. Ours comes from leased
devices. So the process that controls the run hands it over, with and without xdist, just before pytest-benchmark's
session finishes: it then saves, compares and shows the benchmarks. docs/benchmark.md is the documentation for users.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.tune.reports import result_of
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["Benchmark", "BenchmarkBridge", "DeviceStamp", "benchmarks_of"]

# Options of pytest-benchmark that ask for a report. The values of these are false by default ...
_ASKING = ("json", "save", "autosave", "compare", "compare_fail", "histogram", "columns", "time_unit")
# ... and these are looked for by name, since a user may give the default value.
_ASKING_BY_NAME = ("--benchmark-sort", "--benchmark-group-by", "--benchmark-name")


@dataclass(frozen=True)
class Benchmark:
    """The samples of one test.

    All fields but ``samples_s`` have the names that pytest-benchmark reads from a ``benchmark`` fixture.
    """

    name: str
    fullname: str
    """The id of the test."""
    group: str
    param: str
    """The part of the test's id in the brackets."""
    samples_s: tuple[float, ...]
    """Seconds per dispatch."""
    extra_info: Mapping[str, object]
    cprofile_stats: None = None
    has_error: bool = False

    @property
    def params(self) -> dict[str, str]:
        """The parameters by their names, for ``--benchmark-group-by=param:candidate``."""
        return {"candidate": self.param}


def benchmarks_of(results: Mapping[str, TestResult]) -> list[Benchmark]:
    """Return a benchmark for every test that measured something, in the order of ``results``.

    The benchmark of the default has both halves of its comparison with itself. The benchmark of a final has the
    samples of the winner, or of the default if nothing won. Candidates that failed have no benchmark.

    Args:
        results: the results of tests by their ids.
    """
    records = {(record.dispatch, record.id): record for found in results.values() if (record := found.record)}
    benchmarks = (_benchmark_of(test, result, records) for test, result in results.items())
    return [benchmark for benchmark in benchmarks if benchmark is not None and benchmark.samples_s]


def _benchmark_of(test: str, result: TestResult, records: Mapping[tuple[str, str], Record]) -> Benchmark | None:
    record, final = result.record, result.final
    if final is not None:
        subject = records.get((final.dispatch, final.winner or DEFAULT_ID))
        return _benchmark(test, final, _final_samples(final, subject), _final_facts(final, subject))
    if record is None or record.state is not State.MEASURED:
        return None
    return _benchmark(test, record, _own_samples(record), {**_choice(record.id, record), **_ratios(record)})


def _benchmark(
    test: str, found: Record | FinalRecord, samples_us: tuple[float, ...], facts: Mapping[str, object]
) -> Benchmark:
    place, bracket, inside = test.partition("::")[2].partition("[")
    where = {"device": found.device, "target": found.target, "iree": found.iree}
    return Benchmark(
        name=place.rpartition("::")[2] + bracket + inside,
        fullname=test,
        group=escaped_line(found.dispatch),
        param=inside.removesuffix("]"),
        samples_s=tuple(sample / 1e6 for sample in samples_us),
        extra_info={"dispatch": found.dispatch, **facts, **where},
    )


def _own_samples(record: Record) -> tuple[float, ...]:
    """The samples of a record's own candidate; all samples if it is the default, which was compared with itself."""
    return record.samples_us + record.baseline_samples_us if record.id == DEFAULT_ID else record.samples_us


def _final_samples(final: FinalRecord, default: Record | None) -> tuple[float, ...]:
    if final.winner is not None:
        return final.finalist(final.winner).samples_us
    if final.baseline_samples_us or default is None:
        return final.baseline_samples_us
    return _own_samples(default)  # No candidate reached the final.


def _final_facts(final: FinalRecord, subject: Record | None) -> dict[str, object]:
    won = final.finalist(final.winner) if final.winner is not None else None
    return {**_choice(final.winner or DEFAULT_ID, subject), **_ratios(won)}


def _ratios(found: Record | Finalist | None) -> dict[str, object]:
    return {name: found and getattr(found, name) for name in ("ratio", "ratio_low", "ratio_high")}


def _choice(identifier: str, record: Record | None) -> dict[str, object]:
    """The chosen candidate. A winner has no record in the run if its test was lost with a worker."""
    if record is None:
        return {"candidate": identifier}
    return {"candidate": identifier, "pipeline": record.pipeline, "knobs": record.knobs}


class DeviceStamp:
    """Adds the device to pytest-benchmark's machine info, also in workers, which compare it with a saved one."""

    def __init__(self, device: str) -> None:
        self._device = device

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add the model of the device."""
        machine_info["device"] = escaped_line(self._device)


class BenchmarkBridge:
    """Collects the results of tests and hands them to pytest-benchmark's session, if there is one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._results: dict[str, TestResult] = {}
        self._session: pytest.Session | None = None
        self._has_nothing = False

    @property
    def _benchmarks(self) -> Any:
        """pytest-benchmark's session, or ``None`` if that plugin is blocked."""
        return getattr(self._config, "_benchmarksession", None)

    def _is_asked(self) -> bool:
        """Whether the user asks pytest-benchmark for a report, besides ours on the terminal."""
        option = self._config.getoption
        if option("benchmark_disable") and not option("benchmark_enable"):
            return False
        if any(option(f"benchmark_{name}", None) for name in _ASKING):
            return True
        given = [
            *self._config.invocation_params.args,
            *self._config.getini("addopts"),
            *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        ]
        return any(str(argument).partition("=")[0] in _ASKING_BY_NAME for argument in given)

    def pytest_sessionstart(self) -> None:
        """Refuse options that pytest-benchmark would fail on only at the end of the run.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        if self._benchmarks is None or not self._is_asked():
            return
        if self._benchmarks.compare_fail and not self._benchmarks.compare:
            raise pytest.UsageError("--benchmark-compare-fail needs --benchmark-compare, the run to compare with")
        if self._benchmarks.json and not (directory := Path(self._benchmarks.json).parent).is_dir():
            raise pytest.UsageError(f"--benchmark-json: there is no directory {directory}: make it first")

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, object, object]:
        """Have ``--benchmark-only`` keep our tests: it knows benchmarks by the name of a fixture."""
        if self._benchmarks is None or not self._benchmarks.only:
            return (yield)
        ours = [item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("tune")]
        names = [item.fixturenames for item in ours]
        for item in ours:
            item.fixturenames = [*item.fixturenames, "benchmark"]
        try:
            return (yield)
        finally:
            for item, real in zip(ours, names, strict=True):
                item.fixturenames = real

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store the result of a test; of a test that ran twice, the last one."""
        result = result_of(report)
        if result is not None:
            self._results[report.nodeid] = result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Hand the measurements over before pytest-benchmark finishes, in a wrapper of its own."""
        self._session = session
        if self._benchmarks is not None and self._is_asked():
            self._hand_over()
        return (yield)

    def _hand_over(self) -> None:
        from pytest_benchmark.stats import Metadata

        for benchmark in benchmarks_of(self._results):
            metadata = Metadata(benchmark, iterations=1, options={})
            for seconds in benchmark.samples_s:
                metadata.update(seconds)
            self._benchmarks.benchmarks.append(metadata)
        if self._results and not self._benchmarks.benchmarks:
            self._has_nothing = True
            self._benchmarks.disabled = True  # Otherwise it warns, and some runs turn warnings into errors.

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        """Make a regression a failed run that ends normally: pytest-benchmark shows the regression and then raises."""
        if self._benchmarks is None:
            return (yield)
        from pytest_benchmark.session import PerformanceRegression

        try:
            result = yield
        except PerformanceRegression:
            assert self._session is not None
            if self._session.exitstatus == pytest.ExitCode.OK:
                self._session.exitstatus = pytest.ExitCode.TESTS_FAILED
            reporting.write_line(
                terminalreporter, "--benchmark-compare-fail: performance has regressed, so this run fails"
            )
            return None
        if self._has_nothing:
            reporting.write_line(terminalreporter, "pytest-benchmark has nothing to report: no candidate was measured")
        return result
