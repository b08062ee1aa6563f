"""``shark-tune space``, ``shark-tune profile`` and ``pytest --tune`` say the same about what is not tuned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler import refusals
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch import reasons
from pytest_shark_tune.dispatch.reasons import CannotTune
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from tests.integration.conftest import MakeSuite
from tests.models import TOTAL
from tests.thinned import thinned

OPEN = """
func.func @main(%a: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %0 = math.absf %a : tensor<?x8xf32>
  return %0 : tensor<?x8xf32>
}
"""
NO_DISPATCH = "func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {\n  return %a : tensor<4xf32>\n}\n"
MODELS = {"open.mlir": OPEN, "total.mlir": TOTAL, "none.mlir": NO_DISPATCH}
REASONS = {
    "total.mlir": "linalg.generic has no parallel loop, so there is nothing to share out and one way to compute it",
    "open.mlir": "its sizes depend on dimension 0 of input 0 of main, which is open: give sizes, as in "
    "--tune-dim 0.0=1,16,128",
    "none.mlir": "",
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "400"}, catch_exceptions=False)


@pytest.mark.parametrize("name", thinned(MODELS, every=3))
def test_the_reason_is_the_same_everywhere(make_suite: MakeSuite, tmp_path: Path, name: str) -> None:
    suite = make_suite(MODELS)
    path = str(suite.directory / name)
    listed = run("space", path)
    assert listed.exit_code == 0
    assert REASONS[name] in listed.stderr
    profiled = run("profile", "--tune-cache", str(tmp_path), path)
    assert profiled.exit_code == 0, profiled.output
    assert REASONS[name] in profiled.stdout
    tuned = suite.tune(name)
    assert tuned.status == 1
    tuned.lines.fnmatch_lines([f"there is nothing to tune in {Path(name).stem}: *{REASONS[name] or 'no dispatch'}*"])


def onnx_model(path: Path, nodes: Sequence[tuple[Any, ...]], rows: int | str) -> Path:
    """Write a model of nodes that takes ``x``, with this number of rows, and returns ``y``."""
    onnx: Any = pytest.importorskip("onnx")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node) for node in nodes],
        "graph",
        [onnx.helper.make_tensor_value_info("x", kind, [rows, 4])],
        [onnx.helper.make_tensor_value_info("y", kind, ["rows", "columns"])],
        [onnx.helper.make_tensor("at", onnx.TensorProto.INT64, [], [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


REFUSED: dict[str, tuple[type[refusals.InputRefused], list[tuple[Any, ...]], int | str]] = {
    "operator": (
        refusals.OperatorNotLowered,
        [("SplitToSequence", ["x"], ["s"]), ("SequenceAt", ["s", "at"], ["y"])],
        4,
    ),
    "unknown": (refusals.UnknownOperator, [("Frobnicate", ["x"], ["y"])], 4),
    "shapes": (refusals.OnnxModelRejected, [("MatMul", ["x", "x"], ["y"])], 3),
    "crash": (refusals.CompilerCrashes, [("Transpose", ["x"], ["t"]), ("MatMul", ["t", "x"], ["y"])], 0),
    "open": (refusals.OpenOnnxInputs, [("Neg", ["x"], ["y"])], "rows"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_an_onnx_model_is_refused_for_the_same_reason_everywhere(
    name: str, make_suite: MakeSuite, tmp_path: Path
) -> None:
    kind, nodes, rows = REFUSED[name]
    suite = make_suite({})
    path = onnx_model(suite.directory / f"{name}.onnx", nodes, rows)
    with pytest.raises(kind) as refused:
        extract_dispatches([read_source(path, Path())], Compiler(Target.parse("llvm-cpu")), 1)
    why = str(refused.value).partition(f"{name}.onnx: ")[2]
    assert kind.remedy in why
    for command in (["space"], ["profile", "--tune-cache", str(tmp_path)]):
        result = run(*command, str(path))
        assert result.exit_code == 2
        assert why in result.stderr
    tuned = suite.tune(path.name)
    assert tuned.status == 1
    assert why in " ".join(tuned.text.split())


@pytest.mark.parametrize("content", [None, "module {\n"], ids=["absent", "torn"])
def test_an_input_that_cannot_be_read_ends_with_2(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "model.mlir"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    for command in (["space"], ["profile", "--tune-cache", str(tmp_path / "cache")]):
        result = run(*command, str(path))
        assert result.exit_code == 2
        assert str(path) in result.stderr or "model" in result.stderr


@pytest.mark.slow
def test_the_shares_of_a_profile_are_those_of_the_whole_call(tmp_path: Path) -> None:
    path = tmp_path / "total.mlir"
    path.write_text(TOTAL, encoding="utf-8")
    told = json.loads(run("profile", "--json", "--tune-cache", str(tmp_path / "cache"), str(path)).stdout)
    assert [part["reason"] for part in told["shares"]] == [REASONS["total.mlir"]]
    whole_us = max(told["model_us"], told["dispatches_us"])
    assert told["dispatches_us"] + told["outside_us"] == pytest.approx(whole_us)
    shown = run("profile", "--tune-cache", str(tmp_path / "cache"), str(path)).stdout
    assert "100.0%" in shown


@pytest.mark.slow
def test_dispatches_of_a_branch_that_is_not_taken_are_listed(tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "golden" / "cases" / "boolean_scalar_input.onnx"
    told = json.loads(run("profile", "--json", "--tune-cache", str(tmp_path), str(model)).stdout)
    assert {part["dispatch"] for part in told["shares"]} == {"matmul_64x64x64_f32", "elementwise_4096_f32"}
    assert 0 in [part["calls"] for part in told["shares"]]


def test_each_reason_is_a_class_of_its_own_with_words_about_it() -> None:
    classes = [getattr(reasons, name) for name in reasons.__all__]
    assert all(issubclass(each, CannotTune) and each.__doc__ for each in classes)
    refused = [each for name in refusals.__all__ if isinstance(each := getattr(refusals, name), type)]
    assert all(issubclass(each, refusals.InputRefused) and each.__doc__ for each in refused)
    classes += refused
    assert len({each.__doc__ for each in classes}) == len(classes)
    assert reasons.OpenSizes("it is open").advice == "it is open: fix the input shapes"
    assert reasons.NothingToTile("it is one").advice == "it is one"
