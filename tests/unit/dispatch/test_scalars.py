"""Dispatches that take scalars known only at run time: the values that their benchmarks pass, by the real compiler."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from iree.compiler import ir

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.integers import evaluate
from pytest_shark_tune.dispatch.mlir import ops_named, walk
from pytest_shark_tune.dispatch.scalars import bind_scalars
from pytest_shark_tune.plan.extract import Extracted, extract_dispatches
from pytest_shark_tune.plan.source import Source
from tests.scalar_models import COUNTED, INDEXED, QUANTIZED, ROWS, STACK, SWITCHED, WIDENINGS, ZERO_POINTS, scaled
from tests.thinned import thinned

pytestmark = pytest.mark.compiler

OPEN = """
func.func @main(%a: tensor<?x96xf32>, %b: tensor<96x128xf32>, %c: tensor<?x128xf32>) -> tensor<?x128xf32> {
  %r = linalg.matmul ins(%a, %b : tensor<?x96xf32>, tensor<96x128xf32>)
                     outs(%c : tensor<?x128xf32>) -> tensor<?x128xf32>
  return %r : tensor<?x128xf32>
}
"""


def extract(text: str, target: str = "llvm-cpu:x86-64-v3") -> Extracted:
    source = Source(name="model", text=text, is_benchmark=False)
    return extract_dispatches([source], Compiler(Target.parse(target)), processors=2)


def passed(text: str, compiler: Compiler) -> list[int]:
    """The scalars that the last dispatch of a model gets in its benchmark, as i32."""
    bound = bind_scalars(compiler.lower(text, to="executable-sources"))
    with ir.Context():
        module = ir.Module.parse(bound.text)
        *_, call = ops_named(module.operation, "stream.cmd.dispatch")
        workload, count, *_ = ir.DenseI32ArrayAttr(call.attributes["operandSegmentSizes"])
        return [evaluate(operand) for operand in list(call.operands)[workload : workload + count]]


@pytest.mark.parametrize("element", thinned(WIDENINGS, every=2))
@pytest.mark.parametrize("target", thinned(["cuda:sm_89", "llvm-cpu:x86-64-v3"], every=2))
def test_a_product_with_factors_from_the_caller_is_found(element: str, target: str) -> None:
    found = extract(scaled(element), target)
    assert found.untunable == ()
    (dispatch,) = found.dispatches
    assert (dispatch.root.kind, dispatch.root.loops) == ("contraction", (64, 128, 96))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (ROWS, 1),
        (STACK.replace("SIZE", "8"), 1),
        (ZERO_POINTS, 3),
        (INDEXED, 1),
        (COUNTED, 1),
        (SWITCHED, 1),
        (QUANTIZED, 4),
    ],
)
@pytest.mark.parametrize("target", thinned(["llvm-cpu:x86-64-v3", "cuda:sm_89"], every=2))
def test_offsets_indices_and_zero_points_are_found_too(text: str, count: int, target: str) -> None:
    found = extract(text, target)
    assert found.untunable == ()
    assert len(found.dispatches) == count
    assert {"contraction", "convolution"} & {dispatch.root.kind for dispatch in found.dispatches}


def test_factors_are_floats_that_are_neither_0_nor_1_and_differ(compiler: Compiler) -> None:
    values = [struct.unpack("<f", struct.pack("<i", bits))[0] for bits in passed(scaled("f32"), compiler)]
    assert len(set(values)) == 2
    assert all(0.25 < value < 4 and value != 1 for value in values)


def test_factors_of_half_precision_are_such_floats_in_the_lower_half(compiler: Compiler) -> None:
    values = [struct.unpack("<e", struct.pack("<h", bits))[0] for bits in passed(scaled("f16"), compiler)]
    assert len(set(values)) == 2
    assert all(0.25 < value < 4 and value != 1 for value in values)


def test_values_are_the_same_again(compiler: Compiler) -> None:
    assert passed(scaled("i64"), compiler) == passed(scaled("i64"), compiler)


def test_zero_points_are_small_and_their_products_fit_them(compiler: Compiler) -> None:
    a, b, product = passed(ZERO_POINTS, compiler)
    assert 0 < a < 8
    assert 0 < b < 8
    assert product == 96 * a * b


def test_a_loops_index_is_one_that_the_loop_has_and_offsets_follow_it(compiler: Compiler) -> None:
    low, high, row, row_high = passed(ROWS, compiler)
    assert row in range(64, 512, 64)
    assert (low, high, row_high) == (row * 128 * 4, 0, 0)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_an_index_stays_inside_its_operand(compiler: Compiler, size: int) -> None:
    low, *_ = passed(STACK.replace("SIZE", str(size)), compiler)
    assert 0 <= low < size


def test_the_code_of_a_dispatch_stays_open(compiler: Compiler) -> None:
    text = compiler.lower(scaled("f32"), to="executable-sources")
    assert executables(bind_scalars(text).text) == executables(text)


def test_open_sizes_are_not_taken_for_scalars(compiler: Compiler) -> None:
    bound = bind_scalars(compiler.lower(OPEN, to="executable-sources"))
    assert (bound.bound, bound.unbound) == ((), {})
    (left_out,) = extract(OPEN).untunable
    assert "--tune-dim 0.0=1,16,128" in left_out.reason


def executables(text: str) -> list[str]:
    with ir.Context():
        module = ir.Module.parse(text)
        return [str(op) for op in walk(module.operation) if op.name == "hal.executable"]


def test_benchmark_files_pass_the_values_when_dumped_again(tmp_path: Path) -> None:
    (dispatch,) = extract(scaled("f32")).dispatches
    module = dispatch.members[0].module
    path = tmp_path / "dumped.mlir"
    path.write_text(module.text, encoding="utf-8")
    found = extract_dispatches(
        [Source(name="dumped", text=path.read_text(encoding="utf-8"), is_benchmark=True)],
        Compiler(Target.parse("llvm-cpu:x86-64-v3")),
        processors=2,
    )
    assert [each.root for each in found.dispatches] == [dispatch.root]
