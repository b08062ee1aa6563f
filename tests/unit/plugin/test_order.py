"""The order of a run, without pytest and without xdist."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from pytest_shark_tune.plan.roles import Phase
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.search import ExhaustiveSearch
from pytest_shark_tune.tuning.scheduler import TaskScheduler, TaskState

ORDINARY, CANDIDATE, FINAL, SPEC = Phase.ORDINARY, Phase.CANDIDATE, Phase.FINAL, Phase.SPEC


def order_of(
    phases: Sequence[Phase],
    is_spent: Callable[[], bool] = lambda: False,
    needless: Sequence[int] = (),
    most: int | None = None,
) -> RunOrder:
    tests = [index for index, phase in enumerate(phases) if phase is CANDIDATE]
    state = TaskState(
        name="mm",
        weight=1,
        search=ExhaustiveSearch(len(tests)),
        candidates=[f"candidate {index}" for index in tests],
        tests=tests,
        defaults=(),
        most=len(tests) if most is None else most,
    )
    return RunOrder(phases, TaskScheduler([state], batch=4, is_spent=is_spent), needless)


def drain(order: RunOrder) -> list[int]:
    taken = []
    while (index := order.take()) is not None:
        taken.append(index)
    return taken


def test_phases_come_in_order_and_each_as_collected() -> None:
    order = order_of([SPEC, CANDIDATE, FINAL, ORDINARY, CANDIDATE, SPEC, FINAL])
    assert drain(order) == [3, 1, 4, 2, 6, 0, 5]
    assert order.is_drained


def test_an_empty_run_is_drained() -> None:
    order = order_of([])
    assert order.is_drained
    assert order.take() is None
    assert order.unfinished == 0


def test_a_test_may_start_once_the_phases_before_have_ended() -> None:
    order = order_of([ORDINARY, CANDIDATE, FINAL, SPEC])
    assert drain(order) == [0, 1, 2, 3]

    def startable() -> list[int]:
        return [index for index in range(4) if order.may_start(index)]

    assert startable() == [0, 1]
    order.complete(1)
    assert startable() == [0, 1]
    order.complete(0)
    assert startable() == [0, 1, 2]
    order.complete(2)
    assert startable() == [0, 1, 2, 3]
    assert order.unfinished == 1
    order.complete(3)
    assert order.unfinished == 0


def test_a_missing_phase_holds_nobody_up() -> None:
    order = order_of([SPEC, CANDIDATE])
    assert not order.may_start(0)
    order.complete(1)
    assert order.may_start(0)


def test_a_test_that_ends_twice_counts_once() -> None:
    order = order_of([CANDIDATE, CANDIDATE, FINAL])
    assert [order.take(), order.take()] == [0, 1]
    order.complete(0)
    order.complete(0)
    assert order.unfinished == 2
    assert not order.may_start(2)


def test_what_was_not_run_goes_back_to_its_place() -> None:
    order = order_of([CANDIDATE, CANDIDATE, CANDIDATE, FINAL])
    assert [order.take(), order.take(), order.take()] == [0, 1, 2]
    order.give_back(1)
    order.give_back(0)
    assert drain(order) == [0, 1, 3]


def test_a_final_given_back_waits_behind_candidates_given_back() -> None:
    order = order_of([FINAL, CANDIDATE, SPEC])
    assert drain(order) == [1, 0, 2]
    for index in (2, 0, 1):
        order.give_back(index)
    assert not order.is_drained
    assert drain(order) == [1, 0, 2]


def test_a_spent_budget_leaves_waiting_candidates_out() -> None:
    spent = False
    order = order_of([CANDIDATE, CANDIDATE, CANDIDATE, ORDINARY, FINAL, SPEC], lambda: spent)
    assert [order.take(), order.take()] == [3, 0]
    spent = True
    assert drain(order) == [4, 5]
    assert order.unfinished == 4
    assert not order.may_start(4)
    order.complete(0)
    order.complete(3)
    assert order.may_start(4)


def test_a_candidate_given_back_after_the_budget_is_spent_is_run_all_the_same() -> None:
    spent = False
    order = order_of([CANDIDATE, FINAL], lambda: spent)
    assert drain(order) == [0, 1]
    order.give_back(0)
    spent = True
    assert not order.may_start(1)
    assert drain(order) == [0]
    order.complete(0)
    assert order.may_start(1)
    assert order.is_drained


def test_finals_are_never_left_out() -> None:
    order = order_of([FINAL, SPEC], lambda: True)
    assert drain(order) == [0, 1]


def test_a_run_of_ordinary_tests_knows_no_budget() -> None:
    order = order_of([ORDINARY] * 3, lambda: True)
    assert drain(order) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_everything_handed_out_and_given_back_is_run_once(seed: int) -> None:
    choose = random.Random(seed)
    phases = choose.choices(list(Phase), k=40)
    order = order_of(phases)
    held: list[int] = []
    done: list[int] = []
    while order.unfinished:
        if not order.is_drained and (not held or choose.random() < 0.6):
            index = order.take()
            assert index is not None
            held.append(index)
            continue
        index = held.pop(choose.randrange(len(held)))
        if order.may_start(index) and choose.random() < 0.7:
            order.complete(index)
            done.append(index)
        else:
            order.give_back(index)
    assert sorted(done) == list(range(40))
    stages = [max(phases[index], CANDIDATE) for index in done]
    assert stages == sorted(stages)


def test_what_nobody_wanted_is_not_unfinished() -> None:
    order = order_of([CANDIDATE] * 9 + [FINAL, ORDINARY], most=3)
    assert order.unfinished == 5
    assert [order.take(), order.take(), order.take()] == [10, 0, 1]
    assert order.unfinished == 5, "two that were handed out, one more, the final and the ordinary test"
    order.complete(10)
    order.complete(0)
    order.give_back(1)
    assert order.unfinished == 3
    assert drain(order) == [1, 2, 9]
    assert order.unfinished == 3


def test_what_is_needless_is_never_run_and_waited_for_by_none() -> None:
    phases = [CANDIDATE, FINAL, FINAL, SPEC]
    order = order_of(phases, needless=[1])
    assert order.unfinished == 3
    assert drain(order) == [0, 2, 3]
    for index in (0, 2):
        order.complete(index)
    assert order.may_start(3)
    order.complete(3)
    assert order.unfinished == 0
