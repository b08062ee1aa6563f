"""Search spaces of transposes, elementwise ops and reductions on GPUs, with the real compiler and without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces, spaces_from
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.search_space.config_reader import knobs_of
from pytest_shark_tune.spec.build import single_entry_spec
from pytest_shark_tune.spec.read import read_spec, with_configs
from tests.gpu_dispatches import extracted, failing
from tests.thinned import thinned

GPUS = ("hip:gfx942", "cuda:sm_89")


def tensor(sizes: tuple[int, ...], element: str) -> str:
    return f"tensor<{'x'.join(map(str, sizes))}x{element}>"


def transpose(sizes: tuple[int, ...], order: tuple[int, ...], element: str = "f16") -> OpSource:
    taken, given = tensor(sizes, element), tensor(tuple(sizes[dim] for dim in order), element)
    return OpSource(
        f"transpose_{'_'.join(map(str, sizes))}",
        f"""
        func.func @main(%x: {taken}) -> {given} {{
          %empty = tensor.empty() : {given}
          %y = linalg.transpose ins(%x : {taken}) outs(%empty : {given}) permutation = [{", ".join(map(str, order))}]
          return %y : {given}
        }}
        """,
    )


def add(rows: int, columns: int) -> OpSource:
    kind = tensor((rows, columns), "f16")
    return OpSource(
        f"add_{rows}_{columns}",
        f"""
        #rows = affine_map<(d0, d1) -> (d0, d1)>
        func.func @main(%x: {kind}, %y: {kind}) -> {kind} {{
          %empty = tensor.empty() : {kind}
          %z = linalg.generic {{indexing_maps = [#rows, #rows, #rows], iterator_types = ["parallel", "parallel"]}}
            ins(%x, %y : {kind}, {kind}) outs(%empty : {kind}) {{
          ^bb0(%a: f16, %b: f16, %o: f16):
            %sum = arith.addf %a, %b : f16
            linalg.yield %sum : f16
          }} -> {kind}
          return %z : {kind}
        }}
        """,
    )


def sums(rows: int, columns: int, along: int) -> OpSource:
    taken, given = tensor((rows, columns), "f32"), tensor(((rows, columns)[1 - along],), "f32")
    return OpSource(
        f"sums_{rows}_{columns}_{along}",
        f"""
        func.func @main(%x: {taken}) -> {given} {{
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : {given}
          %zeros = linalg.fill ins(%zero : f32) outs(%empty : {given}) -> {given}
          %y = linalg.reduce {{ arith.addf }} ins(%x : {taken}) outs(%zeros : {given}) dimensions = [{along}]
          return %y : {given}
        }}
        """,
    )


def softmax(rows: int, columns: int) -> OpSource:
    kind = tensor((rows, columns), "f16")
    return OpSource(
        f"softmax_{rows}_{columns}",
        f"""
        func.func @main(%x: {kind}) -> {kind} {{
          %empty = tensor.empty() : {kind}
          %y = linalg.softmax dimension(1) ins(%x : {kind}) outs(%empty : {kind}) -> {kind}
          return %y : {kind}
        }}
        """,
    )


def pooling(image: int, channels: int) -> OpSource:
    taken, window = tensor((1, image, image, channels), "f16"), tensor((2, 2), "f16")
    given = tensor((1, image // 2, image // 2, channels), "f16")
    steps = "{strides = dense<2> : vector<2xi64>, dilations = dense<1> : vector<2xi64>}"
    return OpSource(
        f"pooling_{image}_{channels}",
        f"""
        func.func @main(%x: {taken}) -> {given} {{
          %least = arith.constant 0xFC00 : f16
          %window = tensor.empty() : {window}
          %empty = tensor.empty() : {given}
          %init = linalg.fill ins(%least : f16) outs(%empty : {given}) -> {given}
          %y = linalg.pooling_nhwc_max {steps} ins(%x, %window : {taken}, {window}) outs(%init : {given}) -> {given}
          return %y : {given}
        }}
        """,
    )


def dot(length: int) -> OpSource:
    kind = tensor((length,), "f16")
    return OpSource(
        f"dot_{length}",
        f"""
        func.func @main(%x: {kind}, %y: {kind}) -> tensor<f32> {{
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : tensor<f32>
          %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<f32>) -> tensor<f32>
          %sum = linalg.dot ins(%x, %y : {kind}, {kind}) outs(%zeros : tensor<f32>) -> tensor<f32>
          return %sum : tensor<f32>
        }}
        """,
    )


def matvec(rows: int, columns: int) -> OpSource:
    matrix, vector, given = tensor((rows, columns), "f16"), tensor((columns,), "f16"), tensor((rows,), "f32")
    return OpSource(
        f"matvec_{rows}_{columns}",
        f"""
        func.func @main(%a: {matrix}, %x: {vector}) -> {given} {{
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : {given}
          %zeros = linalg.fill ins(%zero : f32) outs(%empty : {given}) -> {given}
          %y = linalg.matvec ins(%a, %x : {matrix}, {vector}) outs(%zeros : {given}) -> {given}
          return %y : {given}
        }}
        """,
    )


COLORS = ops.conv_2d(
    batch=1, height=29, width=29, channels=3, filters=64, kernel_height=7, kernel_width=7, stride=2, lhs="f16"
)
"""A convolution with so few channels that the depth of no matrix instruction divides them."""
COMPILING = [
    (transpose((256, 512), (1, 0)), 2),
    (transpose((4, 64, 16, 64), (0, 2, 1, 3)), 2),
    (add(256, 512), 2),
    (sums(128, 1024, 1), 2),
    (matvec(64, 512), 2),
    (softmax(128, 512), 2),
    (pooling(28, 64), 2),
    *(
        pytest.param(op, 20, marks=pytest.mark.slow)
        for op in (
            transpose((77, 300), (1, 0), "f32"),
            transpose((8, 96, 200), (2, 0, 1)),
            transpose((1024, 2048), (1, 0)),
            add(77, 300),
            sums(512, 1000, 1),
            sums(512, 1024, 0),
            dot(4096),
            softmax(77, 1000),
            softmax(64, 4096),
            pooling(112, 64),
            sums(512, 49, 1),
            ops.layer_norm(rows=128, columns=768, element="f16"),
            ops.rms_norm(rows=64, columns=4096, element="f16"),
            ops.layer_norm(rows=200, columns=1000, element="f32"),
            COLORS,
        )
    ),
]


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize(("op", "count"), thinned(COMPILING, every=6))
def test_nine_in_ten_candidates_compile(target: str, op: OpSource, count: int, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse(target))
    for dispatch in extract_dispatches([read_source(op, Path())], compiler, processors=1).dispatches:
        for space in search_spaces(dispatch, compiler):
            candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(count, 0))
            failed = failing(compiler, dispatch, candidates, tmp_path)
            assert len(failed) <= count / 10, failed


def test_the_other_ops_of_a_softmax_get_the_levels_of_its_root() -> None:
    _, dispatch = extracted("hip:gfx942", softmax(128, 512))
    (space,) = stated_or_built(dispatch)
    one, other = make_candidates(dispatch.name, dispatch.root, space, space.sample(2, 0))
    assert knobs_of(space, one.compilation_info) == one.knobs
    spec = single_entry_spec(dispatch.root, other.compilation_info)
    spec = with_configs(spec, {"match_candidate": one.compilation_info})
    assert [row.compilation_info for row in read_spec(spec)] == [one.compilation_info]
    text = configure_with(dispatch.members[0].module.text, spec).text
    greatest, root, result = [line for line in text.splitlines() if "lowering_config" in line]
    step = f"[0, {one.knobs['red_1']}], subgroup_basis = [[1, {one.knobs['sg_cnt']}], [0, 1]]"
    assert f"partial_reduction = {step}" in greatest
    assert "workgroup" not in greatest
    assert f"thread = [0, {one.knobs['thr_1']}], workgroup = [{one.knobs['wg_0']}, 0]" in root
    assert f"serial = {step}" in result


def test_an_entry_for_fused_ops_does_not_apply_where_they_are_absent() -> None:
    _, fused = extracted("hip:gfx942", softmax(128, 512))
    _, alone = extracted("hip:gfx942", sums(128, 512, 1))
    (space,) = stated_or_built(fused)
    (candidate,) = make_candidates(fused.name, fused.root, space, space.sample(1, 0))
    # Nothing takes the result of this root.
    spec = single_entry_spec(alone.root, candidate.compilation_info)
    configured = configure_with(alone.members[0].module.text, spec)
    assert why_not_applied(configured, candidate.compilation_info) is not None


@pytest.mark.parametrize("target", GPUS)
def test_a_convolution_of_colors_is_a_product_after_im2col(target: str) -> None:
    _, dispatch = extracted(target, COLORS)
    (space,) = stated_or_built(dispatch)
    assert {knob.name: knob.domain for knob in space.knobs}["use_igemm_idx"] == (1,)


@pytest.mark.parametrize("target", GPUS)
def test_a_softmax_of_columns_has_a_space(target: str) -> None:
    text = softmax(128, 512).text.replace("dimension(1)", "dimension(0)")
    _, dispatch = extracted(target, OpSource("softmax_of_columns", text))
    assert all(space for space in stated_or_built(dispatch))


def stated_or_built(dispatch: Dispatch) -> tuple[SearchSpace, ...]:
    """The spaces of a dispatch for which the compiler states no constraints."""
    return spaces_from(dispatch, "")
