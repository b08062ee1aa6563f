"""Specs of others go through all commands: the one that IREE ships for gfx942, and 50 entries of an older release."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune.cli import main
from pytest_shark_tune.spec.read import read_spec

GOLDEN = Path(__file__).parents[2] / "golden"
GFX942 = GOLDEN / "iree_default_tuning_spec_gfx942.mlir"
OLD = GOLDEN / "old_specs"
COUNT = 50
MMT = """
func.func @main(%a: tensor<2048x5120xf16>, %b: tensor<1280x5120xf16>) -> tensor<2048x1280xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<2048x1280xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<2048x1280xf32>) -> tensor<2048x1280xf32>
  %r = linalg.matmul indexing_maps = [affine_map<(d0, d1, d2) -> (d0, d2)>, affine_map<(d0, d1, d2) -> (d1, d2)>,
      affine_map<(d0, d1, d2) -> (d0, d1)>]
    ins(%a, %b : tensor<2048x5120xf16>, tensor<1280x5120xf16>) outs(%f : tensor<2048x1280xf32>) -> tensor<2048x1280xf32>
  return %r : tensor<2048x1280xf32>
}
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "300"}, catch_exceptions=False)


def guard(pytester: pytest.Pytester, model: Path, spec: Path, target: str, chosen: str = "") -> dict[str, int]:
    """The static checks of a spec in a model: how many passed, failed and were skipped."""
    checks = "parses or allowed or applies"
    options = [f"--tune-guard={spec}", f"--tune-target={target}", "--tune-cache=cache", "-n0"]
    chosen = f"{chosen} and ({checks})" if chosen else checks
    return pytester.runpytest_subprocess(model, *options, "-k", chosen).parseoutcomes()


@pytest.mark.slow
def test_irees_own_spec_goes_through_all_commands(pytester: pytest.Pytester) -> None:
    merged, ported = pytester.path / "merged.mlir", pytester.path / "ported.mlir"
    model = pytester.path / "mmt.mlir"
    model.write_text(MMT)
    assert run("show", GFX942).exit_code == 0
    assert run("merge", GFX942, GFX942, "-o", merged).stdout.endswith("2 entries, 2 dropped\n")
    assert run("diff", GFX942, merged).exit_code == 0
    options = [f"--tune-cache={pytester.path / 'cache'}", "--tune-target=hip:gfx942", "--static"]
    result = run("port", GFX942, "-o", ported, *options)
    assert result.exit_code == 0, result.output
    assert run("diff", GFX942, ported).exit_code == 0
    # With its model, an entry outside of the compiler's constraints stays as well, since it compiles.
    result = run("port", GFX942, model, "-o", ported, *options)
    assert "it matches no dispatch of the models" in result.stdout
    assert result.stdout.count("kept as it is") == 1
    (row,) = read_spec(ported.read_text())
    assert row == read_spec(GFX942.read_text())[1]
    assert guard(pytester, model, GFX942, "hip:gfx942", "match_mmt") == {"passed": 3, "deselected": 7}


def reader_of_39(directory: Path) -> Path:
    """An interpreter that answers as that of 3.9's environment did, which wrote the file and read it."""
    python = directory / "python"
    python.write_text(f'#!/bin/sh\ncat > /dev/null\ncat "{OLD / "fifty_llvm-cpu_3.9.json"}"\n')
    python.chmod(0o755)
    return python


@pytest.mark.slow
def test_fifty_entries_of_an_older_release_go_through_all_commands(pytester: pytest.Pytester) -> None:
    old, python = OLD / "fifty_llvm-cpu_3.9.mlir", reader_of_39(pytester.path)
    ported, merged = pytester.path / "ported.mlir", pytester.path / "merged.mlir"
    for command in (["show", old], ["merge", old, "-o", merged], ["diff", old, old]):
        result = run(*command)
        assert (result.exit_code, "shark-tune port" in result.stderr) == (2, True)
    options = [f"--tune-cache={pytester.path / 'cache'}", "--tune-target=llvm-cpu:x86-64-v3", "--static"]
    result = run("port", old, "-o", ported, f"--from-python={python}", *options)
    assert result.exit_code == 0, result.output
    assert f"{COUNT} of {COUNT} entries are in" in result.stderr
    assert len({row.matcher for row in read_spec(ported.read_text())}) == COUNT
    assert run("show", ported).exit_code == 0
    assert run("merge", ported, ported, "-o", merged).stdout.endswith(f"{COUNT} entries, {COUNT} dropped\n")
    assert run("diff", ported, merged).exit_code == 0
    model = pytester.path / "model.mlir"
    model.write_text(
        "func.func @main(%a: tensor<71x64xf32>, %b: tensor<64x64xf32>) -> tensor<71x64xf32> {\n"
        "  %z = arith.constant 0.0 : f32\n  %e = tensor.empty() : tensor<71x64xf32>\n"
        "  %i = linalg.fill ins(%z : f32) outs(%e : tensor<71x64xf32>) -> tensor<71x64xf32>\n"
        "  %r = linalg.matmul ins(%a, %b : tensor<71x64xf32>, tensor<64x64xf32>) outs(%i : tensor<71x64xf32>)"
        " -> tensor<71x64xf32>\n  return %r : tensor<71x64xf32>\n}\n"
    )
    found = guard(pytester, model, merged, "llvm-cpu:x86-64-v3", "match_matmul_71x64x64-")
    assert found["passed"] == 3
    assert "failed" not in found
