"""Digests of machine code: names, paths and debug information make no difference, and code does, on every target."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.machine_code import machine_code
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from tests.thinned import thinned

pytestmark = pytest.mark.compiler

MODEL = """
func.func @NAME(%a: tensor<16x24xf32>, %b: tensor<24x32xf32>) -> tensor<16x32xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<16x32xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<16x32xf32>) -> tensor<16x32xf32>
  %p = linalg.matmul ins(%a, %b : tensor<16x24xf32>, tensor<24x32xf32>)
      outs(%f : tensor<16x32xf32>) -> tensor<16x32xf32>
  %k = arith.constant dense<VALUE> : tensor<16x32xf32>
  %s = arith.addf %p, %k : tensor<16x32xf32>
  %t = math.tanh %s : tensor<16x32xf32>
  return %t : tensor<16x32xf32>
}
"""


def code_of(directory: Path, compiler: Compiler, name: str, value: str = "1.5") -> str:
    sources = compiler.lower(MODEL.replace("NAME", name).replace("VALUE", value), to="executable-sources")
    out = directory / f"{name}.vmfb"
    compiler.compile_sources(sources, out)
    return machine_code(out)


@pytest.mark.parametrize("target", thinned(["llvm-cpu:x86-64-v3", "cuda:sm_80", "hip:gfx942", "vulkan:rdna3"], every=4))
def test_names_make_no_difference_and_constants_do(target: str, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse(target))
    short = code_of(tmp_path, compiler, "f")
    assert len(short) == 32
    assert code_of(tmp_path, compiler, "a_far_longer_name_that_moves_the_constants_of_the_kernel") == short
    assert code_of(tmp_path, compiler, "f", "2.5") != short


@pytest.mark.slow
def test_a_cpu_by_name_gives_the_code_of_host(tmp_path: Path) -> None:
    host = Compiler(Target.parse("llvm-cpu"))
    named = host.for_cpu(*host.host_cpu)
    assert "host" not in " ".join(named.target.flags)
    assert code_of(tmp_path, named, "f") == code_of(tmp_path, host, "f")
    assert code_of(tmp_path, host.for_cpu("x86-64", ""), "f") != code_of(tmp_path, host, "f")


def test_a_file_that_is_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.vmfb").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no compiled module"):
        machine_code(tmp_path / "x.vmfb")
