"""A prior of other shapes: what it finds sooner, what a wrong one costs, and which files are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search import ConfigTable, Outcome, Prior, ProblemFacts, Search, make_search, table_of_spaces
from pytest_shark_tune.search.facts import device_class
from pytest_shark_tune.search.guided import GuidedSearch
from pytest_shark_tune.search.prior import PriorConfigs, PriorShape, read_prior
from pytest_shark_tune.search.transfer import TRANSFERRED, transferred
from pytest_shark_tune.search_space import SearchSpace

SIZES = (16, 32, 64, 128, 256)
SPACE = SearchSpace.of(
    "Tiled",
    {"wg_0": SIZES, "wg_1": SIZES, "red_2": (16, 32, 64, 128), "wg_size_x": (64, 128, 256)},
    "wg_0 * wg_1 >= 16 * wg_size_x",
)
H100 = 132


def product(m: int, n: int, k: int) -> ProblemFacts:
    return ProblemFacts(
        loops=(m, n, k),
        reductions=(2,),
        operands=(((0, 2), 2.0), ((1, 2), 2.0)),
        dims={"m": 0, "n": 1, "k": 2},
        processors=H100,
    )


def times(table: ConfigTable, facts: ProblemFacts) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Times by a plain model of a device, which has nothing to do with the features' names: waves, traffic, spills."""
    found = []
    for row in range(len(table)):
        knobs = table.knobs(row)
        m, n, k = facts.loops
        workgroups = math.ceil(m / knobs["wg_0"]) * math.ceil(n / knobs["wg_1"])
        kept = knobs["wg_0"] * knobs["wg_1"] / knobs["wg_size_x"]
        loaded = (knobs["wg_0"] + knobs["wg_1"]) * k / 40
        computed = knobs["wg_0"] * knobs["wg_1"] * k / 2000 * (1 + 20 / knobs["red_2"])
        spills = 1 + max(0.0, math.log2(kept / 128)) + max(0.0, math.log2(32 / kept))
        found.append(math.ceil(workgroups / H100) * max(loaded, computed) * spills)
    return np.array(found)


TABLE = table_of_spaces([SPACE])
TRAINED = [product(1024, 1024, 512), product(4096, 512, 1024), product(512, 4096, 2048), product(2048, 2048, 2048)]
UNSEEN = product(3072, 1536, 768)


def prior_of(nearness: Callable[[ProblemFacts], list[float]]) -> Prior:
    rows = np.random.default_rng(0).permutation(len(TABLE))[:120].tolist()
    shapes = []
    for facts in TRAINED:
        every = nearness(facts)
        part = PriorConfigs(
            pipeline="Tiled 0",
            knobs=TABLE.names,
            values=tuple(tuple(TABLE.knobs(row)[name] for name in TABLE.names) for row in rows),
            nearness=tuple(every[row] for row in rows),
        )
        shapes.append(PriorShape(dispatch="product", facts=facts, configs=(part,)))
    return Prior.of("NVIDIA 9.0", "3.13.0", shapes)


def right(facts: ProblemFacts) -> list[float]:
    found = times(TABLE, facts)
    return [float(value) for value in found.min() / found]


def inverted(facts: ProblemFacts) -> list[float]:
    found = times(TABLE, facts)
    return [float(value) for value in found / found.max()]


def evaluations(guide: Prior | None, seed: int) -> int:
    """The proposals to within 5% of the best."""
    search = make_search("model", TABLE, seed=seed, facts=UNSEEN, guide=guide)
    ratios = 1 / times(TABLE, UNSEEN)
    count = 0
    while chosen := search.ask(2):
        for row in chosen:
            count += 1
            if ratios[row] >= ratios.max() / 1.05:
                return count
        search.tell(Outcome(row, float(ratios[row])) for row in chosen)
    raise AssertionError("the best config was never proposed")


def median(guide: Prior | None) -> float:
    return float(np.median([evaluations(guide, seed) for seed in range(9)]))


def test_a_prior_of_other_shapes_finds_the_best_of_an_unseen_one_in_a_few_proposals() -> None:
    assert median(prior_of(right)) <= 6 < median(None)


def test_a_wrong_prior_gets_its_first_proposals_and_no_more() -> None:
    guide = prior_of(inverted)
    search = make_search("model", TABLE, seed=1, facts=UNSEEN, guide=guide)
    assert isinstance(search, GuidedSearch)
    found = times(TABLE, UNSEEN)
    guided = []
    for _ in range(20):
        chosen = search.ask(2)
        before = search._guided
        guided.append(before)
        search.tell(Outcome(row, float(1 / found[row])) for row in chosen)
    assert guided[1] == 4
    assert search._turn == 0
    assert evaluations_more(guide) <= 4


def evaluations_more(guide: Prior) -> float:
    return median(guide) - median(None)


def test_many_configs_asked_for_at_once_leave_the_verdict_to_their_results() -> None:
    found = times(TABLE, UNSEEN)
    later = {}
    for name, guide in (("right", prior_of(right)), ("wrong", prior_of(inverted))):
        search = make_search("model", TABLE, seed=2, facts=UNSEEN, guide=guide)
        assert isinstance(search, GuidedSearch)
        first = search.ask(16)
        assert search._guided == 4
        search.tell(Outcome(row, float(1 / found[row])) for row in first)
        assert len(search.ask(16)) == 16
        later[name] = search._guided
    assert later["right"] == 8
    assert later["wrong"] not in range(4, 24)


def test_rows_to_begin_with_come_before_those_of_the_prior() -> None:
    search = make_search("model", TABLE, facts=UNSEEN, first=[7, 3], guide=prior_of(right))
    assert search.ask(2) == [7, 3]
    rows = [*search.ask(6), *search.ask(len(TABLE))]
    assert sorted([7, 3, *rows]) == list(range(len(TABLE)))
    assert search.ask(1) == []


def test_a_search_with_a_prior_never_repeats_a_row_that_an_earlier_run_tried() -> None:
    search: Search = make_search("model", TABLE, facts=UNSEEN, guide=prior_of(right))
    first = make_search("model", TABLE, facts=UNSEEN, guide=prior_of(right)).ask(4)
    search.tell(Outcome(row, 1.0) for row in first)
    assert not set(first) & set(search.ask(20))


def test_a_seed_decides() -> None:
    def course(seed: int) -> list[int]:
        search = make_search("model", TABLE, seed=seed, facts=UNSEEN, guide=prior_of(right))
        rows = []
        for _ in range(8):
            rows += (chosen := search.ask(2))
            search.tell(Outcome(row, 1.0 + row / 1000) for row in chosen)
        return rows

    assert course(1) == course(1)


def test_a_prior_says_nothing_about_pipelines_or_knobs_that_it_has_no_results_of() -> None:
    guide = prior_of(right)

    def fits(pipeline: str, knobs: Mapping[str, int], facts: ProblemFacts = UNSEEN) -> bool:
        return bool(guide.fitting_rows(ConfigTable.of([(pipeline, knobs)]), facts).any())

    knobs = {"wg_0": 16, "wg_1": 16, "red_2": 16, "wg_size_x": 64}
    assert fits("Tiled/3", knobs)
    assert fits("Tiled 1", {"wg_1": 16, "wg_2": 16, "red_3": 16, "wg_size_x": 64, "stages": 2})
    assert not fits("Tiled/3", {"wg_0": 16, "wg_1": 16, "wg_size_x": 64})
    assert not fits("Other", knobs)
    attention = ProblemFacts(
        loops=(4, 64, 64, 64, 64),
        reductions=(3, 4),
        operands=(((0, 1, 3), 2.0), ((0, 3, 4), 2.0), ((0, 2, 4), 2.0)),
        processors=H100,
    )
    assert not fits("Tiled", knobs, attention)
    other = make_search("model", ConfigTable.of([("Other", knobs)]), facts=UNSEEN, guide=guide)
    assert not isinstance(other, GuidedSearch)


def test_a_prior_is_for_one_class_of_devices_and_one_release() -> None:
    guide = prior_of(right)
    assert device_class("NVIDIA H200") == device_class("NVIDIA H100 80GB HBM3") == "NVIDIA 9.0"
    assert device_class("Some CPU", 64) == "CPU with vectors of 64 bytes"
    assert guide.misfit("NVIDIA 9.0", "3.13.1") == ""
    assert "it is for NVIDIA 9.0, and this device is gfx942" in guide.misfit(
        device_class("AMD Instinct MI300X"), "3.13"
    )
    assert "IREE 3.13.0, and this is 3.14.0" in guide.misfit("NVIDIA 9.0", "3.14.0")


def test_what_is_written_is_read() -> None:
    guide = prior_of(right)
    again = read_prior(msgspec.json.encode(guide))
    assert msgspec.json.encode(again) == msgspec.json.encode(guide)
    assert make_search("model", TABLE, facts=UNSEEN, guide=again).ask(4) == make_search(
        "model", TABLE, facts=UNSEEN, guide=guide
    ).ask(4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"shapes": []}, "no shape"),
        ({"device_class": None}, "device_class"),
        ({"shapes": [{"dispatch": "a", "facts": {}, "configs": []}]}, "no config"),
        (
            {"shapes": [{"dispatch": "a", "facts": {"loops": [8], "reductions": [5]}, "configs": []}]},
            "facts contradict",
        ),
        ({"shapes": [{"dispatch": "a", "facts": {"loops": [8], "reductions": [-1]}, "configs": []}]}, "contradict"),
        ({"shapes": [{"dispatch": "a", "facts": {"loops": [0]}, "configs": []}]}, "facts contradict"),
        ({"shapes": [{"dispatch": "a", "facts": {"processors": -1}, "configs": []}]}, "must be positive"),
    ],
)
def test_what_is_no_prior_is_refused(change: dict[str, object], words: str) -> None:
    plain = msgspec.to_builtins(prior_of(right)) | change
    with pytest.raises(InputError, match=words):
        read_prior(msgspec.json.encode(plain))


@pytest.mark.parametrize("part", [{"values": [[1]]}, {"nearness": [1.5]}, {"nearness": []}, {"values": [[1, 2]]}])
def test_tables_that_do_not_fit_together_are_refused(part: dict[str, object]) -> None:
    good: dict[str, object] = {"pipeline": "Tiled", "knobs": ["wg_0"], "values": [[1], [2]], "nearness": [1, 0.5]}
    shape = {"dispatch": "a", "facts": {}, "configs": [good | part]}
    plain = msgspec.to_builtins(prior_of(right)) | {"shapes": [shape]}
    with pytest.raises(InputError):
        read_prior(msgspec.json.encode(plain))


def test_features_carry_over_from_one_number_of_loops_to_another() -> None:
    """A convolution that is computed as a product has the product's features."""
    convolution = ProblemFacts(
        loops=(2, 8, 8, 64, 3, 3, 32),
        reductions=(4, 5, 6),
        operands=(((0, 1, 2, 4, 5, 6), 2.0), ((3, 4, 5, 6), 2.0)),
        processors=H100,
    )
    one = {"wg_0": 1, "wg_1": 4, "wg_2": 8, "wg_3": 64, "red_6": 32, "wg_size_x": 64}
    same = {"wg_0": 32, "wg_1": 64, "red_2": 32, "wg_size_x": 64}
    found = transferred(ConfigTable.of([("Tiled", one)]), convolution)[0]
    wanted = transferred(ConfigTable.of([("Tiled", same)]), product(128, 64, 288))[0]
    assert np.allclose(found, wanted, equal_nan=True), dict(
        zip(TRANSFERRED, zip(found, wanted, strict=True), strict=True)
    )


def test_steps_that_are_counted_in_matrix_instructions_are_counted_in_elements() -> None:
    knobs = {"wg_0": 64, "wg_1": 64, "mma_idx": 0, "wg_size_x": 64}
    counted = transferred(ConfigTable.of([("TileAndFuse", knobs | {"red_2": 4})]), UNSEEN)[0]
    elements = transferred(ConfigTable.of([("VectorDistribute", knobs | {"red_2": 64})]), UNSEEN)[0]
    place = TRANSFERRED.index("step k")
    assert counted[place] == elements[place] == 7
