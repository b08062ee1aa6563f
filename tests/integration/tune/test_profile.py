"""Where the time of a model goes: measured, shown, and what is tuned of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.model.profile import Profiler
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

LARGE, SMALL = "matmul_128x128x128_f32", "matmul_16x16x16_f32"
# Two calls of a large product, one of a small one that takes a hundredth of the time, and a sum that has no config.
MODEL = """
#total = affine_map<(d0, d1) -> ()>
#id = affine_map<(d0, d1) -> (d0, d1)>
!large = tensor<128x128xf32>
!small = tensor<16x16xf32>

func.func @main(%a: !large, %b: !large, %c: !small) -> (!large, !small, tensor<f32>) {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : !large
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : !large) -> !large
  %0 = linalg.matmul ins(%a, %b : !large, !large) outs(%f0 : !large) -> !large
  %1 = linalg.matmul ins(%0, %b : !large, !large) outs(%f0 : !large) -> !large
  %e2 = tensor.empty() : !small
  %f2 = linalg.fill ins(%zero : f32) outs(%e2 : !small) -> !small
  %2 = linalg.matmul ins(%c, %c : !small, !small) outs(%f2 : !small) -> !small
  %e3 = tensor.empty() : tensor<f32>
  %f3 = linalg.fill ins(%zero : f32) outs(%e3 : tensor<f32>) -> tensor<f32>
  %3 = linalg.generic {indexing_maps = [#id, #total], iterator_types = ["reduction", "reduction"]}
      ins(%2 : !small) outs(%f3 : tensor<f32>) {
  ^bb0(%x: f32, %sum: f32):
    %s = arith.addf %sum, %x : f32
    linalg.yield %s : f32
  } -> tensor<f32>
  return %1, %2, %3 : !large, !small, tensor<f32>
}
"""
# The same, and a function beside it.
TWO_FUNCTIONS = f"{MODEL}\nfunc.func @other(%a: !small) -> !small {{\n  return %a : !small\n}}\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    (directory / "a model.mlir").write_text(MODEL, encoding="utf-8")
    (directory / "two.mlir").write_text(TWO_FUNCTIONS, encoding="utf-8")
    return directory


@pytest.fixture
def session(tmp_path: Path, cache: Path) -> Iterator[Session]:
    settings = replace(RunSettings.in_directory(tmp_path, ["local-task"], "cpu", jobs=2), share=0.5)
    session = Session(settings, Compiler(Target.parse("llvm-cpu")), Cache(cache))
    yield session
    session.close()


def names(plan: Plan) -> list[str]:
    return [task.name for task in plan.tasks]


@pytest.mark.slow
def test_of_a_model_what_takes_the_time_is_tuned(session: Session, models: Path) -> None:
    key, plan = session.planner.plan(["a model.mlir"], models)
    assert names(plan) == [LARGE]
    assert [(each.dispatch, each.calls) for each in plan.left_out] == [(SMALL, 1)]
    assert session.cache.get("plans", key, Plan) == plan
    (profile,) = plan.profiles
    assert (profile.source, profile.function) == ("a model", "main")
    assert {each.dispatch: each.calls for each in profile.shares}[LARGE] == 2
    assert sum(each.share for each in profile.shares) == pytest.approx(1, abs=1e-4)
    (task,) = plan.tasks
    large = profile.shares[0]
    assert plan.time_us(task) == large.time_us
    assert plan.share(task) == pytest.approx(large.share, abs=1e-4)
    (untunable,) = plan.untunable
    assert untunable.share is not None
    assert 0 < untunable.share < large.share
    # What was measured is known to the next run.
    assert session.planner.plan(["a model.mlir"], models) == (key, plan)


def test_whatever_else_needs_a_dispatch_keeps_it(session: Session, models: Path) -> None:
    op = ops.matmul(m=16, n=16, k=16, lhs="f32")
    _, plan = session.planner.plan(["a model.mlir", op], models)
    assert names(plan) == [LARGE, SMALL]
    assert plan.left_out == ()
    assert plan.time_us(plan.tasks[1]) is None, "half of its calls were not profiled"


def test_ops_are_tuned_whole_and_not_profiled(session: Session, models: Path) -> None:
    _, plan = session.planner.plan(
        [ops.matmul(m=16, n=16, k=16, lhs="f32"), ops.matmul(m=8, n=8, k=8, lhs="f32")], models
    )
    assert len(plan.tasks) == 2
    assert (plan.profiles, plan.unprofiled, plan.models) == ((), {}, ())
    assert plan.share(plan.tasks[0]) is None


def test_a_model_that_cannot_be_profiled_is_tuned_whole(session: Session, models: Path) -> None:
    _, plan = session.planner.plan(["two.mlir"], models)
    assert names(plan) == [LARGE, SMALL]
    assert plan.profiles == ()
    assert plan.unprofiled == {"two": "two has several functions, 'main', 'other': choose one with --tune-function"}


def test_without_the_driver_s_help_benchmarks_are_counted(session: Session, models: Path) -> None:
    _, plan = session.planner.plan(["two.mlir"], models)
    source = plan.sources[0]
    profiler = Profiler(
        session.builder,
        session.untuned,
        session.runner,
        session.children,
        session.microbenchmarks,
        session.run.cache,
    )
    profile = profiler.counted(source, "main", plan, model_us=1234.5678, why="it does not tell")
    (left_out,) = plan.untunable
    calls = {each.dispatch: (each.calls, each.reason) for each in profile.shares}
    assert calls == {LARGE: (2, ""), SMALL: (1, ""), left_out.name: (1, left_out.reason)}
    assert profile.shares[0].dispatch == LARGE
    assert profile.shares[0].time_us > 2 * profile.time_us(SMALL)
    assert sum(each.share for each in profile.shares) == pytest.approx(1, abs=1e-5)
    assert profile.model_us == 1234.568
    assert profile.measured == "its dispatches' benchmarks, times how often each is called (it does not tell)"
    assert profile.unknown == {}


def shark_tune(cache: Path, *arguments: str) -> Result:
    command = ["profile", "--tune-cache", str(cache), *arguments]
    return CliRunner().invoke(main, command, env={"COLUMNS": "200"}, catch_exceptions=False)


@pytest.mark.slow
def test_the_command_shows_a_table_sorted_by_share(models: Path, cache: Path) -> None:
    result = shark_tune(cache, str(models / "a model.mlir"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]
    assert rows[0][0] == LARGE, "the longest comes first"
    assert rows[0][1] == "2"
    assert rows[0][5:] == ["yes", "DoubleTilingExpert"]
    assert rows[3][-1] == "100.0%", "the time outside of the dispatches is the last row"
    assert any(" no (1) " in line for line in lines)
    assert any(line.startswith("(1) linalg.generic has no parallel loop") for line in lines)
    assert "a call of 'main': " in result.stdout
    assert "not tunable: 1 dispatch, " in result.stdout


@pytest.mark.slow
def test_the_command_prints_json_and_takes_a_function(models: Path, cache: Path) -> None:
    result = shark_tune(cache, "--json", "--tune-function=main", str(models / "two.mlir"))
    told = json.loads(result.stdout)
    assert told["function"] == "main"
    assert told["measured"] == "the running model"
    assert told["shares"][0]["dispatch"] == LARGE
    assert told["shares"][0]["op"] == "linalg.matmul 128x128x128"
    assert told["dispatches_us"] == pytest.approx(sum(each["time_us"] for each in told["shares"]))
    assert told["dispatches_us"] <= 1.2 * told["model_us"]


def test_the_command_counts_the_dispatches_of_a_model_with_several_functions(models: Path, cache: Path) -> None:
    result = shark_tune(cache, "--json", str(models / "two.mlir"))
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert "it has several functions, 'main', 'other': choose one with --tune-function" in told["measured"]
    assert (told["model_us"], told["shares"][0]["dispatch"]) == (None, LARGE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--tune-function=absent", "two.mlir"),
            "--tune-function: no function with inputs of fixed shapes is called 'absent': there is 'main', 'other'",
        ),
        (("--tune-device=cuda", "a model.mlir"), "--tune-device: "),
        (("absent.mlir",), "there is no file "),
        (("--tune-target=tpu", "a model.mlir"), "tpu"),
    ],
)
def test_the_command_refuses_what_it_cannot_profile(
    models: Path, cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = shark_tune(cache, *arguments[:-1], str(models / arguments[-1]))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_tunes_a_model_and_measures_it_end_to_end(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"a model.mlir": MODEL})
    outcome = suite.tune("-v", workers, "--tune-trials=2", "--tune-coverage=50%", "a model.mlir")
    assert outcome.status == 0, outcome.text
    summary = outcome.summary
    assert [row["name"] for row in summary["dispatches"]] == [LARGE]
    assert summary["dispatches"][0]["share"] > 0.5
    assert [each["dispatch"] for each in summary["left_out"]] == [SMALL]
    outcome.lines.fnmatch_lines([f"left out of a model (1, *% of the time): {SMALL} *%; a larger --tune-coverage *"])
    outcome.lines.fnmatch_lines(["not tuned (1, *% of the time): main_dispatch_* *%: linalg.generic has no *"])
    tests = [name.rpartition("[")[2] for name in outcome.verdicts]
    assert tests[-2:] == ["spec", "a model-end-to-end"]
    (source,) = summary["sources"]
    is_tuned = summary["dispatches"][0]["winner"] is not None or summary["dropped"]
    assert (source["ratio"] is not None) or source["note"]
    assert is_tuned or source["note"] == "the spec has no entry for it"


@pytest.mark.slow
def test_a_model_whose_weights_are_in_another_file_is_tuned_by_benchmarks_and_not_run(make_suite: MakeSuite) -> None:
    weight = 'util.global private @w = #flow.parameter.named<"model"::"w"> : tensor<128x128xf32>'
    loaded = "%zero = arith.constant 0.0 : f32\n  %b = util.global.load @w : tensor<128x128xf32>"
    text = MODEL.replace("%b: !large, ", "").replace("%zero = arith.constant 0.0 : f32", loaded, 1)
    suite = make_suite({"model.mlir": text.replace("func.func", f"{weight}\nfunc.func", 1)})
    outcome = suite.tune("-v", "--tune-trials=2", "--tune-coverage=50%", "model.mlir")
    assert outcome.status == 0, outcome.text
    why = "its parameters are in other files: give --tune-parameters model=FILE with 'w', so that it is run whole"
    outcome.lines.fnmatch_lines([f"shark-tune: model: {why}", "collected *"])
    summary = outcome.summary
    assert [row["name"] for row in summary["dispatches"]] == [LARGE]
    (profile,) = summary["profiles"]
    assert profile["model_us"] is None
    assert profile["measured"].startswith("its dispatches' benchmarks, times how often each is called (its parameters ")
    assert [name.partition("[")[2] for name in outcome.verdicts][-1] == "spec"
