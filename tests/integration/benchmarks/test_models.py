"""`benchmarks/models.py`: default and tuned model side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.spec.build import SpecEntry, build_spec

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "models.py"
INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [16, 16, 0], "
    "vector_common_parallel = [4, 8, 0], vector_reduction = [0, 0, 2]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)


@pytest.mark.slow
def test_it_compares_a_tuned_model_with_the_default(tmp_path: Path) -> None:
    op = ops.matmul(m=64, n=64, k=64)
    (dispatch,) = extract_dispatches([read_source(op, Path())], Compiler(Target.parse("llvm-cpu")), 2).dispatches
    model, spec, out = (tmp_path / name for name in ("model.mlir", "spec.mlir", "out.json"))
    model.write_text(op.text)
    spec.write_text(build_spec([SpecEntry(name=dispatch.name, root=dispatch.root, compilation_info=INFO)]))
    command = [sys.executable, *map(str, (SCRIPT, model, "--spec", spec, "--rounds", 2, "--json", out))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(out.read_text())
    default, tuned = report["rows"]
    assert [default["name"], tuned["name"]] == ["IREE default", "IREE tuned"]
    assert report["inputs"] == ["64x64xf32", "64x64xf32"]
    assert report["entries"] == [f"main_dispatch_0: match_{dispatch.name}"]
    assert tuned["ratio_low"] <= tuned["ratio"] <= tuned["ratio_high"]
    assert tuned["from_default"]["relative"] < 1e-5
    assert any("no ONNX model" in note for note in report["notes"])
    assert "differs from IREE's default by" in printed
