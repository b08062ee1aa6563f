"""The importance of knobs, where it is known which knob decides."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.merge_runs import read_run
from pytest_shark_tune.search.importance import FEWEST_CONFIGS, PIPELINE, importance_of_knobs

CONFIGS = [
    ("Tiling", {"wg_0": wide, "wg_1": high, "fixed": 4, "peel": peel})
    for wide, high, peel in itertools.product((8, 16, 32, 64, 128), (4, 8, 16), (0, 1))
]


def test_the_knob_that_decides_comes_first() -> None:
    ratios = [1.0 + 0.5 * (knobs["wg_0"] == 32) + 0.2 * (knobs["wg_0"] > 32) for _, knobs in CONFIGS]
    found = importance_of_knobs(CONFIGS, ratios)
    assert found is not None
    assert next(iter(found.of_knobs)) == "wg_0"
    assert found.of_knobs["wg_0"] > 0.5
    assert max(found.of_knobs["wg_1"], found.of_knobs["peel"]) < 0.1
    assert "fixed" not in found.of_knobs, "a knob with one value decides nothing"
    assert found.explained > 0.8


def test_of_noise_nothing_is_explained() -> None:
    noise = random.Random(1)
    found = importance_of_knobs(CONFIGS, [noise.uniform(0.9, 1.1) for _ in CONFIGS])
    assert found is not None
    assert found.explained < 0.3


def test_a_pipeline_counts_as_a_knob() -> None:
    both = [*CONFIGS, *(("Vectors", {"vec_0": size, "vec_1": other}) for size in (1, 2, 4, 8) for other in (1, 2, 4))]
    found = importance_of_knobs(both, [2.0 if pipeline == "Vectors" else 1.0 for pipeline, _ in both])
    assert found is not None
    assert PIPELINE in found.of_knobs


def test_the_same_results_have_the_same_importance() -> None:
    ratios = [1.0 + knobs["wg_1"] / 16 for _, knobs in CONFIGS]
    assert importance_of_knobs(CONFIGS, ratios) == importance_of_knobs(CONFIGS, ratios)


@pytest.mark.parametrize(
    ("configs", "ratios"),
    [
        (CONFIGS[: FEWEST_CONFIGS - 1], [1.0 + number for number in range(FEWEST_CONFIGS - 1)]),
        (CONFIGS, [1.5] * len(CONFIGS)),
        ([], []),
    ],
    ids=["few", "alike", "none"],
)
def test_too_little_says_nothing(configs: list[tuple[str, dict[str, int]]], ratios: list[float]) -> None:
    assert importance_of_knobs(configs, ratios) is None


def test_of_a_real_run_the_vector_sizes_decide() -> None:
    """A depthwise convolution on a CPU, whose tiles hardly matter once its vectors are right."""
    run = read_run(Path(__file__).parents[2] / "golden" / "runs" / "one_dispatch")
    records = [record for record in run.records if record.state is State.MEASURED and record.id != "default"]
    found = importance_of_knobs(
        [(record.pipeline, record.knobs) for record in records], [record.ratio or 1.0 for record in records]
    )
    assert found is not None
    assert next(iter(found.of_knobs)).startswith("vec_")
