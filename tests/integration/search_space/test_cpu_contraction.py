from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.search_space import spaces_for
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.spec.build import single_entry_spec
from tests.thinned import thinned

FUSED = """
#row = affine_map<(m, a, b) -> (m)>
#all = affine_map<(m, a, b) -> (m, a, b)>
func.func @main(%w: tensor<48x32xf32>, %x: tensor<6x32x40xf32>, %bias: tensor<48xf32>) -> tensor<48x6x40xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<48x6x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<48x6x40xf32>) -> tensor<48x6x40xf32>
  %product = linalg.generic {
    indexing_maps = [affine_map<(m, a, b, k) -> (m, k)>, affine_map<(m, a, b, k) -> (a, k, b)>,
                     affine_map<(m, a, b, k) -> (m, a, b)>],
    iterator_types = ["parallel", "parallel", "parallel", "reduction"]
  } ins(%w, %x : tensor<48x32xf32>, tensor<6x32x40xf32>) outs(%init : tensor<48x6x40xf32>) {
  ^bb0(%l: f32, %r: f32, %sum: f32):
    %p = arith.mulf %l, %r : f32
    %s = arith.addf %sum, %p : f32
    linalg.yield %s : f32
  } -> tensor<48x6x40xf32>
  %result = linalg.generic {
    indexing_maps = [#all, #row, #all], iterator_types = ["parallel", "parallel", "parallel"]
  } ins(%product, %bias : tensor<48x6x40xf32>, tensor<48xf32>) outs(%empty : tensor<48x6x40xf32>) {
  ^bb0(%p: f32, %b: f32, %out: f32):
    %s = arith.addf %p, %b : f32
    %m = arith.maximumf %s, %zero : f32
    linalg.yield %m : f32
  } -> tensor<48x6x40xf32>
  return %result : tensor<48x6x40xf32>
}
"""

SOURCES = {
    "matmul": ops.matmul(m=128, n=128, k=64, lhs="f32").text,
    "primes": ops.matmul(m=61, n=67, k=31, lhs="bf16").text,
    "transposed": ops.matmul(m=64, n=96, k=48, lhs="f16", transpose_b=True).text,
    "batch": ops.batch_matmul(batch=3, m=32, n=48, k=16, lhs="i8").text,
    "fused": FUSED,
}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"))


@pytest.mark.parametrize("source", thinned(SOURCES.values(), every=3, ids=SOURCES))
def test_sampled_configs_are_applied_and_compile(source: str, compiler: Compiler, tmp_path: Path) -> None:
    (text,) = compiler.dump_benchmarks(source, "source")
    dispatch = read_benchmark(text, "source", processors=2)
    assert isinstance(dispatch, FoundDispatch)
    (space,) = spaces_for(dispatch.root, dispatch.target)
    candidates = make_candidates("dispatch", dispatch.root, space, space.sample(3, 0))
    assert len(candidates) == 3
    for candidate in candidates:
        spec = single_entry_spec(dispatch.root, candidate.compilation_info)
        configured = configure_with(dispatch.module.text, spec)
        assert why_not_applied(configured, candidate.compilation_info) is None
        out = tmp_path / f"{candidate.id}.vmfb"
        compiler.compile_sources(configured.text, out)
        assert out.stat().st_size > 0
