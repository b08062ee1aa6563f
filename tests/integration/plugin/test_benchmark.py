"""pytest-benchmark's options on what is tuned, with and without workers, beside a suite's ordinary benchmarks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeSuite, Outcome, Suite, clean_environment
from tests.models import KERNEL_FIXTURES, kernel_suite_text, suite_text

# A kernel whose times are made up, so that every figure is known. A file makes all of it slower.
CONFTEST = (
    KERNEL_FIXTURES
    + """
from pathlib import Path
import numpy as np
from pytest_shark_tune import CandidateFailed, Kernel

SLOWER = float(Path(__file__).with_name("slower.txt").read_text())


def compile_kernel(knobs):
    if knobs["tile"] == 16:
        raise CandidateFailed("compile_failed", "no registers left")
    return dict(knobs)


def load_kernel(knobs, seed):
    cost = {1: 10e-3, 2: 4e-3, 4: 5e-3}[knobs["tile"]] * SLOWER
    return Kernel(run=lambda count: count * cost, result=lambda: np.zeros(8, np.float32))
"""
)
KERNEL = kernel_suite_text((1, 2, 4, 16))
ORDINARY = """
def test_sum(benchmark):
    assert benchmark.pedantic(sum, ([1, 2],), rounds=3) == 3

def test_plain():
    pass
"""
MATMUL = suite_text('ops.matmul(m=32, n=32, k=32, lhs="f32")')
# The clock is part of pytest-benchmark's machine info and never the same twice; warnings are errors here.
ANY_CLOCK = ("-W", "ignore:Benchmark machine_info is different")
COMPARE = (*ANY_CLOCK, "--benchmark-compare", "--benchmark-storage=saved")


@pytest.fixture
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"conftest.py": CONFTEST, "slower.txt": "1", "test_kernel.py": KERNEL})


def benchmarks(file: Path) -> dict[str, Any]:
    """What pytest-benchmark wrote, by the part of the test's id after the file."""
    told = json.loads(file.read_text(encoding="utf-8"))
    return {each["fullname"].partition("::")[2]: each for each in told["benchmarks"]}


def table(outcome: Outcome) -> list[str]:
    """The names in pytest-benchmark's tables, in order."""
    return re.findall(r"^(test_\S+) .*\d\.\d{4}", outcome.text, re.MULTILINE)


def options(suite: Suite, *arguments: str) -> Outcome:
    """A run without the final, for what does not need it."""
    return suite.tune("-n0", "-k", "not final", *arguments)


@pytest.mark.slow
def test_a_regression_between_runs_is_a_result(suite: Suite) -> None:
    first = suite.tune("-n0", "--benchmark-json=it.json", "--benchmark-autosave", "--benchmark-storage=saved")
    assert first.status == 0, first.text
    found = benchmarks(suite.directory / "it.json")
    records = {each["id"]: each for each in first.records}
    (winner,) = [each for each in records.values() if each["knobs"] == {"tile": 2}]
    (other,) = [each for each in records.values() if each["knobs"] == {"tile": 4}]
    medians = {name: each["stats"]["median"] for name, each in found.items()}
    # In seconds of one dispatch; what could not be compiled is no benchmark.
    assert medians == pytest.approx(
        {
            "test_kernel[kernel-default]": 10e-3,
            f"test_kernel[kernel-Fake-{winner['id']}]": 4e-3,
            f"test_kernel[kernel-Fake-{other['id']}]": 5e-3,
            "test_kernel[kernel-final]": 4e-3,
        }
    )
    told = found["test_kernel[kernel-final]"]
    assert (told["group"], told["param"]) == ("kernel", "kernel-final")
    device = first.summary["run"]["device"]
    facts = {"dispatch": "kernel", "candidate": winner["id"], "pipeline": "Fake", "knobs": {"tile": 2}}
    assert told["extra_info"].items() >= {**facts, "device": device, "target": "llvm-cpu"}.items()
    assert told["extra_info"]["ratio"] == pytest.approx(2.5)
    assert json.loads((suite.directory / "it.json").read_text())["machine_info"]["device"] == device

    suite.write("slower.txt", "1.1")
    second = suite.tune("-n2", *COMPARE, "--benchmark-compare-fail=median:5%", "--benchmark-histogram=plot")
    assert second.status == 1
    assert "Traceback" not in second.text
    second.lines.fnmatch_lines_random(
        [
            "*test_kernel?kernel-default? (0001_*) - Field 'median' has failed PercentageRegressionCheck: 10.0*",
            "--benchmark-compare-fail: performance has regressed, so this run fails",
            "*fastest with tile=2",
            "*4 passed, 1 skipped in *",
        ]
    )
    assert second.summary["run"]["complete"] is True
    assert (suite.directory / "plot-kernel.svg").read_text().count("kernel-default") >= 2


def test_without_pytest_benchmark_a_suite_is_tuned_all_the_same(suite: Suite) -> None:
    outcome = options(suite, "-p", "no:benchmark")
    outcome.lines.fnmatch_lines(["*3 passed, 1 skipped, 1 deselected*"])
    assert outcome.status == 0
    assert len(outcome.records) == 4


@pytest.mark.slow
def test_a_run_as_fast_as_the_one_before_passes(suite: Suite) -> None:
    saved = suite.tune("-n0", "--benchmark-save=base", "--benchmark-storage=saved")
    assert saved.status == 0, saved.text
    limits = ("--benchmark-compare-fail=median:5%", "--benchmark-columns=median,rounds")
    again = suite.tune("-n4", "-W", "default", *COMPARE, *limits)
    assert again.status == 0, again.text
    again.lines.fnmatch_lines(["*benchmark 'kernel': 8 tests*", "Name (time in ms) *Median *Rounds*"])
    assert len(table(again)) == 8
    assert "automatically disabled because xdist plugin is active" not in again.text, "that is for ordinary benchmarks"


@pytest.mark.slow
def test_the_table_is_shown_to_whom_asks(suite: Suite) -> None:
    suite.write("test_ordinary.py", ORDINARY)
    assert table(options(suite)) == ["test_sum"]
    by_name = suite.tune("-p", "no:xdist", "-k", "not final", "--benchmark-sort=name")
    assert "benchmark 'kernel': 3 tests" in by_name.text
    assert len(table(by_name)) == 4
    suite.write("pytest.ini", "[pytest]\naddopts = --benchmark-group-by=param:candidate\n")
    grouped = options(suite, "--ignore=test_ordinary.py")
    assert "benchmark 'candidate=kernel-default': 1 tests" in grouped.text
    assert len(table(grouped)) == 3


@pytest.mark.slow
def test_ordinary_benchmarks_are_what_they_are_without_us(suite: Suite) -> None:
    suite.write("test_ordinary.py", ORDINARY)
    plain = suite.run("-n0", "test_ordinary.py")
    assert table(plain) == ["test_sum"]
    together = options(suite, "--benchmark-json=it.json")
    assert together.status == 0, together.text
    assert benchmarks(suite.directory / "it.json")["test_sum"]["stats"]["rounds"] == 3
    assert "benchmark: 1 tests" in together.text
    workers = suite.tune("-n2", "-k", "sum or default", "-W", "default", "--benchmark-json=two.json")
    assert workers.status == 0, workers.text
    assert "automatically disabled because xdist plugin is active" in workers.text
    assert set(benchmarks(suite.directory / "two.json")) == {"test_kernel[kernel-default]"}


@pytest.mark.slow
def test_only_skip_and_disable(suite: Suite) -> None:
    suite.write("test_ordinary.py", ORDINARY)
    only = options(suite, "--benchmark-only", "-rs")
    only.lines.fnmatch_lines(["*test_ordinary.py*Skipping non-benchmark*", "*4 passed, 2 skipped, 1 deselected*"])
    skip = options(suite, "--benchmark-skip", "--benchmark-json=skip.json", "-rs")
    skip.lines.fnmatch_lines(["*test_ordinary.py*Skipping benchmark*", "*4 passed, 2 skipped, 1 deselected*"])
    assert len(benchmarks(suite.directory / "skip.json")) == 3
    off = options(suite, "--benchmark-disable", "--benchmark-json=off.json")
    off.lines.fnmatch_lines(["*5 passed, 1 skipped, 1 deselected*"])
    assert not (suite.directory / "off.json").exists()
    workers = suite.tune("-n2", "--benchmark-only")
    assert workers.status == 4
    workers.lines.fnmatch_lines(["ERROR: Can't have both --benchmark-only and --benchmark-disable options*"])


@pytest.mark.slow
def test_a_run_that_measured_nothing_has_nothing_to_report(suite: Suite) -> None:
    suite.write("test_kernel.py", KERNEL.replace("(1, 2, 4, 16)", "(1, 16)").replace('"tile": 1}', '"tile": 16}'))
    arguments = ("--benchmark-json=it.json", "--benchmark-histogram=plot", "--benchmark-autosave", "-k", "default")
    outcome = suite.tune("-n0", *arguments)
    assert outcome.status == 1
    assert "Traceback" not in outcome.text
    outcome.lines.fnmatch_lines(["*compile_failed: no registers left*", "pytest-benchmark has nothing to report*"])
    assert not (suite.directory / "it.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark-compare-fail=median:5%",), "ERROR: --benchmark-compare-fail needs --benchmark-compare*"),
        (("--benchmark-json=absent/it.json",), "ERROR: --benchmark-json: there is no directory absent*"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_at_once(suite: Suite, arguments: Sequence[str], message: str) -> None:
    outcome = suite.tune("-n0", *arguments)
    assert outcome.status == 4
    outcome.lines.fnmatch_lines([message])
    assert not outcome.out.exists()


@pytest.mark.slow
def test_results_are_written_whatever_becomes_of_pytest_benchmark(suite: Suite) -> None:
    suite.write("directory.json/inside", "")
    outcome = options(suite, "--benchmark-json=directory.json")
    assert "IsADirectoryError" in outcome.text
    assert outcome.summary["run"]["complete"] is True


@pytest.mark.slow
def test_dispatches_with_and_without_workers_and_the_compare_command(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_matmul.py": MATMUL})
    options = ("--tune-trials=2", "-k", "not final and not spec", "--benchmark-autosave", "--benchmark-save-data")
    outcomes = [
        suite.tune("-n0", *options, "--benchmark-storage=saved"),
        suite.tune("-n2", *options, *COMPARE),
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes[-1].text
    first, second = sorted((suite.directory / "saved").rglob("*.json"))
    assert set(benchmarks(first)) == set(benchmarks(second))
    found = benchmarks(second)
    for record in outcomes[-1].records:
        role = "default" if record["id"] == "default" else f"{record['pipeline']}-{record['id']}"
        it = found.pop(f"test_dispatch[{record['dispatch']}-{role}]", None)
        if record["state"] != "measured":
            assert it is None
            continue
        own = record["samples_us"] + (record["baseline_samples_us"] if record["id"] == "default" else [])
        assert [sample * 1e6 for sample in it["stats"]["data"]] == pytest.approx(own)
        assert (it["extra_info"]["knobs"], it["extra_info"]["iree"]) == (record["knobs"], record["iree"])
    assert not found
    compared = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest_benchmark",
            "--storage=saved",
            "compare",
            "--columns=median",
            "--group-by=group",
        ],
        cwd=suite.directory,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    count = len(benchmarks(first)) + len(benchmarks(second))
    assert re.search(rf"benchmark 'matmul_32x32x32_f32\w*': {count} tests", compared.stdout), compared.stdout
