"""Search spaces of transposes, elementwise ops and reductions on GPUs, with the real compiler and without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import NoSpace
from pytest_shark_tune.search_space.candidate import make_candidates
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


COMPILING = [
    (transpose((256, 512), (1, 0)), 2),
    (transpose((4, 64, 16, 64), (0, 2, 1, 3)), 2),
    (add(256, 512), 2),
    (sums(128, 1024, 1), 2),
    (matvec(64, 512), 2),
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
        )
    ),
]


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize(("op", "count"), thinned(COMPILING, every=3))
def test_nine_in_ten_candidates_compile(target: str, op: OpSource, count: int, tmp_path: Path) -> None:
    compiler, dispatch = extracted(target, op)
    for space in search_spaces(dispatch, compiler):
        candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(count, 0))
        failed = failing(compiler, dispatch, candidates, tmp_path)
        assert len(failed) <= count / 10, failed


@pytest.mark.parametrize("target", GPUS)
def test_a_dispatch_whose_ops_all_need_a_config_is_left_out_with_the_reason(target: str) -> None:
    compiler, dispatch = extracted(target, softmax(128, 512))
    with pytest.raises(NoSpace, match="needs a config for several ops of this dispatch"):
        search_spaces(dispatch, compiler)
