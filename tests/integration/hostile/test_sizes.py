"""Models of absurd sizes: the work is bounded, and such a dispatch is left out with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from tests.models import matmuls

_NEGATED = """
func.func @main(%a: tensor<4611686018427387904xf32>) -> tensor<4611686018427387904xf32> {
  %0 = arith.negf %a : tensor<4611686018427387904xf32>
  return %0 : tensor<4611686018427387904xf32>
}
"""


@pytest.mark.parametrize(
    "text", [matmuls("main", 1_000_000, 56, 1_000_000), _NEGATED], ids=["10^6 x 56 x 10^6", "4.6e18"]
)
def test_a_dispatch_that_no_device_holds_is_left_out(text: str, tmp_path: Path) -> None:
    model = tmp_path / "model.mlir"
    model.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, ["space", str(model), "--json"])
    assert done.exit_code == 0, done.output
    assert "main_dispatch_0: it has more elements than any device holds (" in " ".join(done.stderr.split())
    assert done.stdout.strip() == "[]"
