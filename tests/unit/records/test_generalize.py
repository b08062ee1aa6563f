"""Entries that differ in one size become the fewest entries for ranges of sizes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import LoopRange
from pytest_shark_tune.records.draft import spec_of
from pytest_shark_tune.records.generalize import (
    ENOUGH_ROUNDS,
    MOST_REGRET,
    MOST_ROUNDS,
    Regret,
    Run,
    cover,
    families,
    general_record,
    regret_of,
)
from pytest_shark_tune.records.merge import MergeInput, merge
from pytest_shark_tune.records.types import WinnerRecord
from tests.factories import INFO, make_winner, matmul_root


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


def speeds(*ratios: float, rounds: int = 8, noise: float = 0.0, seed: int = 0) -> dict[int, float]:
    """Logarithms of ratios in rounds, each with noise of its own."""
    rng = random.Random(f"{ratios}{seed}")
    return {number: math.log(ratios[number % len(ratios)]) + rng.gauss(0, noise) for number in range(rounds)}


def regrets(*sizes: dict[str, float]) -> list[dict[str, Regret]]:
    """Regrets without noise."""
    return [{config: Regret.of([math.log1p(regret)] * 8) for config, regret in size.items()} for size in sizes]


def test_the_regret_is_against_the_own_entry_and_the_default() -> None:
    logs = {"own": speeds(1.1), "other": speeds(1.0), "lucky": speeds(1.3)}
    assert regret_of(logs, "other", "own").centre == pytest.approx(math.log(1.1))
    assert regret_of(logs, "own", "own").centre == 0
    assert regret_of({"own": speeds(0.8), "other": speeds(0.9)}, "other", "own").centre == pytest.approx(-math.log(0.9))
    assert regret_of(logs, "failed", "own").centre == math.inf
    # Rounds that measured only one of them say nothing.
    assert regret_of(logs | {"other": speeds(1.0, rounds=9)}, "other", "own").rounds == 8


def test_more_rounds_are_measured_only_where_they_may_tell() -> None:
    assert Regret.of([0.01] * 3).high < math.log1p(MOST_REGRET)
    assert not Regret.of([0.01] * 3).is_open
    assert Regret.of([0.0, 0.1, -0.1]).is_open
    assert not Regret.of([0.02, 0.1, -0.1] * 2).is_missed
    assert not Regret.of([0.0, 0.1, -0.1] * (ENOUGH_ROUNDS // 3)).is_open
    assert Regret.of([0.04, 0.14, -0.06] * (ENOUGH_ROUNDS // 3)).is_open
    assert not Regret.of([0.04, 0.14, -0.06] * MOST_ROUNDS).is_open
    assert Regret.of([0.1, 0.11, 0.12]).is_missed


def test_the_fewest_runs_cover_the_sizes() -> None:
    found = regrets({"a": 0, "b": 0.01}, {"a": 0, "b": 0.02}, {"a": 0.25, "b": 0}, {"a": 0.9, "b": 0.1}, {"a": 0})
    assert cover(found) == [Run(0, 2, "b"), Run(4, 4, "a")]


@given(st.lists(st.fixed_dictionaries({}, optional={name: st.floats(0, 0.1) for name in "abc"}), max_size=12))
def test_runs_keep_the_limit_and_leave_no_size_out_that_a_config_serves(sizes: list[dict[str, float]]) -> None:
    runs = cover(regrets(*sizes))
    covered = [number for run in runs for number in range(run.first, run.last + 1)]
    assert all(sizes[n][run.config] < MOST_REGRET for run in runs for n in range(run.first, run.last + 1))
    servable = [n for n, at in enumerate(sizes) if any(regret < MOST_REGRET for regret in at.values())]
    assert covered == servable
    # The first size of a run is out of reach for the config of the run before.
    for one, two in itertools.pairwise(runs):
        assert two.first > one.last + 1 or sizes[two.first].get(one.config, 1.0) >= MOST_REGRET


@pytest.mark.parametrize("seed", range(4))
def test_equivalent_configs_become_few_entries_although_each_measurement_is_noisy(seed: int) -> None:
    names = [f"config_{number}" for number in range(8)]
    found = []
    for size in range(24):
        logs = {
            name: speeds(1.2, rounds=MOST_ROUNDS, noise=0.08, seed=100 * seed + size + 7 * n)
            for n, name in enumerate(names)
        }
        found.append({name: regret_of(logs, name, names[size % 8]) for name in names})
    assert len(cover(found)) <= 4


def test_a_config_that_is_slower_at_all_sizes_serves_none_of_them_however_noisy() -> None:
    found = []
    for size in range(24):
        logs = {"own": speeds(1.2, noise=0.08, seed=size), "slow": speeds(1.1, noise=0.08, seed=size + 50)}
        found.append({"slow": regret_of(logs, "slow", "own")})
    assert sum(run.last - run.first + 1 for run in cover(found)) <= 3


def test_a_general_entry_takes_the_place_of_those_of_its_sizes() -> None:
    given_records = records([16, 32, 64, 80])
    (family,) = families(given_records)
    config = given_records[0].compilation_info
    record = general_record(family, Run(0, 2, config), [{config: speeds(ratio)} for ratio in (1.4, 1.2, 1.3, 1.0)])
    assert record.root is not None
    assert record.root.ranges == (LoopRange(loop=0, low=16, high=64, multiple=16),)
    assert record.dispatch == "matmul_16x32x16_f32_to_64"
    assert record.ratio == pytest.approx(1.2)
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
