"""Kernels of a client's own: with figures made up by the suite, so that every outcome is known, and with a real one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models import KERNEL_FIXTURES, kernel_suite_text

SUITE = Path(__file__).parents[3] / "tuning_suites" / "custom_kernel"

CONFTEST = (
    KERNEL_FIXTURES
    + """
import numpy as np
from pytest_shark_tune import CandidateFailed, Kernel

COMPILED = []


def compile_kernel(knobs):
    if knobs["tile"] == 16:
        raise CandidateFailed("compile_failed", "no registers left")
    if knobs["tile"] == 32:
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import sys; sys.exit('no such flag')"], check=True, capture_output=True)
    COMPILED.append(tuple(knobs.items()))
    assert len(set(COMPILED)) == len(COMPILED), "compiled twice"
    return dict(knobs)


def load_kernel(knobs, seed):
    if knobs["tile"] == 64:
        raise CandidateFailed("run_failed", "launch failed")
    result = np.random.default_rng(seed).standard_normal(8, dtype=np.float32)
    if knobs["tile"] == 128 or (knobs["tile"] == 4 and seed > 1):
        result = result + 1
    cost = {1: 10.0, 2: 4.0, 4: 1.0, 8: 2.0, 256: np.nan, 512: np.inf}.get(knobs["tile"], 5.0) * 1e-3
    return Kernel(run=lambda count: count * cost, result=lambda: result)
"""
)
TEST = kernel_suite_text((1, 2, 4, 8, 16, 32, 64, 128))
OPTIONS = ("--tune", "--tune-cache=cache", "-p", "no:cacheprovider", "-v")


def records(pytester: pytest.Pytester) -> dict[int, Any]:
    lines = (pytester.path / ".tune" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert {each["dispatch"] for each in found} == {"kernel"}
    return {each["knobs"]["tile"]: each for each in found}


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_kernel_is_tuned_by_its_suites_own_stages(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=TEST)
    result = pytester.runpytest_subprocess(*OPTIONS, workers)
    assert result.ret == 0
    result.assert_outcomes(passed=5, skipped=4)
    result.stdout.fnmatch_lines_random(["*kernel-default*", "*kernel-Fake-*", "*kernel-final*", "*fastest with tile=8"])
    result.stdout.no_fnmatch_line("*no spec was written*")
    found = records(pytester)
    assert {tile: each["state"] for tile, each in found.items()} == {
        1: "measured",
        2: "measured",
        4: "measured",
        8: "measured",
        16: "compile_failed",
        32: "compile_failed",
        64: "run_failed",
        128: "wrong_result",
    }
    assert found[16]["reason"] == "no registers left"
    assert "no such flag" in found[32]["reason"]
    check = found[128]["check"]
    assert (check["seed"], check["first_bad"], check["wrong"], check["max_abs_error"]) == (0, [0], 8, 1.0)
    assert check["magnitude"] > 0
    assert {found[tile]["check"] for tile in found if tile != 128} == {None}
    assert found[2]["ratio"] == pytest.approx(2.5)
    assert found[1]["id"] == "default"
    assert found[2]["pipeline"] == "Fake"
    summary = json.loads((pytester.path / ".tune" / "summary.json").read_text(encoding="utf-8"))
    (row,) = summary["dispatches"]
    # The fastest in the first measurement computed something else on the final's inputs.
    assert (row["winner"], row["knobs"], row["is_custom"]) == (found[8]["id"], {"tile": 8}, True)
    assert (row["space"], row["generated"], row["finalists"]) == (8, 7, 3)
    assert row["speedup"] == pytest.approx(5.0)
    assert not (pytester.path / ".tune" / "spec.mlir").exists()
    assert not (pytester.path / "__specs__").exists()


@pytest.mark.slow
def test_conditions_narrow_a_kernels_space_too(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=TEST)
    result = pytester.runpytest_subprocess(*OPTIONS, "--tune-restrict", "tile in (2, 8)", "-q")
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    assert set(records(pytester)) == {1, 2, 8}
    result = pytester.runpytest_subprocess(*OPTIONS, "--tune-restrict", "tile > 128")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*nothing to tune in kernel: kernel: --tune-restrict: tile > 128 leaves no config of Fake*"]
    )


@pytest.mark.slow
def test_a_default_that_fails_fails_the_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=TEST.replace('default={"tile": 1}', 'default={"tile": 16}'))
    result = pytester.runpytest_subprocess(*OPTIONS, "--tune-restrict", "tile < 4")
    assert result.ret == 1
    # The first candidate is chosen before the default has ended.
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    result.stdout.fnmatch_lines(["*compile_failed: no registers left*", "kernel *its default failed"])
    assert "the default config to compare with failed" in records(pytester)[1]["reason"]


@pytest.mark.slow
def test_a_kernel_whose_finalists_all_fail_has_no_winner(pytester: pytest.Pytester) -> None:
    fails = 'if knobs["tile"] == 64 or (seed > 1 and knobs["tile"] != 1):'
    pytester.makeconftest(CONFTEST.replace('if knobs["tile"] == 64:', fails))
    pytester.makepyfile(test_suite=kernel_suite_text((1, 2, 3, 4, 5, 6, 7, 8)))
    done = pytester.runpytest(*OPTIONS)
    assert done.ret == pytest.ExitCode.OK
    (final,) = (pytester.path / ".tune" / "finals.jsonl").read_text(encoding="utf-8").splitlines()
    held = json.loads(final)
    assert (held["winner"], held["reason"]) == (None, "its finalists failed: launch failed")
    assert len(held["finalists"]) == 4


@pytest.mark.slow
def test_a_suite_without_stages_is_told_what_to_override(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=TEST)
    result = pytester.runpytest_subprocess(*OPTIONS, "--tune-trials=1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*kernel is a custom task*override the fixtures artifact and measurement*"])


NONSENSE = {
    "CustomTask(name='a b', space=SPACE, default={'tile': 1})": "*CustomTask(name='a b'): a name has letters*",
    "CustomTask(name='a', space=SPACE, default={})": "*the default of a needs a value for each of tile*",
    "CustomTask(name='a', space=3, default={})": "*the space of a must be a SearchSpace, not 3*",
    "*[CustomTask(name='a', space=SPACE, default={'tile': 1})] * 2": "*a is the name of two custom tasks*",
}


@pytest.mark.slow
def test_a_task_that_makes_no_sense_is_told(pytester: pytest.Pytester) -> None:
    start, end = TEST.index("CustomTask(name"), TEST.index(")\ndef")
    pytester.makepyfile(**{f"test_{number}": TEST[:start] + task + TEST[end:] for number, task in enumerate(NONSENSE)})
    result = pytester.runpytest_subprocess(*OPTIONS, "-n0", "--continue-on-collection-errors")
    assert result.ret == 1
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines_random(list(NONSENSE.values()))


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: cc is not on PATH")
@pytest.mark.parametrize("part", ["not final", pytest.param("kernel", marks=pytest.mark.slow)])
def test_the_suite_of_this_checkout_runs(pytester: pytest.Pytester, part: str) -> None:
    for path in SUITE.iterdir():
        if path.suffix in (".py", ".c"):
            shutil.copy(path, pytester.path / path.name)
    result = pytester.runpytest_subprocess(*OPTIONS, "--tune-trials=2", "-k", part)
    assert result.ret == 0
    result.assert_outcomes(passed=3 if part == "not final" else 4)
    result.stdout.fnmatch_lines(["*matmul_256-default*", "*matmul_256-Blocked-*"])
    lines = (pytester.path / ".tune" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["measured"] * 3
    assert all(json.loads(line)["compile_s"] > 0 for line in lines)


def test_a_time_that_is_none_is_refused_by_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=kernel_suite_text((1, 256, 512)))
    result = pytester.runpytest_subprocess(*OPTIONS, "-n0", "-k", "not final")
    assert result.ret == 0
    found = records(pytester)
    for tile, time in ((256, "nan"), (512, "inf")):
        assert found[tile]["state"] == "run_failed"
        assert found[tile]["id"] in found[tile]["reason"]
        assert f"returned {time}, which is no time in seconds" in found[tile]["reason"].replace("np.float64", "")


OWN = """
import pytest
from pytest_shark_tune import Measurement

@pytest.fixture
def artifact(candidate):
    return None

@pytest.fixture
def measurement(candidate, artifact):
    one = {"samples_us": (1.0,), "baseline_samples_us": (1.0,), "batch": 1, "blocks": 1, "noise": 0.0}
    ratio = 1.0 if candidate.config.id == "default" else float("nan")
    return Measurement(ratio=ratio, ratio_low=0.9, ratio_high=1.1, **one)
"""


@pytest.mark.slow
def test_a_measurement_of_a_suites_own_that_is_none_is_refused_by_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OWN)
    pytester.makepyfile(test_suite=kernel_suite_text((1, 2)))
    result = pytester.runpytest_subprocess(*OPTIONS, "-n0", "-k", "not final")
    assert result.ret == 0
    found = records(pytester)
    assert (found[1]["state"], found[2]["state"]) == ("measured", "run_failed")
    assert f"kernel-Fake-{found[2]['id']}] has the ratio nan, which is no positive number" in found[2]["reason"]
