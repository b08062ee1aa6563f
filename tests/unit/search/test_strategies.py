"""What every search strategy keeps, and that the one with a model finds more than chance does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search import (
    STRATEGIES,
    ConfigTable,
    ModelSearch,
    Outcome,
    PriorResult,
    ProblemFacts,
    Search,
    make_search,
    table_of_spaces,
)
from pytest_shark_tune.search_space import SearchSpace

Knobs = dict[str, int]
SIZES = (1, 2, 4, 8, 16, 32)
SPACE = SearchSpace.of("Tiled", {"wg_0": SIZES, "wg_1": SIZES, "red_2": SIZES, "thr_0": SIZES}, "wg_0 % thr_0 == 0")
FACTS = ProblemFacts(loops=(256, 256, 256), reductions=(2,), processors=4)


def ratio(knobs: Knobs, best: Knobs) -> float | None:
    """A smooth valley around ``best`` with a cliff: what takes too much memory fails."""
    if knobs["wg_0"] * knobs["red_2"] > 128:
        return None
    return math.exp(-0.3 * sum(abs(math.log2(knobs[name] / best[name])) for name in best))


BEST = {"wg_0": 16, "wg_1": 8, "red_2": 4, "thr_0": 4}


def table() -> ConfigTable:
    return table_of_spaces([SPACE])


def evaluations(search: Search, configs: ConfigTable, best: Knobs = BEST) -> int:
    """How many proposals it takes to the best config there is."""
    for count in range(1, len(configs) + 1):
        (row,) = search.ask(1)
        found = ratio(configs.knobs(row), best)
        if found == 1:
            return count
        search.tell([Outcome(row, found)])
    raise AssertionError("the best config was never proposed")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_everything_is_proposed_once_and_then_the_search_ends(strategy: str) -> None:
    configs = table_of_spaces([SPACE.where("wg_1 == 4 and red_2 >= 8")])
    search = make_search(strategy, configs, facts=FACTS)
    proposed: list[int] = []
    while rows := search.ask(5):
        assert not search.stop_reason or len(proposed) + len(rows) == len(configs)
        proposed += rows
        search.tell(Outcome(row, ratio(configs.knobs(row), BEST)) for row in rows)
    assert sorted(proposed) == list(range(len(configs)))
    assert search.stop_reason == f"all {len(configs)} configs were tried"
    assert search.expected_gain == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asking_without_telling_never_repeats_a_row(strategy: str) -> None:
    search = make_search(strategy, table())
    rows = [row for _ in range(20) for row in search.ask(3)]
    assert len(set(rows)) == len(rows) == 60


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_of_an_earlier_run_are_not_proposed_again(strategy: str) -> None:
    configs = table()
    first = make_search(strategy, configs, seed=3).ask(40)
    search = make_search(strategy, configs, seed=3)
    search.tell(Outcome(row, ratio(configs.knobs(row), BEST)) for row in first)
    assert not set(first) & set(search.ask(40))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_goes_on_where_everything_fails(strategy: str) -> None:
    search = make_search(strategy, table())
    for _ in range(15):
        rows = search.ask(2)
        assert len(rows) == 2
        search.tell(Outcome(row) for row in rows)
    assert search.expected_gain == math.inf


@pytest.mark.parametrize("strategy", ["model", "random"])
def test_a_seed_decides(strategy: str) -> None:
    def course(seed: int) -> list[int]:
        configs = table()
        search = make_search(strategy, configs, seed=seed, facts=FACTS)
        rows = []
        for _ in range(10):
            rows += (chosen := search.ask(2))
            search.tell(Outcome(row, ratio(configs.knobs(row), BEST)) for row in chosen)
        return rows

    assert course(1) == course(1) != course(2)


def test_a_uniform_search_takes_every_row_with_the_same_chance() -> None:
    first = [
        make_search("random", table_of_spaces([SPACE.where("wg_0 == 1")]), seed=seed).ask(1)[0] for seed in range(720)
    ]
    counts = np.bincount(first, minlength=36)
    # 36 rows, 20 draws each in the mean: beyond six standard deviations only by a fault.
    assert counts.size == 36
    assert np.abs(counts - 20).max() < 6 * math.sqrt(20)


def test_the_model_needs_a_fraction_of_what_chance_needs() -> None:
    configs = table()
    learned = [evaluations(ModelSearch(configs, seed, facts=FACTS), configs) for seed in range(3)]
    # One of the rows is the best: chance needs half of them in the median.
    assert np.median(learned) < len(configs) / 6


def test_the_model_learns_to_leave_alone_what_fails() -> None:
    configs = table()
    failing = np.mean([ratio(configs.knobs(row), BEST) is None for row in range(len(configs))])
    search = ModelSearch(configs, facts=FACTS)
    failed = []
    for _ in range(30):
        rows = search.ask(2)
        results = [ratio(configs.knobs(row), BEST) for row in rows]
        failed += [result is None for result in results]
        search.tell(map(Outcome, rows, results))
    assert failing > 0.08
    assert np.mean(failed[20:]) < failing / 2


def test_prior_results_of_a_similar_dispatch_raise_the_first_batch() -> None:
    configs = table()
    near = BEST | {"wg_1": 16}
    drawn = SPACE.sample(100, 1)
    prior = [PriorResult(pipeline="Tiled", knobs=each, ratio=ratio(each, near), facts=FACTS) for each in drawn]

    def first_best(prior: list[PriorResult]) -> float:
        rows = [ModelSearch(configs, seed, facts=FACTS, prior=lambda: prior).ask(6) for seed in range(5)]
        return float(np.mean([max(ratio(configs.knobs(row), BEST) or 0 for row in batch) for batch in rows]))

    assert first_best(prior) > 1.2 * first_best([])


def test_prior_results_without_a_measurement_change_nothing() -> None:
    configs = table()
    prior = [PriorResult(pipeline="Tiled", knobs=BEST, ratio=None)]
    assert ModelSearch(configs, prior=lambda: prior).ask(8) == ModelSearch(configs).ask(8)


def test_a_search_begins_next_to_the_config_that_it_is_given() -> None:
    configs = table()

    def steps(knobs: Knobs) -> float:
        return sum(abs(math.log2(knobs[name] / BEST[name])) for name in BEST)

    beside = [configs.knobs(row) for row in ModelSearch(configs, facts=FACTS, near=[("Tiled", BEST)]).ask(2)]
    assert [steps(knobs) for knobs in beside] == [1, 1], "its own time is known"
    (row,) = ModelSearch(configs, facts=FACTS, near=[("Tiled", {"wg_0": 32, "wg_1": 32})]).ask(1)
    assert configs.knobs(row)["wg_0"] == configs.knobs(row)["wg_1"] == 32
    # A pipeline or a knob that the table does not have says nothing.
    (row,) = ModelSearch(configs, facts=FACTS, near=[("Other", BEST | {"stages": 2})]).ask(1)
    assert configs.knobs(row) == BEST


def test_a_search_begins_with_what_fits_the_registers_of_a_thread() -> None:
    sizes = (16, 32, 64, 128, 256, 512)
    configs = table_of_spaces([SearchSpace.of("Threads", {"wg_0": sizes, "wg_1": sizes, "wg_size_x": (32, 64, 128)})])

    def spills(row: int) -> bool:
        knobs = configs.knobs(row)
        return knobs["wg_0"] * knobs["wg_1"] > 256 * knobs["wg_size_x"]

    shares = [sum(map(spills, ModelSearch(configs, seed).ask(12))) / 12 for seed in range(10)]
    assert sum(map(spills, range(len(configs)))) > 0.25 * len(configs)
    assert np.mean(shares) < 0.1


def test_where_time_is_short_a_search_begins_with_what_is_soon_compiled() -> None:
    """Without any result, what is unrolled tells: here the part of a tile that one thread has."""
    configs = table()

    def unrolled(*, by_time: bool) -> float:
        rows = [ModelSearch(configs, seed, facts=FACTS, by_time=by_time).ask(12) for seed in range(10)]
        return float(np.mean([configs.knobs(row)["thr_0"] >= 16 for batch in rows for row in batch]))

    assert unrolled(by_time=True) < 0.75 * unrolled(by_time=False)


def test_where_time_is_short_a_search_learns_what_configs_cost() -> None:
    configs = table()

    def seconds(knobs: Knobs) -> float:
        return float(knobs["wg_1"])

    def cost(*, by_time: bool) -> float:
        """Of the 30 proposals after 20, where nothing is faster than anything else by more than a little."""
        search = ModelSearch(configs, facts=FACTS, by_time=by_time)
        rows: list[int] = []
        for _ in range(25):
            rows += search.ask(2)
            search.tell(Outcome(row, 1 + 0.01 * (row % 7), seconds(configs.knobs(row))) for row in rows[-2:])
        return float(np.mean([seconds(configs.knobs(row)) for row in rows[20:]]))

    assert cost(by_time=True) < 0.5 * cost(by_time=False)


def test_where_time_is_short_a_search_learns_costs_from_similar_dispatches() -> None:
    configs = table()
    prior = [
        PriorResult(pipeline="Tiled", knobs=each, ratio=None, seconds=float(each["wg_1"] ** 2), facts=FACTS)
        for each in SPACE.sample(100, 1)
    ]
    prior.append(PriorResult(pipeline="Tiled", knobs=BEST, ratio=1.0, seconds=8.0, facts=FACTS))

    def cost(prior: list[PriorResult]) -> float:
        rows = [ModelSearch(configs, seed, facts=FACTS, prior=lambda: prior, by_time=True).ask(12) for seed in range(5)]
        return float(np.mean([configs.knobs(row)["wg_1"] for batch in rows for row in batch]))

    assert cost(prior) < 0.7 * cost([])


def test_the_end_of_a_budget_is_spent_next_to_the_best() -> None:
    configs = table()

    def last_steps(budget: int | None) -> float:
        search = ModelSearch(configs, facts=FACTS, budget=budget)
        best: Knobs = {}
        distances = []
        for count in range(60):
            (row,) = search.ask(1)
            knobs = configs.knobs(row)
            found = ratio(knobs, {"wg_0": 16, "wg_1": 8, "red_2": 4, "thr_0": 2})
            if count >= 54 and best:
                distances.append(sum(abs(math.log2(knobs[name] / best[name])) for name in knobs))
            if found and found > (ratio(best, BEST) or 0 if best else 0):
                best = knobs
            search.tell([Outcome(row, found)])
        return float(np.mean(distances))

    assert last_steps(60) < last_steps(None)


def test_expected_gain_falls_as_the_model_learns() -> None:
    configs = table()
    search = ModelSearch(configs, facts=FACTS)
    gains = []
    for _ in range(40):
        rows = search.ask(2)
        gains.append(search.expected_gain)
        search.tell(Outcome(row, ratio(configs.knobs(row), BEST)) for row in rows)
    assert gains[0] == math.inf
    assert 0 < gains[-1] < max(gain for gain in gains if gain < math.inf) / 3


def test_a_large_answer_has_no_row_twice() -> None:
    configs = ConfigTable.of(("Tiled", {"wg_0": index + 1}) for index in range(5000))
    search = ModelSearch(configs)
    first = search.ask(8)
    search.tell(Outcome(row, 1 + row / 5000) for row in first)
    following = search.ask(4990)
    assert sorted([*first, *following, *search.ask(9)]) == list(range(5000))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_space_of_a_few_configs_is_no_special_case(count: int) -> None:
    configs = ConfigTable.of(("Tiled", {"wg_0": 1 << index}) for index in range(count))
    search: Search = ModelSearch(configs)
    assert sorted(search.ask(8)) == list(range(count))
    assert search.ask(1) == []


Maker = Callable[[], ConfigTable]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConfigTable.of([]), "no config"),
        (lambda: ConfigTable.of([("A", {"x": 1}), ("A", {"x": 1})]), "given twice"),
    ],
)
def test_a_table_of_nothing_or_of_duplicates_is_refused(make: Maker, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_a_table_keeps_order_and_tells_pipelines_apart() -> None:
    given = [("A", {"x": 1}), ("B", {"x": 1, "y": 2}), ("A", {"x": 2})]
    configs = ConfigTable.of(given)
    assert [(configs.pipeline(row), configs.knobs(row)) for row in range(3)] == given


def test_of_more_configs_than_wanted_a_sample_is_taken_and_said_so() -> None:
    whole = table_of_spaces([SPACE])
    part = table_of_spaces([SPACE], most=100, seed=1)
    assert len(whole) == len(SPACE)
    assert whole.note == ""
    assert len(part) == 100
    assert part.note == f"a uniform sample of 100 of {len(SPACE)} configs"
    assert all(part.knobs(row) in SPACE for row in range(100))


def test_a_space_too_large_to_list_is_sampled() -> None:
    many = {f"knob_{index}": range(1, 40) for index in range(6)}
    configs = table_of_spaces([SPACE, SearchSpace.of("Large", many)], most=2 * len(SPACE))
    assert len(configs) == 2 * len(SPACE)
    assert configs.note.startswith(f"a uniform sample of {2 * len(SPACE)} of more than")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_takes_the_rows_that_it_is_to_begin_with_first_and_once(strategy: str) -> None:
    configs = table_of_spaces([SPACE.where("wg_1 == 4 and red_2 >= 8")])
    search = make_search(strategy, configs, first=[7, 3])
    assert search.ask(2) == [7, 3]
    assert sorted([7, 3, *search.ask(len(configs))]) == list(range(len(configs)))
