"""The command ``shark-tune``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune import __version__, ops
from pytest_shark_tune.cli import main

NAME = "matmul_32x32x32_f32"

TOTAL = """
func.func @f(%a: tensor<64xf32>) -> tensor<f32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<f32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<f32>) -> tensor<f32>
  %0 = linalg.reduce { arith.addf } ins(%a : tensor<64xf32>) outs(%init : tensor<f32>) dimensions = [0]
  return %0 : tensor<f32>
}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "a model.mlir"
    path.write_text(ops.matmul(m=32, n=32, k=32).text, encoding="utf-8")
    return path


def test_the_command_is_installed() -> None:
    done = subprocess.run([Path(sys.prefix, "bin", "shark-tune"), "--version"], capture_output=True, check=True)
    assert __version__ in done.stdout.decode()


def test_space_shows_a_table(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", str(model)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert NAME in result.stdout
    assert "DoubleTilingExpert" in result.stdout


def test_space_prints_json(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", "--json", str(model)], catch_exceptions=False)
    (row,) = json.loads(result.stdout)
    assert row["dispatch"] == NAME
    assert row["loops"] == [32, 32, 32]
    assert row["configs"] > 1
    assert all(domain for domain in row["knobs"].values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mlir", None, "there is no file"),
        ("notes.txt", "", "is not one of .mlir, .mlirbc, .onnx"),
        ("broken.mlir", "func.func @f(", "broken: iree-compile rejects it: broken:1:"),
        ("broken.onnx", "nonsense", "not an ONNX model"),
    ],
)
def test_a_bad_input_is_a_usage_error(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(main, ["space", str(path)], catch_exceptions=False)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_target_is_a_usage_error(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", "--tune-target", "vax", str(model)], catch_exceptions=False)
    assert result.exit_code == 2
    assert "unknown target 'vax'" in result.stderr


def test_a_model_with_nothing_to_tune_says_why(tmp_path: Path) -> None:
    path = tmp_path / "total.mlir"
    path.write_text(TOTAL, encoding="utf-8")
    result = CliRunner().invoke(main, ["space", "--json", str(path)], catch_exceptions=False)
    assert json.loads(result.stdout) == []
    assert "linalg.generic has no parallel loop" in result.stderr
