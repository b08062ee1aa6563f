"""Steps, drifts and the spread between runs, in made-up series of known noise."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_shark_tune.measurement.change_points import find_drift, find_steps, spread_between

SPREAD = 0.005
"""The spread of a quiet machine."""


def noise(seed: int, count: int, spread: float = SPREAD) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(0.0, spread, count)]


@pytest.mark.parametrize("seed", range(4))
def test_a_step_of_four_percent_is_found_where_it_is(seed: int) -> None:
    (step,) = find_steps([*noise(seed, 20), *(value - 0.04 for value in noise(seed + 100, 8))])
    assert step.position == 20
    assert step.change == pytest.approx(-0.04, abs=0.006)


@pytest.mark.parametrize("seed", range(4))
def test_a_drift_of_two_percent_is_found_and_is_no_step(seed: int) -> None:
    values = [value - 0.023 * place / 39 for place, value in enumerate(noise(seed, 40))]
    drift = find_drift(values)
    assert drift is not None
    assert drift.change == pytest.approx(-0.023, abs=0.006)
    assert 5 <= drift.start <= 30


@pytest.mark.parametrize("seed", range(8))
def test_flat_noise_has_neither(seed: int) -> None:
    values = noise(seed, 60)
    assert not find_steps(values)
    assert find_drift(values) is None


def test_few_runs_and_short_disturbances_are_no_step() -> None:
    assert not find_steps([0.0, 0.0, 0.0, 0.1, 0.1, 0.1])
    disturbed = [*noise(1, 20), -0.11, -0.11, *noise(2, 10)]
    assert not find_steps(disturbed)


def test_equal_values_are_no_reason_to_fail() -> None:
    assert not find_steps([0.5] * 20)
    assert find_drift([0.5] * 20) is None


def test_the_spread_between_runs_leaves_out_that_within_them() -> None:
    random = np.random.default_rng(0)
    series = []
    for level in (0.0, 0.3, 0.7):
        values = level + random.normal(0.0, 0.02, 60) + random.normal(0.0, 0.01, 60)
        series.append((values.tolist(), [0.01] * 60))
    spread = spread_between(series)
    assert spread.freedom == 3 * 59
    assert spread.deviation == pytest.approx(0.02, rel=0.15)
    assert spread_between([([0.1], [0.0])]) == (0.0, 0)
    assert spread_between([([0.1, 0.1, 0.1], [0.2] * 3)]).deviation == 0.0
