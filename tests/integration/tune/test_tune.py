"""A suite tuned from end to end, without xdist and with it: what runs, in which order, and what comes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import read_configs
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.spec.read import read_spec
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

SLOW, FAST = "matmul_53x59x61_f32", "matmul_32x32x32_f32"
# IREE's default for prime sizes is many times slower than nearly any other config: there is always a winner.
SUITE = """
import pytest
from pytest_shark_tune import ops

def test_before():
    pass

@pytest.mark.tune(ops.matmul(m=53, n=59, k=61), ops.matmul(m=32, n=32, k=32))
def test_dispatch(candidate, artifact, measurement):
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_between(number, tmp_path):
    assert tmp_path.exists()

def test_failing():
    assert 1 == 2, "an ordinary failure"
"""
ARGUMENTS = ("--tune-trials", "2", "-k", f"not {FAST}-final")
"""The default of ``SLOW`` is so slow that one candidate in two is faster whatever the machine does. The final of
``FAST``, where there is little to decide, would take as many rounds as it may: without it, what its screening finds
faster stays provisional."""
COUNTS = ("generated", "compiled", "applied", "ran", "correct", "measured", "finalists")


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"test_suite.py": SUITE})


@pytest.fixture(scope="module")
def alone(suite: Suite) -> Outcome:
    """A run without xdist, over the remains of an older one."""
    suite.write(".tune/records.jsonl", '{"old": 1}\n')
    suite.write(".tune/spec.mlir", "// old\n")
    return suite.tune("-v", *ARGUMENTS)


@pytest.fixture(scope="module")
def shared(make_suite: MakeSuite) -> Outcome:
    """The same suite with two workers, in another directory."""
    return make_suite({"test_suite.py": SUITE}).tune("-v", "-n2", *ARGUMENTS)


@pytest.fixture(params=thinned(["n2", "n0"], every=2))
def outcome(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("alone" if request.param == "n0" else "shared")


def test_only_the_ordinary_failure_fails(outcome: Outcome) -> None:
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["*1 failed, *passed*"])
    outcome.lines.fnmatch_lines(["FAILED test_suite.py::test_failing*"])


def test_a_line_for_each_candidate_tried_and_the_default(outcome: Outcome) -> None:
    tried = [(each["dispatch"], each["id"]) for each in outcome.records]
    assert len(tried) == len(set(tried)) == 6
    assert {(SLOW, "default"), (FAST, "default")} <= set(tried)


def test_records_have_the_fields_of_the_design(outcome: Outcome) -> None:
    for record in outcome.records:
        assert record.keys() >= {
            *("schema", "id", "dispatch", "pipeline", "knobs", "config", "state", "reason", "compile_s"),
            *("samples_us", "baseline_samples_us", "ratio", "device", "target", "iree"),
        }
        assert record["schema"] == 1
        assert record["target"] == "llvm-cpu"
        assert record["config"].startswith("#iree_cpu.lowering_config<")
        assert bool(record["knobs"]) == (record["id"] != "default")
        if record["state"] == "measured":
            assert min(record["samples_us"]) > 0
            assert min(record["baseline_samples_us"]) > 0
            assert record["compile_s"] > 0
            assert record["reason"] == ""
            assert record["batch"] >= 1
            assert record["repeated"] <= 2
            assert bool(record["note"]) or not record["repeated"]
        else:
            assert record["samples_us"] == []
            assert record["ratio"] is None
            assert record["reason"]


def test_the_summary_tells_the_run(outcome: Outcome) -> None:
    run = outcome.summary["run"]
    assert run["versions"].keys() == {"pytest-shark-tune", "iree-base-compiler", "iree-base-runtime"}
    assert run["target"] == "llvm-cpu"
    assert run["device"] == outcome.records[0]["device"]
    assert run["seconds"] > 0
    assert run["complete"] is True


def test_the_summary_tells_each_dispatch(outcome: Outcome) -> None:
    assert [row["name"] for row in outcome.summary["dispatches"]] == [SLOW, FAST]
    for row in outcome.summary["dispatches"]:
        assert row["weight"] == 1
        assert row["baseline_us"] > 0
        counts = [row[name] for name in COUNTS]
        assert counts == sorted(counts, reverse=True), dict(zip(COUNTS, counts, strict=True))
        assert row["generated"] > row["tried"] == 2
        if row["winner"] is None:
            assert row["reason"]
            assert row["best_us"] is row["speedup"] is row["speedup_low"] is row["speedup_high"] is None
        else:
            assert row["reason"].partition(":")[0] == ("provisional" if row["name"] == FAST else "")
            assert 1 < row["speedup_low"] < row["speedup"] < row["speedup_high"]


def test_the_winner_is_on_record_and_in_the_spec(outcome: Outcome) -> None:
    row = outcome.dispatch(SLOW)
    (record,) = [each for each in outcome.records if each["id"] == row["winner"]]
    assert record["ratio"] > 1
    rows = {each.matcher: each for each in read_spec((outcome.out / "spec.mlir").read_text())}
    assert record["config"] in rows[f"match_{SLOW}"].compilation_info
    assert rows[f"match_{SLOW}"].provenance["candidate"] == row["winner"]


def test_the_spec_holds_one_entry_a_winner(outcome: Outcome) -> None:
    winners = [row["name"] for row in outcome.summary["dispatches"] if row["winner"]]
    assert [each.matcher for each in read_spec((outcome.out / "spec.mlir").read_text())] == [
        f"match_{name}" for name in sorted(winners)
    ]


def test_a_plain_compile_with_the_spec_takes_the_winner(outcome: Outcome) -> None:
    from pytest_shark_tune import ops

    (record,) = [each for each in outcome.records if each["id"] == outcome.dispatch(SLOW)["winner"]]
    source = ops.matmul(m=53, n=59, k=61).text
    target = Target.parse("llvm-cpu")
    plain = Compiler(target).lower(source, to="executable-configurations")
    tuned = Compiler(target, [f"--iree-codegen-tuning-spec-path={outcome.out / 'spec.mlir'}"]).lower(
        source, to="executable-configurations"
    )
    assert record["config"] in {each.config for each in read_configs(tuned)}
    assert record["config"] not in {each.config for each in read_configs(plain)}


def test_the_snapshot_beside_the_suite_is_what_is_settled_of_the_spec_with_its_records(outcome: Outcome) -> None:
    (spec,) = (outcome.out.parent / "__specs__").glob("llvm-cpu-*.mlir")
    whole = read_spec((outcome.out / "spec.mlir").read_text())
    assert read_spec(spec.read_text()) == tuple(each for each in whole if each.matcher == f"match_{SLOW}")
    winners = [json.loads(line) for line in spec.with_suffix(".jsonl").read_text().splitlines()]
    assert {each["dispatch"]: each["id"] for each in winners} == {SLOW: outcome.dispatch(SLOW)["winner"]}
    assert all(each["root"]["kind"] == "contraction" and each["compilation_info"] for each in winners)


def test_a_final_is_quick_here(outcome: Outcome) -> None:
    (final,) = (json.loads(line) for line in (outcome.out / "finals.jsonl").read_text().splitlines())
    assert final["rounds"] in (3, 4), "plugins/quick_rounds.py has an effect"


def test_finals_and_the_spec_run_last(outcome: Outcome) -> None:
    order = [name.partition("[")[2].rstrip("]") for name in outcome.verdicts if "test_dispatch" in name]
    assert len(order) == 8
    assert order[-2:] == [f"{SLOW}-final", "spec"]


def test_the_terminal_shows_what_came_out(outcome: Outcome) -> None:
    outcome.lines.fnmatch_lines(
        [
            "*shark-tune*",
            "llvm-cpu on *",
            "dispatch *default *best *speedup",
            f"{SLOW} *x (* to *)",
            f"spec: {outcome.out / 'spec.mlir'}",
            f"snapshot: {outcome.out.parent / '__specs__'}*.mlir",
            f"* dispatch* faster, {SLOW} by the most: *x.",
            f"{SLOW} as a whole: *x (* to *)*",
            f"{SLOW}: {outcome.dispatch(SLOW)['winner']} *default*",
            "to keep it:",
            "    git add __specs__",
            "to guard it:",
            "    pytest *",
        ]
    )


def test_each_stage_is_told_as_it_begins(outcome: Outcome) -> None:
    stages = ("search * of *", "finals*", "whole models*", "write*: writing the results")
    outcome.lines.fnmatch_lines([f"shark-tune: {stage}" for stage in stages])
    told = [line for line in outcome.text.splitlines() if line.startswith("shark-tune: search")]
    assert len(told) == 1, "without a terminal there is a line for a stage, and one each half minute"


@pytest.mark.slow
def test_ids_are_stable_from_run_to_run_and_with_workers(suite: Suite, alone: Outcome, shared: Outcome) -> None:
    collected = suite.collect(*ARGUMENTS)
    assert len(collected) == len(set(collected)) > 100, "all that the search may choose from"
    assert f"test_suite.py::test_dispatch[{SLOW}-default]" in collected
    for outcome in (alone, shared):
        tried = {f"{each['dispatch']}-{each['pipeline']}-{each['id']}" for each in outcome.records if each["knobs"]}
        assert {f"test_suite.py::test_dispatch[{name}]" for name in tried} <= set(collected)
        assert outcome.summary["run"]["complete"]


@pytest.mark.slow
def test_collecting_alone_writes_nothing(suite: Suite, alone: Outcome) -> None:
    before = {path.name: path.read_bytes() for path in alone.out.iterdir()}
    suite.collect(*ARGUMENTS)
    assert {path.name: path.read_bytes() for path in alone.out.iterdir()} == before


@pytest.mark.slow
def test_a_run_of_ordinary_tests_alone_leaves_earlier_results(suite: Suite, alone: Outcome) -> None:
    before = {path.name: path.read_bytes() for path in alone.out.iterdir()}
    assert suite.tune(*ARGUMENTS, "-k", "between").status == 0
    assert {path.name: path.read_bytes() for path in alone.out.iterdir()} == before


def test_where_nothing_won_there_is_no_spec_and_a_stale_one_is_removed(suite: Suite) -> None:
    suite.write("other/spec.mlir", "// of a run long ago\n")
    outcome = suite.tune(*ARGUMENTS, "-k", f"{FAST}-default", out="other")
    assert outcome.status == 0, outcome.text
    assert not (outcome.out / "spec.mlir").exists()
    assert outcome.dispatch(FAST)["winner"] is None
    assert outcome.dispatch(FAST)["reason"]
    outcome.lines.fnmatch_lines(["no spec was written: nothing won"])


def test_without_tune_marked_tests_are_skipped_with_the_command(suite: Suite) -> None:
    outcome = suite.run("-rs", "--tune-target=cuda:sm_89")
    outcome.lines.fnmatch_lines(
        [
            "nothing guarded: no snapshot for cuda:sm_89 beside test_suite.py; make one with",
            "    pytest test_suite.py --tune --tune-coverage=1 --tune-target=cuda:sm_89*",
            "SKIPPED *: there is no snapshot for cuda:sm_89 to guard: pytest test_suite.py --tune * makes one",
            "*1 failed, 3 passed, 1 skipped*",
        ]
    )


def test_a_missing_model_is_an_error_of_a_run_that_does_not_tune(make_suite: MakeSuite) -> None:
    test = "import pytest\n\n@pytest.mark.tune('gone.mlir')\ndef test_it(measurement):\n    pass\n"
    outcome = make_suite({"test_suite.py": test}).run("-q")
    assert outcome.status == 1, outcome.text
    outcome.lines.fnmatch_lines(["there is no file */gone.mlir"])


@pytest.mark.parametrize("workers", thinned(["-n1", "-n0"], every=2))
def test_a_run_without_anything_to_tune_says_what_to_type(make_suite: MakeSuite, workers: str) -> None:
    outcome = make_suite({"test_plain.py": "def test_plain():\n    pass\n"}).tune(workers)
    assert outcome.status == 0, outcome.text
    text = " ".join(outcome.text.split())
    assert "nothing was tuned: this run has no test that is marked tune, and no model" in text
    assert "pytest model.onnx --tune" in text
    assert "writing the results" not in text


def test_an_option_of_tuning_is_refused_by_a_run_that_does_not_tune(suite: Suite) -> None:
    outcome = suite.run("--tune-time=30m")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    outcome.lines.fnmatch_lines(["ERROR: --tune-time: it is for tuning, and this run only checks specs: add --tune"])


@pytest.mark.parametrize("absent", thinned(["xdist", "benchmark"], every=2))
def test_other_plugins_may_be_absent(suite: Suite, absent: str) -> None:
    outcome = suite.tune("-p", f"no:{absent}", *ARGUMENTS, "-k", f"{FAST}-default or before", out=absent)
    assert outcome.status == 0, outcome.text
    assert [record["state"] for record in outcome.records] == ["measured"]
