"""Each option, and its twin in the ini file, seen in what a run does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.identity import device_slug
from pytest_shark_tune.spec.build import build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import read_spec
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

NAME = "matmul_53x59x61_f32"
SUITE = suite_text("ops.matmul(m=53, n=59, k=61)")

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
        "iree_compile_flag =\n    --iree-llvmcpu-debug-symbols=false\n    --mlir-disable-threading\n"
        "    --iree-opt-level=O1\n",
    )
    outcome = suite.run("-k", "not final and not spec")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["run"]["target"] == "llvm-cpu:x86-64-v3"
    assert outcome.dispatch(NAME)["tried"] == 1
    assert not (suite.directory / "elsewhere").exists(), "the command line wins"


def test_a_flag_reaches_the_compiler(suite: Suite) -> None:
    outcome = suite.tune("--iree-compile-flag=--iree-llvmcpu-stack-allocation-limit=1")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["there is nothing to tune in *: no configuration of linalg.matmul fits the limits *"])


def test_the_budget_leaves_candidates_out_and_says_how_many(suite: Suite) -> None:
    outcome = suite.tune("-v", "-k", "not final", "--tune-time=0.01s", "--tune-trials=30")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["run"]["complete"] is True
    row = outcome.dispatch(NAME)
    assert row["tried"] == len(outcome.records) - 1 < 5
    assert row["losses"][0]["causes"][0]["reason"] == "the time was spent (--tune-time)"
    assert row["losses"][0]["count"] == row["generated"] - row["tried"] > 25
    outcome.lines.fnmatch_lines([f"*{row['losses'][0]['count']} not tried: the time was spent (--tune-time)"])


@pytest.mark.slow
def test_a_starter_spec_is_linked_behind_the_new_entries(suite: Suite) -> None:
    suite.write("starter.mlir", STARTER)
    suite.habits = ("--tune-strategy=exhaustive",)  # What another test measured of this op will do.
    outcome = suite.tune("--tune-starter-spec=starter.mlir", "--tune-trials=2")
    assert outcome.status == 0, outcome.text
    assert outcome.dispatch(NAME)["winner"], "the default of prime sizes is many times slower"
    matchers = [each.matcher for each in read_spec((outcome.out / "spec.mlir").read_text())]
    assert matchers == [f"match_{NAME}", "match_mine"]
    (snapshot,) = (suite.directory / "__specs__").glob("*.mlir")
    assert [each.matcher for each in read_spec(snapshot.read_text())] == [f"match_{NAME}"]


CONFIG = (
    "#iree_cpu.lowering_config<distribution = [{0}, {0}, 0], vector_common_parallel = [{1}, {1}, 0], "
    "vector_reduction = {2}>"
)
INFO = (
    "#iree_codegen.compilation_info<lowering_config = {}, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
GOOD = CONFIG.format(48, 8, [0, 0, 7])  # No space tiles by 7.
REFUSED = CONFIG.format(64, 8, [0, 8, 0])
BROAD = """
module attributes {{transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint}} {{
  transform.named_sequence @apply(%op: !transform.any_op {{transform.readonly}},
      %config: !transform.any_param {{transform.readonly}}) {{
    transform.annotate %op "compilation_info" = %config : !transform.any_op, !transform.any_param
    transform.yield
  }}
  transform.named_sequence @match_any(%op: !transform.any_op {{transform.readonly}})
      -> (!transform.any_op, !transform.any_param) {{
    transform.match.operation_name %op ["linalg.matmul"{more}] : !transform.any_op
    %config = transform.param.constant {info} -> !transform.any_param
    transform.yield %op, %config : !transform.any_op, !transform.any_param
  }}
  transform.named_sequence @__kernel_config(%op: !transform.any_op {{transform.consumed}}) -> !transform.any_op
      attributes {{iree_codegen.tuning_spec_entrypoint}} {{
    %0 = transform.foreach_match in %op @match_any -> @apply : (!transform.any_op) -> !transform.any_op
    transform.yield %0 : !transform.any_op
  }}
}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("search", ["model", "exhaustive"])
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_starters_config_is_tried_first_and_comes_to_the_final(suite: Suite, search: str, workers: str) -> None:
    suite.write("starter.mlir", BROAD.format(info=INFO.format(GOOD), more=""))
    options = ("--tune-starter-spec=starter.mlir", "--tune-trials=8", f"--tune-strategy={search}")
    outcome = suite.tune(*options, workers)
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["shark-tune: the config that the starter spec has for 1 dispatch is tried first"])
    (own,) = [record for record in outcome.records if record["config"] == GOOD]
    if workers == "-n0":
        assert [record["id"] for record in outcome.records][:2] == ["default", own["id"]]
    assert (own["state"], own["knobs"]) == ("measured", {})
    finalists = json.loads((outcome.out / "finals.jsonl").read_text())["finalists"]
    assert own["ratio_high"] > 1, "the default of prime sizes is many times slower"
    assert own["id"] in {each["id"] for each in finalists}
    assert own["id"] in {part.rpartition("-")[2].rstrip("]") for part in suite.collect(*options)}


MODEL = """
func.func @main(%a: tensor<53x61xf32>, %b: tensor<61x59xf32>, %c: tensor<31x29xf32>)
    -> (tensor<53x59xf32>, tensor<31x29xf32>) {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<53x59xf32>
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<53x59xf32>) -> tensor<53x59xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<53x61xf32>, tensor<61x59xf32>) outs(%f0 : tensor<53x59xf32>)
      -> tensor<53x59xf32>
  %1 = math.absf %c : tensor<31x29xf32>
  return %0, %1 : tensor<53x59xf32>, tensor<31x29xf32>
}
"""


@pytest.mark.slow
def test_what_is_verified_with_a_starter_is_what_is_written(suite: Suite) -> None:
    """The starter's one entry matches what no winner is for, and iree-compile fails with it."""
    model = suite.write("model.mlir", MODEL)
    suite.write("test_suite.py", SUITE.replace("ops.matmul(m=53, n=59, k=61)", '"model.mlir"'))
    suite.write("starter.mlir", BROAD.format(info=INFO.format(REFUSED), more=', "linalg.generic"'))
    outcome = suite.tune("--tune-starter-spec=starter.mlir", "--tune-trials=2")  # Its own config is the first.
    assert outcome.status == 0, outcome.text
    dropped = outcome.summary["dropped"]
    assert list(dropped) == ["@match_any"]
    outcome.lines.fnmatch_lines(
        ["@match_any of the starter spec: not in the spec: iree-compile fails on model with it: *"]
    )
    spec = outcome.out / "spec.mlir"
    assert [each.matcher for each in read_spec(spec.read_text())] == [f"match_{NAME}"]
    (snapshot,) = (suite.directory / "__specs__").glob("*.mlir")
    assert snapshot.read_text() == spec.read_text()
    compiler = Compiler(Target.parse("llvm-cpu"))
    compiler.configure_by_flag(compiler.lower(model.read_text(), to="executable-sources"), spec.read_text())


@pytest.mark.slow
def test_what_is_verified_with_entries_without_a_record_is_what_is_written(suite: Suite) -> None:
    suite.write("model.mlir", MODEL)
    suite.write("test_suite.py", SUITE.replace("ops.matmul(m=53, n=59, k=61)", '"model.mlir"'))
    foreign = BROAD.format(info=INFO.format(REFUSED), more=', "linalg.generic"')
    snapshot = suite.write(f"__specs__/llvm-cpu-{device_slug('local-task')}.mlir", link_spec(build_spec([], foreign)))
    outcome = suite.tune("--tune-trials=1")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["*left out: @match_any: iree-compile fails on model with it: *"])
    assert [each.matcher for each in read_spec(snapshot.read_text())] == [f"match_{NAME}"]


@pytest.mark.slow
def test_one_job_at_a_time_and_another_output_directory(suite: Suite) -> None:
    outcome = suite.tune("--tune-jobs=1", "-k", "default", "--tune-trials=1", out="deep/er")
    assert outcome.status == 0, outcome.text
    assert {path.name for path in outcome.out.iterdir()} == {
        ".gitignore",
        "progress.jsonl",
        "records.jsonl",
        "summary.json",
    }
    assert not (suite.directory / ".tune").exists()
