"""Dispatches with open sizes: what they depend on, and what they are at given sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from iree.compiler import ir

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.dispatch.open_sizes import OpenDimension, fix_sizes
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.dims import parse_dims, points_of
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source, read_source
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.predicate import describe, differences, relation
from pytest_shark_tune.spec.read import read_predicates

pytestmark = pytest.mark.compiler

OPEN = ops.matmul(m=(3, 64), n=48, k=32)
INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [16, 16, 0], "
    "vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)

SOFTMAX = """
func.func @main(%x: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %first = arith.constant 0 : index
  %rows = tensor.dim %x, %first : tensor<?x40xf32>
  %e = tensor.empty(%rows) : tensor<?x40xf32>
  %0 = linalg.softmax dimension(1) ins(%x : tensor<?x40xf32>) outs(%e : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %0 : tensor<?x40xf32>
}
"""
# A sum over the open dimension of a product with another open one, which is computed from it.
REDUCTION = """
func.func @main(%x: tensor<8x?xf32>, %y: tensor<8x?xf32>) -> tensor<8xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<8xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<8xf32>) -> tensor<8xf32>
  %0 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%x, %y : tensor<8x?xf32>, tensor<8x?xf32>) outs(%f : tensor<8xf32>) {
  ^bb0(%l: f32, %r: f32, %partial: f32):
    %p = arith.mulf %l, %r : f32
    %next = arith.addf %partial, %p : f32
    linalg.yield %next : f32
  } -> tensor<8xf32>
  return %0 : tensor<8xf32>
}
"""
CONVOLUTION = """
func.func @main(%x: tensor<?x18x18x8xf32>, %w: tensor<3x3x8x16xf32>) -> tensor<?x16x16x16xf32> {
  %zero = arith.constant 0.0 : f32
  %first = arith.constant 0 : index
  %n = tensor.dim %x, %first : tensor<?x18x18x8xf32>
  %e = tensor.empty(%n) : tensor<?x16x16x16xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16x16x16xf32>) -> tensor<?x16x16x16xf32>
  %0 = linalg.conv_2d_nhwc_hwcf ins(%x, %w : tensor<?x18x18x8xf32>, tensor<3x3x8x16xf32>)
      outs(%f : tensor<?x16x16x16xf32>) -> tensor<?x16x16x16xf32>
  return %0 : tensor<?x16x16x16xf32>
}
"""


def found(compiler: Compiler, source: str | OpSource, *dims: str) -> tuple[tuple[Dispatch, ...], list[str]]:
    """The dispatches of a source, and the reasons why others are left out."""
    if isinstance(source, OpSource):
        read = read_source(source, Path())
    else:
        read = Source(name="net", text=source, is_benchmark=False, points=points_of(parse_dims(dims), ()))
    extracted = extract_dispatches([read], compiler, processors=2)
    return extracted.dispatches, [left.reason for left in extracted.untunable]


def test_without_sizes_the_reason_names_input_dimension_and_option(compiler: Compiler) -> None:
    dispatches, reasons = found(compiler, OPEN.text)
    assert dispatches == ()
    assert reasons == [
        "its sizes depend on dimension 0 of input 0 of main, which is open: give sizes, as in --tune-dim 0.0=1,16,128"
    ]
    (why,) = found(compiler, REDUCTION, "0.1=4")[1]
    assert why.startswith("its sizes depend on dimension 1 of input 1 of main, which is open")


def test_a_call_with_given_sizes_passes_constants(compiler: Compiler) -> None:
    sources = compiler.lower(OPEN.text, to="executable-sources")
    opened = fix_sizes(sources, [])
    assert opened.open == {"main_dispatch_0": (OpenDimension("main", 0, 0),)}
    sized = fix_sizes(sources, [{(0, 0): 3}, {(0, 0): 64}])
    assert sized.open == {}
    small, large = sized.calls["main_dispatch_0"]
    assert (small.point, small.constants, small.lengths) == (0, (3, 0), (3 * 32 * 4, 32 * 48 * 4, 3 * 48 * 4))
    assert (large.point, large.constants, large.lengths) == (1, (64, 0), (64 * 32 * 4, 32 * 48 * 4, 64 * 48 * 4))
    with ir.Context():
        assert "tensor<?x32xf32>" in str(ir.Module.parse(sized.text)), "the code of the dispatch stays open"


def test_a_dispatch_is_read_at_each_size(compiler: Compiler) -> None:
    ((dispatch,), reasons) = found(compiler, OPEN)
    assert (dispatch.name, reasons) == ("matmul_Dx48x32_f32", [])
    assert (dispatch.root.loops, dispatch.root.open_loops, dispatch.root.m) == ((64, 48, 32), (0,), (0,))
    assert [(member.size, member.calls) for member in dispatch.members] == [("0.0=3", 1), ("0.0=64", 1)]
    small, large = (member.module for member in dispatch.members)
    assert small.text == large.text
    assert (small.run_function, small.buffer_function) != (large.run_function, large.buffer_function)
    assert sorted(view.shape for view in small.views) == [(3, 32), (3, 48), (32, 48)]
    assert sorted(view.shape for view in large.views) == [(32, 48), (64, 32), (64, 48)]
    assert small.product is not None
    assert small.product.loops == (3, 48, 32)


@pytest.mark.parametrize(
    ("text", "dims", "name", "loops", "is_open", "length"),
    [
        (SOFTMAX, ["0.0=5,70"], "reduction_Dx40_f32", (70, 40), (0,), 40),
        (REDUCTION, ["0.1=6,50", "1.1=6,50"], "batch_matmul_like_8xD_f32", (8, 50), (1,), 50),
        (
            CONVOLUTION,
            ["0.0=1,4"],
            "conv_2d_nhwc_hwcf_Dx16x16x16_3x3x8_f32",
            (4, 16, 16, 16, 3, 3, 8),
            (0,),
            72,
        ),
    ],
    ids=["softmax", "reduction", "convolution"],
)
def test_other_ops_are_read_too(
    compiler: Compiler,
    text: str,
    dims: Sequence[str],
    name: str,
    loops: tuple[int, ...],
    is_open: tuple[int, ...],
    length: int,
) -> None:
    ((dispatch,), reasons) = found(compiler, text, *dims)
    assert (reasons, dispatch.name) == ([], name)
    assert (dispatch.root.loops, dispatch.root.open_loops) == (loops, is_open)
    numerics = dispatch.members[-1].module.numerics
    assert numerics is not None
    assert max(total.length for total in numerics.sums) == length


def test_an_entry_applies_to_open_sizes_and_to_no_fixed_ones(compiler: Compiler) -> None:
    """The fixed product has the largest of the sizes that the open one is tuned for."""
    ((dispatch,), _) = found(compiler, OPEN)
    spec = link_spec(build_spec([SpecEntry(name=dispatch.name, root=dispatch.root, compilation_info=INFO)]))
    opened = Source(name="open", text=OPEN.text, is_benchmark=False)
    application = apply_spec(opened, spec, compiler)
    assert [placed.symbol for placed in application.placements] == ["main_dispatch_0"]
    assert all(placed.by_flag for placed in application.placements), "a plain compile applies it as well"
    fixed = Source(name="fixed", text=ops.matmul(m=64, n=48, k=32).text, is_benchmark=False)
    assert apply_spec(fixed, spec, compiler).placements == ()
    marked = configure_with(dispatch.members[0].module.text, spec).applied
    assert any("distribution = [16, 16, 0]" in entry.compilation_info for entry in marked)


def test_predicates_tell_open_sizes_from_fixed_ones(compiler: Compiler) -> None:
    ((opened,), _) = found(compiler, OPEN)
    ((fixed,), _) = found(compiler, ops.matmul(m=64, n=48, k=32))
    roots = (opened.root, fixed.root, msgspec.structs.replace(fixed.root, loops=(-1, 48, 32)))
    entries = [SpecEntry(name=f"entry_{n}", root=root, compilation_info=INFO) for n, root in enumerate(roots)]
    for_open, for_fixed, for_any = read_predicates(build_spec(entries))
    assert relation(for_open, for_fixed) == "apart"
    assert (relation(for_any, for_open), relation(for_any, for_fixed)) == ("covers", "covers")
    assert "Dx48x32" in describe(for_open)
    assert differences(for_fixed, opened.root) == ("its m is D instead of 64",)
    assert differences(for_open, fixed.root) == ("its m is 64 instead of D",)
