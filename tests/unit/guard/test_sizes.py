"""Sizes inside the range of an entry are drawn by a seed, and those that were measured are left out."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import LoopRange
from pytest_shark_tune.guard.sizes import draw_sizes
from pytest_shark_tune.ops.standalone import resized, standalone_op
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.draft import spec_of
from pytest_shark_tune.records.generalize import Run, families, general_record
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.spec.takers import takers
from tests.factories import INFO, make_winner, matmul_root


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 8), st.integers(0, 99), st.data())
def test_drawn_sizes_are_in_the_range_and_new(
    low: int, more: int, multiple: int, seed: int, data: st.DataObject
) -> None:
    span = LoopRange(loop=0, low=low, high=low + more, multiple=multiple)
    inside = [size for size in range(span.low, span.high + 1) if size % multiple == 0]
    seen = set(data.draw(st.lists(st.sampled_from(inside)))) if inside else set()
    drawn = draw_sizes(span, seen, seed)
    assert len(set(drawn)) == len(drawn) == min(3, len(set(inside) - seen))
    assert set(drawn) <= set(inside) - seen
    assert drawn == draw_sizes(span, seen, seed)


def test_a_large_range_is_drawn_from_without_listing_it() -> None:
    drawn = draw_sizes(LoopRange(loop=0, low=1, high=2**60, multiple=2), {2}, 0)
    assert len(drawn) == 3
    assert len({*drawn, *draw_sizes(LoopRange(loop=0, low=1, high=2**60, multiple=2), {2}, 1)}) == 6


def test_a_general_matcher_takes_the_sizes_of_its_range_alone() -> None:
    records = [
        make_winner(f"id{m}", dispatch=f"matmul_{m}", root=matmul_root(m, 32, 16), compilation_info=INFO.format(8))
        for m in (16, 64)
    ]
    (family,) = families(records)
    record = general_record(family, Run(0, 1, INFO.format(8)), [{INFO.format(8): {0: math.log(1.2)}}] * 2)
    spec = spec_of([record]).text
    assert record.root is not None
    ops = [standalone_op(f"m{m}", resized(record.root, 0, m)) for m in (16, 24, 48, 64, 80)]
    sources = [Source(name=op.name, text=op.text, is_benchmark=False, is_op=True) for op in ops]
    dispatches = extract_dispatches(sources, Compiler(Target.parse("llvm-cpu:x86-64-v3")), 2).dispatches
    matchers = [row.matcher for row in read_spec(spec)]
    taken = {dispatch.root.loops[0]: bool(takers(dispatch, spec, matchers)) for dispatch in dispatches}
    assert taken == {16: True, 24: False, 48: True, 64: True, 80: False}
