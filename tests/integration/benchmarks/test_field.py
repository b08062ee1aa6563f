from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from tests.models import TOTAL

FIELD = Path(__file__).parents[3] / "benchmarks" / "field.py"


@pytest.mark.slow
def test_a_directory_of_inputs_is_told_by_input_and_target(tmp_path: Path) -> None:
    (tmp_path / "product.mlir").write_text(ops.matmul(m=16, n=16, k=16).text, encoding="utf-8")
    (tmp_path / "total.mlir").write_text(TOTAL, encoding="utf-8")
    (tmp_path / "torn.mlir").write_text("module {", encoding="utf-8")
    (tmp_path / "ops.txt").write_text("matmul -M 8 -N 8 -K 8\npool -n 1\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no input", encoding="utf-8")
    command = [sys.executable, str(FIELD), str(tmp_path), "--target=llvm-cpu", "--count=2"]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert told.returncode == 1, told.stderr
    found = {each["input"]: each for each in json.loads(told.stdout)}
    assert list(found) == ["ops.txt", "product.mlir", "torn.mlir", "total.mlir"]
    assert found["product.mlir"]["tuned"] == {"matmul_16x16x16_f32": "2 of 2"}
    assert list(found["ops.txt"]["tuned"]) == ["matmul_8x8x8_f32"]
    assert found["ops.txt"]["left_out"]["line 2"].startswith("command: op: invalid choice: 'pool'")
    (reason,) = found["total.mlir"]["left_out"].values()
    assert reason.startswith("NothingToTile: linalg.generic has no parallel loop")
    assert found["torn.mlir"]["failed"]["torn.mlir"].startswith("CompilerRejects: torn.mlir: iree-compile rejects it: ")
    (tmp_path / "torn.mlir").unlink()
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0].split() == ["ops.txt", "llvm-cpu", "1", "tuned", "1", "left", "out", "0", "failed"]
    assert shown[-1].startswith("in all: 2 tuned, 2 left out (")
