"""Entries that differ in one size become the fewest entries for ranges of sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import LoopRange
from pytest_shark_tune.records.draft import spec_of
from pytest_shark_tune.records.generalize import MOST_REGRET, Run, cover, families, general_record, regret
from pytest_shark_tune.records.merge import MergeInput, merge
from pytest_shark_tune.records.types import WinnerRecord
from tests.factories import INFO, make_winner, matmul_root

RATIOS = st.lists(st.fixed_dictionaries({}, optional={name: st.floats(0.5, 2.0) for name in "abc"}), max_size=12)


def records(sizes: Sequence[int], *, n: int = 32, **fields: object) -> list[WinnerRecord]:
    return [
        make_winner(
            f"id{m}",
            dispatch=f"matmul_{m}x{n}x16_f32",
            root=matmul_root(m, n, 16),
            compilation_info=INFO.format(m % 3 + 1),
            **fields,
        )
        for m in sizes
    ]


def test_entries_that_differ_in_one_size_are_a_family() -> None:
    several = [*records([64, 16, 32]), *records([16, 32], n=8), *records([7], n=9)]
    largest, other = families(several)
    assert (largest.loop, largest.sizes, other.sizes) == (0, (16, 32, 64), (16, 32))
    assert str(largest) == "3 entries like matmul_16x32x16_f32 differ in loop 0: 16, 32, 64"


def test_other_devices_elements_and_kernels_are_no_family() -> None:
    here, there = records([16]), records([32], device="another CPU")
    half = [replace(each, root=matmul_root(48, 32, 16, "f16", out="f16")) for each in records([48])]
    kernel = [replace(each, root=None) for each in records([64])]
    assert families([*here, *there, *half, *kernel]) == []


def test_at_most_eight_configs_are_tried_everywhere() -> None:
    many = [replace(each, compilation_info=INFO.format(n)) for n, each in enumerate(records(range(1, 25)), 1)]
    (family,) = families(many)
    assert len(family.configs) == 8
    assert (family.configs[0], family.configs[-1]) == (INFO.format(1), INFO.format(24))


def test_the_regret_is_against_the_best_known_config_and_the_default() -> None:
    assert regret({"a": 1.1, "b": 1.0}, "b") == pytest.approx(0.1)
    assert regret({"a": 0.8}, "a") == pytest.approx(0.25)
    assert regret({"a": 1.2}, "failed") == math.inf


def test_the_fewest_runs_cover_the_sizes() -> None:
    ratios = [{"a": 1.5, "b": 1.49}, {"a": 1.5, "b": 1.48}, {"a": 1.2, "b": 1.5}, {"a": 0.5, "b": 0.9}, {"a": 1.3}]
    assert cover(ratios) == [Run(0, 2, "b"), Run(4, 4, "a")]


@given(RATIOS)
def test_runs_keep_the_limit_and_leave_no_size_out_that_a_config_serves(ratios: list[dict[str, float]]) -> None:
    runs = cover(ratios)
    covered = [number for run in runs for number in range(run.first, run.last + 1)]
    assert all(regret(ratios[n], run.config) < MOST_REGRET for run in runs for n in range(run.first, run.last + 1))
    servable = [n for n, at in enumerate(ratios) if any(regret(at, config) < MOST_REGRET for config in at)]
    assert covered == servable
    # The first size of a run is out of reach for the config of the run before.
    for one, two in itertools.pairwise(runs):
        assert two.first > one.last + 1 or regret(ratios[two.first], one.config) >= MOST_REGRET


def test_a_general_entry_takes_the_place_of_those_of_its_sizes() -> None:
    given_records = records([16, 32, 64, 80])
    (family,) = families(given_records)
    config = given_records[0].compilation_info
    record = general_record(family, Run(0, 2, config), [{config: ratio} for ratio in (1.4, 1.2, 1.3, 1.0)])
    assert record.root is not None
    assert record.root.ranges == (LoopRange(loop=0, low=16, high=64, multiple=16),)
    assert (record.dispatch, record.ratio) == ("matmul_16x32x16_f32_to_64", 1.2)
    general = MergeInput(name="general", text=spec_of([record]).text, records=(record,))
    specific = MergeInput(name="specific", text=spec_of(given_records).text, records=tuple(given_records))
    merged = merge([general, specific])
    assert [each.dispatch for each in merged.records] == [record.dispatch, "matmul_80x32x16_f32"]
    assert "dim_bounds %0[0], umin = 16, umax = 64" in merged.text
    assert "dim_is_multiple_of %0[0], 16" in merged.text
    assert families(merged.records) == []


def test_a_range_without_a_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no multiple of 4 from 9 to 8"):
        LoopRange(loop=0, low=9, high=8, multiple=4)
