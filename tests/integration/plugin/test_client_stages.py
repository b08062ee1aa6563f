"""The suites that show how clients define stages: each as it is, and with a stage that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

SUITES = Path(__file__).parents[3] / "tuning_suites"
SOURCES = (".py", ".csv", ".mlir")

TWICE_AS_FAST = """

def twice_as_fast(artifact):
    from pytest_shark_tune import Measurement

    assert artifact.vmfb
    return Measurement.of_samples([2.0, 2.0, 2.0], [4.0, 4.0, 4.0])
"""


def suite_of(make_suite: MakeSuite, name: str) -> Suite:
    """A copy of one of the suites, in a directory of its own."""
    files = {path.relative_to(SUITES / name): path for path in (SUITES / name).rglob("*") if path.suffix in SOURCES}
    suite = make_suite({str(place): path.read_text(encoding="utf-8") for place, path in files.items()})
    suite.plugins = ()
    return suite


def changed(suite: Suite, name: str, old: str, new: str) -> None:
    text = (suite.directory / name).read_text(encoding="utf-8")
    assert old in text
    suite.write(name, text.replace(old, new))


def states(outcome: Outcome) -> list[str]:
    return [each["state"] for each in outcome.records]


def finals(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.out / "finals.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_profiler_times_candidates_and_finalists(make_suite: MakeSuite, workers: str) -> None:
    suite = suite_of(make_suite, "rocprof_timer")
    outcome = suite.tune("--tune-trials=1", "-k", "not spec", workers)
    assert outcome.status == 0, outcome.text
    assert states(outcome) == ["measured"] * 2
    default, candidate = sorted(outcome.records, key=lambda each: each["id"] != "default")
    # The recorded kernels: 20 a run, of which the first warms up, and each config is run twice.
    assert default["ratio"] == 1.0
    assert [len(each["samples_us"]) for each in outcome.records] == [40] * 2
    assert 1.30 < candidate["ratio_low"] < candidate["ratio"] < candidate["ratio_high"] < 1.36
    (final,) = finals(outcome)
    assert (final["winner"], final["rounds"]) == (candidate["id"], 5)


@pytest.mark.slow
def test_what_is_guarded_takes_the_suites_stages(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = suite_of(make_suite, "rocprof_timer")
    outcome = suite.tune("--tune-trials=1", "-k", "not spec")
    assert outcome.status == 0, outcome.text
    guarded = suite.run("--tune-guard=.tune/spec.mlir", "-k", "fast")
    assert guarded.status == 0, guarded.text
    traces = [suite.directory / "recorded" / f"{name}_kernel_trace.csv" for name in ("default", "candidate")]
    for path, other in zip(traces, [each.read_bytes() for each in reversed(traces)], strict=True):
        path.write_bytes(other)
    guarded = suite.run("--tune-guard=.tune/spec.mlir", "-k", "fast")
    assert guarded.status == 1, guarded.text
    guarded.lines.fnmatch_lines(["*0.75*"])
    suite.write("conftest.py", (SUITES / "compile_step" / "conftest.py").read_bytes())
    suite.cache = tmp_path / "cache"
    guarded = suite.run("--tune-guard=.tune/spec.mlir", "-k", "correct")
    assert guarded.status == 0, guarded.text
    assert len(list((suite.cache / "artifacts").rglob("*.vmfb"))) == 2
    changed(suite, "conftest.py", "canonicalize,cse", "no-such-pass")
    guarded = suite.run("--tune-guard=.tune/spec.mlir", "-k", "allowed or applies or correct", "-rs")
    assert guarded.status == 1, guarded.text
    guarded.lines.fnmatch_lines(["*no-such-pass*", "SKIPPED *see [[]*", "*1 failed*"])


@pytest.mark.slow
def test_what_a_profiler_says_of_its_failure_is_the_candidates_reason(make_suite: MakeSuite) -> None:
    suite = suite_of(make_suite, "rocprof_timer")
    changed(suite, "recorded_rocprofv3.py", 'given.o == "default" else "candidate"', "given.o == 'default' else 'lost'")
    outcome = suite.tune("--tune-trials=1", "-k", "not spec and not final")
    assert outcome.status == 0, outcome.text
    assert states(outcome) == ["measured", "run_failed"]
    assert "lost_kernel_trace.csv" in outcome.records[1]["reason"]


@pytest.mark.slow
def test_all_that_a_test_compiles_goes_through_the_step(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = suite_of(make_suite, "compile_step")
    suite.cache = tmp_path / "cache"
    outcome = suite.tune("--tune-trials=2", "-k", "not spec", "-n2")
    assert outcome.status == 0, outcome.text
    assert states(outcome) == ["measured"] * 3
    assert all(each["compile_s"] > 0 for each in outcome.records)
    # The final compares just these three, and nothing was compiled without the step.
    assert len(list((suite.cache / "artifacts").rglob("*.vmfb"))) == 3
    changed(suite, "conftest.py", "canonicalize,cse", "no-such-pass")
    outcome = suite.tune("-k", "default")
    assert outcome.status == 1
    assert states(outcome) == ["compile_failed"]
    assert "no-such-pass" in outcome.records[0]["reason"]


@pytest.mark.slow
def test_a_step_that_loses_the_config_costs_the_candidate(make_suite: MakeSuite) -> None:
    suite = suite_of(make_suite, "compile_step")
    passes = "builtin.module(hal.executable(hal.executable.variant(builtin.module(func.func(canonicalize,cse)))))"
    changed(suite, "conftest.py", passes, "builtin.module(iree-codegen-strip-compilation-info)")
    changed(suite, "conftest.py", "--pass-pipeline={PASSES}", "--iree-codegen-strip-compilation-info")
    outcome = suite.tune("--tune-trials=1", "-k", "not spec and not final")
    assert outcome.status == 0, outcome.text
    assert states(outcome) == ["measured", "not_applied"]
    assert "after the compile step" in outcome.records[1]["reason"]


@pytest.mark.slow
def test_finalists_compete_in_the_model(make_suite: MakeSuite) -> None:
    suite = suite_of(make_suite, "two_stage")
    # On a busy machine nobody might come to the final.
    changed(suite, "conftest.py", "return tune_dispatch.measure(artifact)", "return twice_as_fast(artifact)")
    conftest = (suite.directory / "conftest.py").read_text(encoding="utf-8")
    suite.write("conftest.py", conftest + TWICE_AS_FAST)
    outcome = suite.tune("--tune-trials=2", "-k", "64x48x128 and not spec")
    assert outcome.status == 0, outcome.text
    (final,) = finals(outcome)
    assert final["note"].startswith("compared in the whole of two_layers")
    assert [each["state"] for each in final["finalists"]] == ["measured"] * 2
    assert final["rounds"] == 5
    # The model's figures, not those of the dispatch alone.
    assert not {each["ratio"] for each in final["finalists"]} & {2.0}
    assert min(final["baseline_samples_us"]) > 4.0
