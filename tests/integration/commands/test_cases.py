"""Models as people have them: names with slashes, stated zeros, constants of complex numbers, configs of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from tests.thinned import thinned

CASES = Path(__file__).parents[2] / "golden" / "cases"
PRODUCT = """
func.func @"{name}"(%a: tensor<64x32xf32>, %b: tensor<32x48xf32>) -> tensor<64x48xf32> {{
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x48xf32>
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<64x48xf32>) -> tensor<64x48xf32>
  %r = linalg.matmul ins(%a, %b : tensor<64x32xf32>, tensor<32x48xf32>) outs(%i : tensor<64x48xf32>) -> tensor<64x48xf32>
  return %r : tensor<64x48xf32>
}}
"""  # noqa: E501


def space(model: Path) -> tuple[int, list[str], str]:
    """The exit status, the dispatches with a space, and the messages."""
    command = ["space", str(model), "--tune-target=llvm-cpu:x86-64-v3", "--json"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    found = [row["dispatch"] for row in json.loads(result.stdout)] if result.exit_code == 0 else []
    return result.exit_code, found, result.stderr


@pytest.mark.parametrize(
    ("case", "dispatches"),
    thinned(
        [
            ("slash_in_graph_name.onnx", ["matmul_64x96x128_f32"]),
            ("zero_sized_input.onnx", ["batch_matmul_1x8x32x64_f32"]),
            ("boolean_scalar_input.onnx", ["matmul_64x64x64_f32", "elementwise_4096_f32"]),
            ("complex_constant.mlir", ["matmul_64x32x96_f32"]),
        ],
        every=2,
    ),
)
def test_a_case_has_its_spaces(case: str, dispatches: list[str]) -> None:
    assert space(CASES / case) == (0, dispatches, "")


@pytest.mark.parametrize("name", thinned(["a/b", "../../a", "/a", "a" * 300, "a\\0Ab", "-", "}"], every=3))
def test_a_function_may_have_any_name(name: str, tmp_path: Path) -> None:
    model = tmp_path / "model.mlir"
    model.write_text(PRODUCT.format(name=name))
    assert space(model)[:2] == (0, ["matmul_64x48x32_f32"])
    assert list(tmp_path.iterdir()) == [model]


def test_a_config_of_the_models_own_stays() -> None:
    status, dispatches, messages = space(CASES / "preconfigured.mlir")
    assert (status, dispatches) == (0, ["matmul_128x64x128_f32"])
    assert "linalg.matmul carries a compilation_info of its own" in " ".join(messages.split())


def test_a_crash_is_called_one_wherever_the_compiler_says_so() -> None:
    status, _, messages = space(CASES / "zero_k.mlir")
    assert status == 2
    assert "the compiler crashes on it: iree-compile was ended by SIG" in messages
    assert "warning" not in messages
