"""The task scheduler on kernels made up here: which candidate is tried next, and when enough have been."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType

import msgspec
import pytest

from pytest_shark_tune.plan.costs import DispatchCost
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import KernelTask, Plan
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.search import STRATEGIES, PriorResult
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import DEFAULT_ID, kernel_candidates, kernel_default
from pytest_shark_tune.tuning.manifest import TestEntry
from pytest_shark_tune.tuning.scheduler import TaskScheduler, TaskState, make_task_state

SPACE = SearchSpace.of("Blocked", {"bi": range(1, 11), "bj": range(1, 11)})
KNOBS = [{"bi": bi, "bj": bj} for bi in range(1, 11) for bj in range(1, 11)]


def kernel(name: str, count: int = 20, *, weight: int = 1) -> KernelTask:
    return KernelTask(
        name=name,
        weight=weight,
        default=kernel_default(name, SPACE, KNOBS[0]),
        candidates=kernel_candidates(name, SPACE, KNOBS[:count]),
        space_size=len(KNOBS),
    )


def parts_of(task: KernelTask, names: Iterable[str] = (), *, suite: str = "") -> list[TestEntry]:
    """The parts of a task's tests as collected: its default's, and its candidates' of these ids, or of all."""
    wanted = set(names) or {each.id for each in task.candidates}
    candidates = [each for each in task.candidates if each.id in wanted]
    return [
        TestEntry(Role.DEFAULT, "plan", suite, task.name, DEFAULT_ID),
        *(TestEntry(Role.CANDIDATE, "plan", suite, task.name, each.id) for each in candidates),
        TestEntry(Role.FINAL, "plan", suite, task.name),
    ]


class Run:
    """A task scheduler over kernels in the order of their collection, and ways to play the rest of a run."""

    def __init__(
        self,
        *tasks: KernelTask,
        entries: list[TestEntry] | None = None,
        strategy: str = "exhaustive",
        most: int = 60,
        batch: int = 4,
        is_spent: Callable[[], bool] = lambda: False,
    ) -> None:
        self.parts = entries if entries is not None else [entry for task in tasks for entry in parts_of(task)]
        self.states: dict[str, TaskState] = {}
        for task in tasks:
            own = {index: entry for index, entry in enumerate(self.parts) if entry.dispatch == task.name}
            self.states[task.name] = make_task_state(task, own, strategy=strategy, seed=0, most=most, device="a device")
        self.announced: list[tuple[str, tuple[str, ...]]] = []
        self.scheduler = TaskScheduler(
            self.states.values(),
            batch=batch,
            is_spent=is_spent,
            publish=lambda name, coming: self.announced.append((name, coming)),
        )

    def take(self) -> tuple[str, str]:
        entry = self.parts[self.scheduler.take()]
        return entry.dispatch, entry.candidate

    def tell(
        self,
        dispatch: str,
        candidate: str,
        ratio: float | None = 1.0,
        *,
        state: State = State.MEASURED,
        duplicate_of: str = "",
        baseline_us: float = 10.0,
    ) -> None:
        measured = ratio is not None and state is State.MEASURED
        self.scheduler.tell(
            Record(
                id=candidate,
                dispatch=dispatch,
                pipeline="Blocked",
                knobs={},
                config="",
                state=state if ratio is not None or state is not State.MEASURED else State.RUN_FAILED,
                duplicate_of=duplicate_of,
                samples_us=(baseline_us / ratio,) if ratio and measured else (),
                baseline_samples_us=(baseline_us,) * 3 if measured else (),
                ratio=ratio if measured else None,
                device="a device",
                target="llvm-cpu",
                iree="3.13.0",
            )
        )

    def try_next(self, ratio: float | None = 1.0) -> tuple[str, str]:
        """Take the next test and tell at once what came of it."""
        taken = self.take()
        self.tell(*taken, ratio)
        return taken

    def drain(self, ratio: float | None = 1.0) -> list[tuple[str, str]]:
        taken = []
        while not self.scheduler.is_done:
            taken.append(self.try_next(ratio))
        return taken


def test_defaults_come_first() -> None:
    run = Run(kernel("one"), kernel("two"))
    assert [run.take(), run.take()] == [("one", "default"), ("two", "default")]
    assert run.take()[1] != "default"


def test_a_default_that_is_known_already_is_not_tried() -> None:
    run = Run(kernel("one"), kernel("two"))
    run.tell("one", "default")
    assert run.take() == ("two", "default")
    assert "default" not in [run.take()[1] for _ in range(8)]


def test_a_dispatch_keeps_its_turn_for_a_stretch_which_is_announced() -> None:
    run = Run(kernel("one"), kernel("two"), batch=4)
    run.take(), run.take()
    taken = [run.try_next() for _ in range(12)]
    assert [name for name, _ in taken] == ["one"] * 4 + ["two"] * 4 + ["one"] * 4
    assert all(2 < len(coming) <= 4 for _, coming in run.announced)
    for name in ("one", "two"):
        announced = dict.fromkeys(each for other, coming in run.announced if other == name for each in coming)
        tried = [each for other, each in taken if other == name]
        assert list(announced)[: len(tried)] == tried, "each is announced before it is taken, in order"


@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_tried_twice_however_late_results_come(strategy: str, seed: int) -> None:
    choose = random.Random(seed)
    run = Run(kernel("one", 17), kernel("two", 30), strategy=strategy)
    done: list[tuple[str, str]] = []
    held: list[int] = []
    while held or not run.scheduler.is_done:
        if len(held) < 6 and not run.scheduler.is_done and choose.random() < 0.6:
            held.append(run.scheduler.take())
        elif held:
            index = held.pop(choose.randrange(len(held)))
            if choose.random() < 0.2:
                run.scheduler.give_back(index)
                continue
            entry = run.parts[index]
            done.append((entry.dispatch, entry.candidate))
            outcomes = [1.0] if entry.candidate == "default" else [None, 0.5, 1.0, 1.2]
            run.tell(entry.dispatch, entry.candidate, choose.choice(outcomes))
    assert sorted(done) == sorted((entry.dispatch, entry.candidate) for entry in run.parts if entry.candidate)


def test_no_more_are_tried_than_asked_for_even_before_results_come() -> None:
    run = Run(kernel("one"), most=6, batch=4)
    taken = []
    while not run.scheduler.is_done:
        taken.append(run.take())
    assert len(taken) == 1 + 6
    for each in taken:
        run.tell(*each)
    assert run.scheduler.is_done
    assert run.scheduler.why_stopped("one") == "enough candidates were tried (--tune-trials)"


def test_a_default_that_fails_stops_its_dispatch_and_no_other() -> None:
    run = Run(kernel("one"), kernel("two", 5))
    run.take(), run.take()
    assert run.take()[0] == "one"
    run.tell("one", "default", state=State.WRONG_RESULT, ratio=None)
    assert {name for name, _ in run.drain()} == {"two"}
    assert run.scheduler.why_stopped("one") == "its default cannot be measured"
    assert run.scheduler.why_stopped("two") == ""


def test_what_is_given_back_comes_next_also_when_the_time_is_spent() -> None:
    spent = False
    run = Run(kernel("one"), is_spent=lambda: spent)
    run.take()
    first, second = run.scheduler.take(), run.scheduler.take()
    run.scheduler.give_back(second)
    run.scheduler.give_back(first)
    spent = True
    assert not run.scheduler.is_done
    assert [run.scheduler.take(), run.scheduler.take()] == [first, second]
    assert run.scheduler.is_done


def test_spent_time_leaves_candidates_out_but_no_default() -> None:
    spent = False
    run = Run(kernel("one"), kernel("two"), is_spent=lambda: spent)
    run.try_next()
    spent = True
    assert not run.scheduler.is_done
    assert run.try_next() == ("two", "default")
    assert run.scheduler.is_done
    spent = False
    assert run.scheduler.is_done, "once spent is spent"
    assert run.scheduler.why_stopped("one") == "the time was spent (--tune-time)"


def after_the_first(
    gains: dict[str, float],
    baselines: dict[str, float],
    weights: dict[str, int],
    *,
    in_models: Mapping[str, DispatchCost] = MappingProxyType({}),
) -> str:
    """Which dispatch gets the next turn after 8 candidates of each, the best of which led by so much."""
    run = Run(*(kernel(name, weight=weights.get(name, 1)) for name in gains))
    for name in gains:
        run.take()
        run.tell(name, "default", baseline_us=baselines.get(name, 10.0))
        run.states[name].in_models = in_models.get(name)
    seen = dict.fromkeys(gains, 0)
    for _ in range(8 * len(gains)):
        name, candidate = run.take()
        seen[name] += 1
        run.tell(name, candidate, gains[name] if seen[name] == 1 else 1.0)
    assert set(seen.values()) == {8}, "until then they take turns"
    return run.take()[0]


@pytest.mark.parametrize("order", [("plain", "rich"), ("rich", "plain")])
@pytest.mark.parametrize(
    ("gain", "baseline_us", "weight"), [(1.1, 10.0, 3), (1.1, 30.0, 1), (1.4, 10.0, 1), (1.05, 30.0, 2)]
)
def test_time_goes_where_gain_times_time_times_weight_is_largest(
    order: tuple[str, str], gain: float, baseline_us: float, weight: int
) -> None:
    gains = {name: 1.1 if name == "plain" else gain for name in order}
    assert after_the_first(gains, {"rich": baseline_us}, {"rich": weight}) == "rich"


def test_the_time_in_the_model_counts_where_it_is_known() -> None:
    gains, weights = {"alone": 1.1, "in_model": 1.1}, {"alone": 3}
    assert after_the_first(gains, {}, weights) == "alone"
    costs = {"in_model": DispatchCost(1000.0, 0.0)}
    assert after_the_first(gains, {}, weights, in_models=costs) == "in_model"


def worth_of(in_models: DispatchCost, *ratios: float) -> float:
    """What the next candidate of a dispatch of a model is worth, after candidates with these ratios."""
    run = Run(kernel("one"))
    run.states["one"].in_models = in_models
    run.take()
    run.tell("one", "default")
    for ratio in ratios:
        run.tell("one", run.take()[1], ratio)
    return run.states["one"].worth


def test_what_the_limits_of_the_device_leave_bounds_the_gain() -> None:
    free, bounded = (worth_of(DispatchCost(1000.0, least_us), 0.7, 1.0) for least_us in (0.0, 890.0))
    assert 0 < bounded < free / 2


@pytest.mark.parametrize("tried", [2, 10])
def test_the_time_that_is_left_counts_not_that_of_the_default(tried: int) -> None:
    ratios = [0.7, 1.0] * (tried // 2)
    slow, improved = (worth_of(DispatchCost(1000.0, 0.0), *(by * ratio for ratio in ratios)) for by in (1.0, 20.0))
    assert improved == pytest.approx(slow / 20)


@pytest.mark.parametrize(
    ("time_us", "least_us", "why"),
    [
        (100.0, 95.0, "its time is close to the least that the limits of the device leave"),
        (0.0, 0.0, "only forms of the model have it that cannot win any more"),
    ],
)
def test_a_dispatch_with_nothing_to_gain_is_not_tried(time_us: float, least_us: float, why: str) -> None:
    run = Run(kernel("one"))
    run.states["one"].in_models = DispatchCost(time_us, least_us)
    assert run.try_next() == ("one", "default")
    assert run.scheduler.is_done
    assert run.scheduler.why_stopped("one") == why


def test_a_duplicate_takes_the_ratio_of_whose_binary_it_shares() -> None:
    run = Run(kernel("one"))
    run.take()
    run.tell("one", "default")
    (_, first), (_, second), (_, third) = (run.take() for _ in range(3))
    search = run.states["one"].search
    run.tell("one", first, 2.0)
    assert search.expected_gain == math.inf, "one result says nothing of a gain"
    run.tell("one", second, None, state=State.DUPLICATE, duplicate_of=DEFAULT_ID)
    assert search.expected_gain == pytest.approx(math.log(2) / 3)
    run.tell("one", third, None, state=State.DUPLICATE, duplicate_of=first)
    assert search.expected_gain == 0


def test_what_is_known_already_is_never_taken_and_counts() -> None:
    task = kernel("one")
    run = Run(task, most=10)
    known = [each.id for each in task.candidates[3:9]]
    for name in ("default", *known):
        run.tell("one", name)
    taken = [name for _, name in run.drain()]
    assert len(taken) == 10 - 6
    assert not {"default", *known} & set(taken)


def test_a_run_of_which_all_is_known_takes_nothing() -> None:
    run = Run(kernel("one", 5))
    for entry in run.parts[:-1]:
        run.tell(entry.dispatch, entry.candidate)
    assert run.scheduler.is_done
    assert run.scheduler.why_stopped("one") == ""


def test_a_dispatch_is_given_up_where_next_to_nothing_is_expected() -> None:
    run = Run(kernel("one", 100), most=100)
    assert len(run.drain()) == 1 + 64
    assert run.scheduler.why_stopped("one") == "no more gain is expected"


def test_one_where_the_best_still_leads_goes_on() -> None:
    run = Run(kernel("one", 100), most=90)
    run.try_next()
    run.try_next(2.0)
    assert len(run.drain()) == 89
    assert run.scheduler.why_stopped("one") == "enough candidates were tried (--tune-trials)"


def test_candidates_whose_tests_were_deselected_are_left_alone() -> None:
    task = kernel("one")
    wanted = [each.id for each in task.candidates[5:8]]
    run = Run(task, entries=parts_of(task, wanted))
    assert sorted(name for _, name in run.drain()) == sorted(["default", *wanted])


def test_without_a_candidate_only_the_default_is_tried() -> None:
    task = kernel("one")
    run = Run(task, entries=parts_of(task)[:1])
    assert run.drain() == [("one", "default")]


def test_a_candidate_of_two_suites_is_tried_once() -> None:
    task = kernel("one", 5)
    run = Run(task, entries=[*parts_of(task, suite="a"), *parts_of(task, suite="b")])
    taken = [name for _, name in run.drain()]
    assert sorted(taken) == sorted(["default", *(each.id for each in task.candidates)])


def test_records_of_others_are_none_of_its_business() -> None:
    run = Run(kernel("one", 5))
    run.tell("other", "default", state=State.RUN_FAILED, ratio=None)
    run.tell("one", "of an earlier plan", 9.0)
    assert run.scheduler.why_stopped("other") == ""
    assert len(run.drain()) == 6


def test_a_search_begins_beside_the_default(plan: Plan) -> None:
    (task,) = plan.tasks
    entries = {
        index: TestEntry(Role.CANDIDATE, "plan", "", task.name, each.id) for index, each in enumerate(task.candidates)
    }

    def first_two(near: dict[int, dict[str, int]]) -> list[int]:
        placed = msgspec.structs.replace(task, near=near)
        return make_task_state(placed, entries, strategy="model", seed=0, most=60, device="a device").search.ask(2)

    for position, default in enumerate(task.candidates):
        assert sorted([position, *first_two({0: default.knobs})]) == [0, 1, 2], "what the default gave is known"
    assert first_two({7: task.candidates[0].knobs}) == first_two({}), "no candidate is of that space"


def test_prior_results_are_read_only_where_they_are_used() -> None:
    task = kernel("one")
    entries = dict(enumerate(parts_of(task)))
    read: list[str] = []

    def prior(strategy: str) -> list[PriorResult]:
        read.append(strategy)
        return []

    for strategy in STRATEGIES:
        state = make_task_state(
            task, entries, strategy=strategy, seed=0, most=60, device="a device", prior=partial(prior, strategy)
        )
        assert not read, "nothing was asked for yet"
        state.search.ask(1)
        assert read == (["model"] if strategy == "model" else [])
        read.clear()


@pytest.mark.slow
def test_prior_results_reach_the_search() -> None:
    task = kernel("one", 100)
    entries = dict(enumerate(parts_of(task)))
    prior = [PriorResult(pipeline="Blocked/0", knobs=knobs, ratio=float(knobs["bi"])) for knobs in KNOBS[::3]]

    def first(prior: list[PriorResult]) -> float:
        state = make_task_state(
            task, entries, strategy="model", seed=0, most=60, device="a device", prior=lambda: prior
        )
        rows = state.search.ask(6)
        return sum(task.candidate(state.candidates[row]).knobs["bi"] for row in rows) / len(rows)

    assert first(prior) > 1.3 * first([])
    assert first([PriorResult(pipeline="Blocked/1", knobs=KNOBS[0], ratio=None)]) == first([])


def test_the_tests_that_are_still_expected_are_counted() -> None:
    run = Run(kernel("one", 30), kernel("two", 3), most=10)
    assert run.scheduler.expected == 2 + 10 + 3
    run.tell("one", "default")
    run.drain()
    assert run.scheduler.expected == 0


def test_those_that_are_chosen_and_not_yet_taken_are_expected_as_well() -> None:
    run = Run(kernel("one", 30), kernel("two", 6), most=10)
    run.try_next(), run.try_next()
    for taken in range(1, 17):
        index = run.scheduler.take()
        assert run.scheduler.expected == 16 - taken
        run.scheduler.give_back(index)
        assert run.scheduler.expected == 17 - taken
        run.try_next()
        assert run.scheduler.expected == 16 - taken
    assert run.scheduler.is_done


def given_up_beside_another(is_spent: Callable[[], bool]) -> Run:
    """A run of one dispatch that is given up by what was known of it, and another of 20 candidates."""
    one, two = kernel("one", 100), kernel("two", 20)
    run = Run(one, two, most=100, is_spent=is_spent)
    for name in ("default", *(each.id for each in one.candidates[:64])):
        run.tell("one", name)
    return run


def test_none_is_expected_of_a_dispatch_that_is_given_up_or_once_the_time_is_spent() -> None:
    spent = False
    run = given_up_beside_another(lambda: spent)
    assert run.scheduler.expected == 1 + 20
    assert run.try_next() == ("two", "default")
    spent = True
    assert run.scheduler.is_done
    assert run.scheduler.expected == 0


def test_what_was_given_up_before_the_time_was_spent_on_others_was_given_up() -> None:
    spent = False
    run = given_up_beside_another(lambda: spent)
    run.try_next(), run.try_next()
    spent = True
    assert run.scheduler.is_done
    assert run.scheduler.why_stopped("one") == "no more gain is expected"
    assert run.scheduler.why_stopped("two") == "the time was spent (--tune-time)"


def test_time_that_is_spent_once_nothing_more_is_wanted_stopped_nothing() -> None:
    """As where the finals take longer than the time that was given."""
    spent = False
    run = Run(kernel("one", 5), is_spent=lambda: spent)
    for _ in range(5):
        run.try_next()
    run.take()  # Its test fails, and nothing is told of it.
    assert run.scheduler.is_done
    spent = True
    assert run.scheduler.is_done
    assert run.scheduler.why_stopped("one") == "all 5 configs were tried"


def test_of_a_dispatch_that_is_not_given_up_the_last_are_tried_as_well() -> None:
    run = Run(kernel("one", 100), most=100)
    run.try_next()
    run.try_next(2.0)
    assert len(run.drain()) == 99
    assert run.scheduler.why_stopped("one") == ""


def test_a_ratio_that_is_rounded_to_nothing_is_no_failure() -> None:
    run = Run(kernel("one"))
    run.take()
    run.try_next(1e-9)
    assert run.states["one"].tried == 1


def test_a_dispatch_begins_with_the_candidates_that_it_is_told_to() -> None:
    task = kernel("one", 20)
    wanted = [task.candidates[15].id, "of another plan", task.candidates[9].id]
    entries = dict(enumerate(parts_of(task)))
    state = make_task_state(task, entries, strategy="exhaustive", seed=0, most=60, device="a device", first=wanted)
    assert [state.candidates[row] for row in state.search.ask(3)] == [
        wanted[0],
        wanted[2],
        task.candidates[0].id,
    ]


def test_the_effort_is_what_had_its_chance() -> None:
    spent = False
    run = Run(kernel("cut", 20), kernel("small", 3), most=10, is_spent=lambda: spent)
    for _ in range(12):
        run.try_next()
    spent = True
    run.drain()
    assert run.scheduler.candidates_tried("small") == 3
    assert 3 < run.scheduler.candidates_tried("cut") < 10
    assert run.scheduler.candidates_tried("unknown") == 0
    given_up = Run(kernel("one", 100), most=100)
    given_up.drain()
    assert given_up.scheduler.candidates_tried("one") == 100, "the others were not expected to gain"
