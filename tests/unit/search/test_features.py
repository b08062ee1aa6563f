"""Features say what the knobs mean, by numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.search import ConfigTable, ProblemFacts
from pytest_shark_tune.search.facts import facts_of, gpu_processors
from pytest_shark_tune.search.features import features_of

FACTS = ProblemFacts(
    loops=(256, 768, 512),
    reductions=(2,),
    operands=(((0, 2), 2.0), ((1, 2), 2.0)),
    dims={"m": 0, "n": 1, "k": 2},
    processors=10,
)
KNOBS = {"wg_0": 64, "wg_1": 128, "red_2": 32, "sg_m_cnt": 2, "sg_n_cnt": 4, "wg_size_x": 256}
OTHER = {"wg_0": 16, "wg_1": 16, "red_2": 64, "sg_m_cnt": 1, "sg_n_cnt": 1, "wg_size_x": 32}


def first(facts: ProblemFacts | None, knobs: dict[str, int], other: dict[str, int]) -> dict[str, float]:
    features = features_of(ConfigTable.of([("Distribute", knobs), ("Fuse", other)]), facts)
    return dict(zip(features.names, features.values[0].tolist(), strict=True))


def test_a_matrix_product_on_a_gpu() -> None:
    found = first(FACTS, KNOBS, OTHER)
    workgroups = (256 // 64) * (768 // 128)
    expected = {
        "tile volume": math.log2(64 * 128),
        "step volume": math.log2(64 * 128 * 32),
        "aspect 0 1": math.log2(64 / 128),
        "part volume": math.log2((64 // 2) * (128 // 4)),
        "part intensity": math.log2(32 * 32 / (32 + 32)),
        "threads": math.log2(256),
        "results per thread": math.log2(64 * 128 / 256),
        "work per thread": math.log2(64 * 128 * 32 / 256),
        "operand bytes": math.log2(2 * 32 * (64 + 128)),
        "intensity": math.log2(64 * 128 * 32 / (2 * 32 * (64 + 128))),
        "waves": math.log2(workgroups / 10),
        "last wave": math.log2(3 / (workgroups / 10)),
        "steps 2": math.log2(512 / 32),
        "pipeline Distribute": 1,
        "pipeline Fuse": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_vector_tile_of_a_reduction_is_its_step_on_a_cpu() -> None:
    knobs = {"dist_0": 64, "dist_1": 100, "vec_0": 8, "vec_1": 16, "vec_2": 4, "peel": 0}
    found = first(FACTS, knobs, {**knobs, "dist_0": 32, "dist_1": 768, "vec_1": 32, "vec_2": 8, "peel": 1, "vec_0": 2})
    assert found["step volume"] == pytest.approx(math.log2(64 * 100 * 4))
    assert found["split 0"] == pytest.approx(math.log2(64 / 8))
    assert found["part volume"] == pytest.approx(math.log2(8 * 16))
    assert found["ragged"] == pytest.approx(math.log2(800 / 768))
    assert found["peel"] == -1


def test_knobs_that_name_classes_of_loops_are_put_to_their_loops() -> None:
    facts = ProblemFacts(loops=(20, 1024, 64, 64, 512), reductions=(3, 4), dims={"m": 1, "n": 2, "k1": 3, "k2": 4})
    found = first(facts, {"m_tile": 128, "red_k2": 64, "sg_m_cnt": 4}, {"m_tile": 64, "red_k2": 32, "sg_m_cnt": 1})
    assert found["steps 4"] == pytest.approx(math.log2(512 / 64))
    assert found["split 1"] == pytest.approx(math.log2(128 / 4))


def test_without_facts_what_they_tell_is_left_out_and_the_rest_stays() -> None:
    found = first(None, KNOBS, OTHER)
    assert found["part volume"] == pytest.approx(math.log2(32 * 32))
    assert not {"waves", "last wave", "ragged", "steps 2"} & set(found)


def test_knobs_of_unknown_names_are_features_as_they_are() -> None:
    found = first(None, {"bi": 8, "unroll": 0}, {"bi": 16, "unroll": 1})
    assert found == {"bi": 3, "unroll": -1, "pipeline Distribute": 1, "pipeline Fuse": 0}


def test_what_is_the_same_for_all_is_no_feature_and_what_a_pipeline_lacks_is_nan() -> None:
    features = features_of(ConfigTable.of([("A", {"x": 2, "y": 4}), ("A", {"x": 4, "y": 4}), ("B", {"y": 4})]))
    assert features.names == ("x", "pipeline A", "pipeline B")
    np.testing.assert_equal(features.values[:, 0], [1, 2, math.nan])


def test_the_features_of_another_table_can_be_asked_for() -> None:
    table = ConfigTable.of([("A", {"x": 2})])
    features = features_of(table, names=("x", "z", "pipeline A", "pipeline B"))
    np.testing.assert_equal(features.values, [[1, math.nan, 1, math.nan]])


@pytest.mark.parametrize(
    ("device", "count"),
    [
        ("NVIDIA H100 80GB HBM3", 132),
        ("NVIDIA H100 PCIe", 114),
        ("NVIDIA A100-SXM4-80GB", 108),
        ("NVIDIA A10", 72),
        ("AMD Instinct MI300X", 304),
        ("a name of our own", 0),
    ],
)
def test_multiprocessors_are_known_by_the_devices_name(device: str, count: int) -> None:
    assert gpu_processors(device) == count


def test_the_facts_of_a_dispatch_are_its_root_ops_and_its_targets(plan: Plan) -> None:
    dispatch = plan.tasks[0].dispatch
    facts = facts_of(dispatch.root, dispatch.target, "any processor")
    assert facts == ProblemFacts(
        loops=(64, 96, 128),
        reductions=(2,),
        operands=(((0, 2), 4.0), ((1, 2), 4.0)),
        dims={"m": 0, "n": 1, "k": 2},
        processors=2,
    )
