"""Each option, and its twin in the ini file, seen in what a run does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.stages.spec import read_spec

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

NAME = "matmul_53x59x61_f32"
SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=53, n=59, k=61))
def test_dispatch(candidate, artifact, measurement):
    pass
"""

STARTER = """
module attributes {transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint} {
  transform.named_sequence @annotate(%op: !transform.any_op {transform.readonly}) {
    transform.annotate %op "from_the_starter" : !transform.any_op
    transform.yield
  }
  transform.named_sequence @match_mine(%op: !transform.any_op {transform.readonly}) -> !transform.any_op {
    transform.match.operation_name %op ["linalg.pack"] : !transform.any_op
    transform.yield %op : !transform.any_op
  }
  transform.named_sequence @__kernel_config(%op: !transform.any_op {transform.consumed}) -> !transform.any_op
      attributes {iree_codegen.tuning_spec_entrypoint} {
    %0 = transform.foreach_match in %op @match_mine -> @annotate : (!transform.any_op) -> !transform.any_op
    transform.yield %0 : !transform.any_op
  }
}
"""


@pytest.fixture
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"test_suite.py": SUITE})


def test_the_ini_file_has_a_twin_for_each_option(suite: Suite) -> None:
    suite.write(
        "pytest.ini",
        "[pytest]\ntune = true\ntune_target = llvm-cpu:x86-64-v3\ntune_device = local-sync\ntune_candidates = 1\n"
        "tune_out = elsewhere\ntune_time = 1h\ntune_search = random\ntune_seed = 7\ntune_jobs = 1\ntune_fresh = true\n"
        "iree_compile_flag =\n    --iree-llvmcpu-debug-symbols=false --mlir-disable-threading\n"
        "    --iree-opt-level=O1\n",
    )
    outcome = suite.run("-k", "not final and not spec")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["run"]["target"] == "llvm-cpu:x86-64-v3"
    assert outcome.dispatch(NAME)["tried"] == 1
    assert not (suite.folder / "elsewhere").exists(), "the command line wins"


def test_a_flag_reaches_the_compiler(suite: Suite) -> None:
    outcome = suite.tune("--iree-compile-flag=--iree-llvmcpu-stack-allocation-limit=1")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["there is nothing to tune in *: no configuration of linalg.matmul fits the limits *"])


def test_the_budget_leaves_candidates_out_and_says_how_many(suite: Suite) -> None:
    outcome = suite.tune("-k", "not final", "--tune-time=0.01s", "--tune-candidates=30")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["run"]["complete"] is True
    row = outcome.dispatch(NAME)
    assert row["tried"] == len(outcome.records) - 1 < 5
    assert row["losses"][0]["causes"][0]["reason"] == "the time was spent (--tune-time)"
    assert row["losses"][0]["count"] == row["generated"] - row["tried"] > 25
    outcome.lines.fnmatch_lines([f"*{row['losses'][0]['count']} not tried: the time was spent (--tune-time)"])


def test_a_starter_spec_is_linked_behind_the_new_entries(suite: Suite) -> None:
    suite.write("starter.mlir", STARTER)
    suite.habits = ("--tune-search=exhaustive",)  # What another test measured of this op will do.
    outcome = suite.tune("--tune-spec=starter.mlir", "--tune-candidates=2")
    assert outcome.status == 0, outcome.text
    assert outcome.dispatch(NAME)["winner"], "the default of prime sizes is many times slower"
    matchers = [each.matcher for each in read_spec((outcome.out / "spec.mlir").read_text())]
    assert matchers == [f"match_{NAME}", "match_mine"]
    (snapshot,) = (suite.folder / "__specs__").glob("*.mlir")
    assert [each.matcher for each in read_spec(snapshot.read_text())] == [f"match_{NAME}"]


def test_one_job_at_a_time_and_another_output_folder(suite: Suite) -> None:
    outcome = suite.tune("--tune-jobs=1", "-k", "default", "--tune-candidates=1", out="deep/er")
    assert outcome.status == 0, outcome.text
    assert {path.name for path in outcome.out.iterdir()} == {"records.jsonl", "summary.json"}
    assert not (suite.folder / ".tune").exists()
