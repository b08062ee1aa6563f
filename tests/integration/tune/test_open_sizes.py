"""Dispatches with open sizes: tuned as they are compiled, measured at each size, and guarded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import environment
from tests.models import suite_text
from tests.thinned import thinned

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import MakeSuite, Outcome, Suite

NAME = "matmul_Dx192x256_f32"
MODEL = """
func.func @main(%a: tensor<?x256xf32>, %b: tensor<256x192xf32>) -> tensor<?x192xf32> {
  %zero = arith.constant 0.0 : f32
  %first = arith.constant 0 : index
  %rows = tensor.dim %a, %first : tensor<?x256xf32>
  %e = tensor.empty(%rows) : tensor<?x192xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x192xf32>) -> tensor<?x192xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<?x256xf32>, tensor<256x192xf32>)
      outs(%f : tensor<?x192xf32>) -> tensor<?x192xf32>
  return %0 : tensor<?x192xf32>
}
"""
DIMS = "--tune-dim=0.0=1,48,200"
SIZES = ["0.0=1", "0.0=48", "0.0=200"]
# With it the default has hundreds of workgroups, so that nearly every candidate is faster at every size.
POOR_DEFAULT = "--iree-compile-flag=--iree-llvmcpu-distribution-size=4"


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"model.mlir": MODEL})


@pytest.fixture(scope="module")
def tuned(suite: Suite) -> Outcome:
    return suite.tune("model.mlir", DIMS, POOR_DEFAULT, "--tune-trials=6", "-v", out="tuned")


@pytest.mark.slow
def test_a_candidate_is_measured_at_each_size(tuned: Outcome) -> None:
    assert tuned.status == 0, tuned.text
    measured = [record for record in tuned.records if record["state"] == "measured"]
    assert [list(record["sizes"]) for record in measured if record["id"] == "default"] == [SIZES]
    compared = [record for record in measured if record["id"] != "default" and record["sizes"]]
    assert compared, tuned.text
    for record in compared:
        assert list(record["sizes"]) == SIZES
        worst = min(record["sizes"].values(), key=lambda size: size["ratio"])
        mean = np.mean([size["ratio"] for size in record["sizes"].values()])
        is_slower = worst["ratio_high"] < 0.98
        assert record["ratio"] == pytest.approx(worst["ratio"] if is_slower else mean, rel=1e-3)


@pytest.mark.slow
def test_the_summary_has_a_row_for_each_size(tuned: Outcome) -> None:
    assert [line.split(",")[0].strip() for line in tuned.text.splitlines() if line.startswith("    0.0=")] == SIZES
    (row,) = json.loads((tuned.out / "summary.json").read_text())["dispatches"]
    assert (row["name"], row["weight"], list(row["sizes"])) == (NAME, 1, SIZES)
    if row["winner"]:
        assert min(size["ratio"] for size in row["sizes"].values()) >= 0.98


@pytest.mark.slow
def test_the_entry_applies_in_a_plain_compile_of_the_open_model(tuned: Outcome, suite: Suite) -> None:
    spec = tuned.out / "spec.mlir"
    if not spec.exists():
        pytest.skip("nothing won on this machine")
    (row,) = json.loads((tuned.out / "summary.json").read_text())["dispatches"]
    (winner,) = [record for record in tuned.records if record["id"] == row["winner"]]
    command = [sys.executable, "-m", "iree.compiler.tools.scripts.iree_compile", str(suite.directory / "model.mlir")]
    command += ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    command += ["--iree-llvmcpu-target-cpu=host", "--compile-to=executable-configurations", "-o", "-"]
    command += [f"--iree-codegen-tuning-spec-path={spec}"]
    configured = subprocess.run(command, check=True, env=environment(), capture_output=True, text=True).stdout
    assert winner["config"] in configured
    assert "tensor<?x256xf32>" in configured


@pytest.mark.slow
def test_an_entry_for_open_sizes_is_guarded(tuned: Outcome, suite: Suite) -> None:
    if not (tuned.out / "spec.mlir").exists():
        pytest.skip("nothing won on this machine")
    guarded = suite.run("model.mlir", DIMS, POOR_DEFAULT, f"--tune-guard={tuned.out / 'spec.mlir'}", "-v")
    guarded.lines.fnmatch_lines_random(
        [f"*{NAME}-{check}* PASSED*" for check in ("parses", "allowed", "applies", "correct")]
    )


@pytest.mark.slow
def test_ops_have_open_sizes_too(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_it.py": suite_text("ops.matmul(m=(1, 48), n=192, k=256)")})
    outcome = suite.tune("--tune-trials=2", "-v")
    assert outcome.status == 0, outcome.text
    assert {record["dispatch"] for record in outcome.records} == {NAME}
    assert list(outcome.records[0]["sizes"]) == ["0.0=1", "0.0=48"]


def test_a_marker_names_a_model_with_its_sizes(make_suite: MakeSuite) -> None:
    marked = suite_text('ops.OpenModel("models/net.mlir", {"0.0": (2, 16)})')
    suite = make_suite({"test_it.py": marked, "models/net.mlir": MODEL})
    outcome = suite.tune("--tune-trials=1", "-k", "default")
    assert outcome.status == 0, outcome.text
    assert [list(record["sizes"]) for record in outcome.records] == [["0.0=2", "0.0=16"]]


def test_without_sizes_the_reason_names_the_option(suite: Suite) -> None:
    outcome = suite.tune("model.mlir", out="without")
    assert "its sizes depend on dimension 0 of input 0 of main" in " ".join(outcome.text.split())
    assert "--tune-dim 0.0=1,16,128" in outcome.text


@pytest.mark.parametrize(
    ("given", "why"), thinned([("0.1=4", "no dispatch of a model depends"), ("x.0=4", "no model with an")], every=2)
)
def test_sizes_for_no_open_dimension_are_told(suite: Suite, given: str, why: str) -> None:
    outcome = suite.tune("model.mlir", f"--tune-dim={given}", out="stray")
    assert outcome.status != 0
    assert f"--tune-dim {given.partition('=')[0].removesuffix('.0')}" in outcome.text
    assert why in outcome.text


def onnx_model(path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx")
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.full((16, 24), 0.5, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", f32, ("batch", 16))],
        [helper.make_tensor_value_info("y", f32, ("batch", 24))],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.slow
def test_commands_take_sizes(suite: Suite, tmp_path: Path) -> None:
    onnx_model(tmp_path / "net.onnx")
    space = CliRunner().invoke(main, ["space", str(tmp_path / "net.onnx"), "--tune-dim=x.0=1,32", "--json"])
    assert space.exit_code == 0, space.output
    assert {row["dispatch"] for row in json.loads(space.stdout)} == {"matmul_Dx24x16_f32"}
    profiled = CliRunner().invoke(
        main, ["profile", str(suite.directory / "model.mlir"), DIMS, "--json", f"--tune-cache={suite.cache}"]
    )
    assert profiled.exit_code == 0, profiled.output
    measured = json.loads(profiled.stdout)
    assert measured["measured"] == "the running model"
    assert [part["dispatch"] for part in measured["shares"]] == [NAME]
