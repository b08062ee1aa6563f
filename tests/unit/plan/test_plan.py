"""Plans: sources read, dispatches found, candidates drawn, the same from run to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from iree.compiler import ir

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Argument
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.make import make_plan, plan_key
from pytest_shark_tune.plan.source import Source, read_source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.system.cache import Cache, content_key
from tests.parameters import parameter_model

pytestmark = pytest.mark.compiler

MATMUL = ops.matmul(m=64, n=96, k=128)


def test_an_op_is_a_source() -> None:
    source = read_source(MATMUL, Path("/nowhere"))
    assert (source.name, source.text, source.is_benchmark) == (MATMUL.name, MATMUL.text, False)


def test_a_path_is_relative_to_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "a model.mlir"
    path.write_text(MATMUL.text, encoding="utf-8")
    expected = Source(name="a model", text=MATMUL.text, is_benchmark=False, path=os.fspath(path))
    assert read_source("a model.mlir", tmp_path) == expected
    assert read_source(Path("a model.mlir"), tmp_path) == expected
    assert read_source(os.fspath(path), Path("/nowhere")) == expected


def test_bytecode_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "model.mlirbc"
    with ir.Context(), path.open("wb") as file:
        module = ir.Module.parse(MATMUL.text)
        module.operation.write_bytecode(file)
        expected = str(module)
    assert read_source(path, tmp_path).text == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "3 is not a source: give a path to .mlir, .mlirbc, .onnx, an op such as ops.matmul("),
        (None, "None is not a source"),
        (ops.matmul, "<function matmul at "),
        ("missing.mlir", "there is no file {directory}/missing.mlir"),
        ("directory.mlir", "{directory}/directory.mlir cannot be read: Is a directory"),
        ("model.txt", "{directory}/model.txt is not one of .mlir, .mlirbc, .onnx"),
        ("", "{directory} is not one of"),
        ("binary.mlir", "{directory}/binary.mlir: it is neither MLIR text nor MLIR bytecode"),
        ("broken.mlirbc", "{directory}/broken.mlirbc: it is not MLIR that this IREE parses"),
    ],
)
def test_a_bad_source_is_refused_with_the_reason(tmp_path: Path, given: object, message: str) -> None:
    (tmp_path / "directory.mlir").mkdir()
    (tmp_path / "model.txt").touch()
    (tmp_path / "binary.mlir").write_bytes(b"\xff\xfe")
    (tmp_path / "broken.mlirbc").write_bytes(b"ML\xefR\x00\x00")
    with pytest.raises(InputError) as caught:
        read_source(given, tmp_path)
    assert str(caught.value).startswith(message.format(directory=tmp_path))


def test_a_plan_holds_a_default_and_distinct_candidates(plan: Plan) -> None:
    (task,) = plan.tasks
    assert task.dispatch.name == "matmul_64x96x128_f32"
    assert task.default.id == "default"
    assert task.default.config == task.dispatch.default_config
    assert len({candidate.id for candidate in task.candidates}) == 3
    assert len({candidate.config for candidate in task.candidates}) == 3
    assert task.space_size is not None
    assert task.space_size > 100
    assert plan.untunable == ()


def test_a_plan_knows_the_knobs_of_the_default(plan: Plan) -> None:
    """They stand in the default's own config, level by level."""
    (task,) = plan.tasks
    near = task.near[0]
    assert set(near) == set(task.candidates[0].knobs)
    tiles = [near["dist_0"], near["dist_1"], near["vec_0"], near["vec_1"], near["vec_2"]]
    distribution, vector, depth = tiles[:2], tiles[2:4], tiles[4]
    assert f"distribution = {[*distribution, 0]}" in task.default.config
    assert f"vector_common_parallel = {[*vector, 0]}" in task.default.config
    assert f"vector_reduction = {[0, 0, depth]}" in task.default.config


def test_candidates_and_sources_are_found_by_name(plan: Plan) -> None:
    (task,) = plan.tasks
    assert task.candidate("default") is task.default
    assert task.candidate(task.candidates[1].id) == task.candidates[1]
    assert plan.source(MATMUL.name).functions == {"main": (Argument((64, 128), "f32"), Argument((128, 96), "f32"))}


def test_the_same_plan_is_made_again(plan: Plan, compiler: Compiler) -> None:
    again = make_plan([read_source(MATMUL, Path())], compiler, processors=2, count=3, seed=0)
    assert msgspec.json.encode(again) == msgspec.json.encode(plan)


def test_a_seed_draws_other_candidates_of_the_same_dispatch(plan: Plan, compiler: Compiler) -> None:
    other = make_plan([read_source(MATMUL, Path())], compiler, processors=2, count=3, seed=1)
    assert other.tasks[0].dispatch == plan.tasks[0].dispatch
    assert other.tasks[0].candidates != plan.tasks[0].candidates


def test_a_plan_goes_through_the_cache_unchanged(plan: Plan, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("plans", content_key("p"), plan)
    assert cache.get("plans", content_key("p"), Plan) == plan


def test_every_dispatch_is_tuned_or_listed_with_the_reason(compiler: Compiler, model: str) -> None:
    plan = make_plan([Source(name="model", text=model, is_benchmark=False)], compiler, processors=2, count=2, seed=0)
    tuned = {member.symbol: member.calls for task in plan.tasks for member in task.dispatch.members}
    reasons = {each.name: each.reason for each in plan.untunable}
    assert tuned == {f"{name}_dispatch_0": 1 for name in ("plain", "transposed", "batch", "narrow", "fused")} | {
        "chain_dispatch_0": 3,
        "reduction_dispatch_0": 1,
    }
    assert set(reasons) == {"dynamic_dispatch_0"}
    assert "dimension 0 of input 0 of dynamic, which is open" in reasons["dynamic_dispatch_0"]
    assert all(len(task.candidates) == 2 for task in plan.tasks)
    assert len({task.dispatch.name for task in plan.tasks}) == len(plan.tasks)


def test_a_dumped_benchmark_is_a_source_of_its_dispatch(
    compiler: Compiler, dumps: Mapping[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "benchmark.mlir"
    path.write_text(dumps["plain"], encoding="utf-8")
    source = read_source(path, tmp_path)
    assert source.is_benchmark
    extracted = extract_dispatches([source], compiler, processors=2)
    (dispatch,) = extracted.dispatches
    assert dispatch.name == "matmul_64x96x128_f32"
    assert dispatch.weight == 1
    assert [each.functions for each in extracted.sources] == [{}]


def test_equal_dispatches_of_two_sources_are_one_task(compiler: Compiler) -> None:
    sources = [Source(name=name, text=MATMUL.text, is_benchmark=False) for name in ("one", "two")]
    (dispatch,) = extract_dispatches(sources, compiler, processors=2).dispatches
    assert [member.source for member in dispatch.members] == ["one", "two"]
    assert dispatch.weight == 2


@pytest.mark.parametrize(
    "text",
    [
        "func.func @main( {",
        "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> { return %y : tensor<4xf32> }",
    ],
    ids=["syntax", "undeclared"],
)
def test_what_the_compiler_rejects_is_told_with_its_place(compiler: Compiler, text: str) -> None:
    with pytest.raises(InputError, match=r"^my model: iree-compile rejects it: my model:\d+:\d+: error: "):
        extract_dispatches([Source(name="my model", text=text, is_benchmark=False)], compiler, processors=2)


def test_a_source_without_a_dispatch_has_nothing_to_tune(compiler: Compiler) -> None:
    text = "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }"
    extracted = extract_dispatches([Source(name="empty", text=text, is_benchmark=False)], compiler, processors=2)
    assert (extracted.dispatches, extracted.untunable) == ((), ())


def test_the_key_covers_all_that_a_plan_depends_on(compiler: Compiler) -> None:
    source = Source(name="a", text="module {}", is_benchmark=False)
    other = msgspec.structs.replace(source, text="module { }")
    renamed = msgspec.structs.replace(source, name="b")
    gpu = Compiler(Target.parse("cuda:sm_89"))
    flagged = Compiler(compiler.target, ["--iree-opt-level=O3"])
    keys = [
        plan_key([source], compiler, count=3, seed=0),
        plan_key([source], compiler, count=4, seed=0),
        plan_key([source], compiler, count=3, seed=1),
        plan_key([other], compiler, count=3, seed=0),
        plan_key([renamed], compiler, count=3, seed=0),
        plan_key([source, source], compiler, count=3, seed=0),
        plan_key([source], gpu, count=3, seed=0),
        plan_key([source], flagged, count=3, seed=0),
    ]
    assert len(set(keys)) == len(keys)
    assert plan_key([source], Compiler(compiler.target), seed=0, count=3) == keys[0]


def test_a_model_whose_data_is_in_another_file_is_tuned_and_not_run(compiler: Compiler) -> None:
    text = parameter_model(16, 16, 16)
    plan = make_plan([Source(name="model", text=text, is_benchmark=False)], compiler, processors=2, count=1, seed=0)
    assert [task.name for task in plan.tasks] == ["matmul_16x16x16_f32"]
    (source,) = plan.sources
    assert source.why_not_run.startswith("its parameters are in other files: give --tune-parameters model=FILE")
    assert (source.run_whole, plan.models) == ((), ())
    assert list(source.functions) == ["main"]


def test_whole_sources_have_more_time_and_memory_than_candidates(compiler: Compiler) -> None:
    hasty = Compiler(compiler.target, timeout_s=0.01, memory_bytes=64 << 20)
    (dispatch,) = extract_dispatches([read_source(MATMUL, Path())], hasty, processors=2).dispatches
    assert dispatch.name == "matmul_64x96x128_f32"
