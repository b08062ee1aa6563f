"""xdist's scheduler, driven by workers that behave as xdist's do and by a controller that does what xdist's does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import pytest

pytest.importorskip("xdist")

from pytest_shark_tune.plan.roles import Phase
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.plugin.xdist.scheduling import TuneScheduling
from pytest_shark_tune.search import ExhaustiveSearch
from pytest_shark_tune.tuning.scheduler import TaskScheduler, TaskState

ORDINARY, CANDIDATE, FINAL, SPEC = Phase.ORDINARY, Phase.CANDIDATE, Phase.FINAL, Phase.SPEC
PHASES = (ORDINARY, *[CANDIDATE] * 8, FINAL, ORDINARY, FINAL, SPEC, *[CANDIDATE] * 4, FINAL, SPEC)


class Gateway(NamedTuple):
    id: str


class FakeWorker:
    """Starts a test once it holds the next one, or is told to shut down, as xdist's worker does."""

    def __init__(self, name: str) -> None:
        self.gateway = Gateway(name)
        self.queue: list[int] = []
        self.running: int | None = None
        self.is_told = False
        self.is_down = False

    @property
    def shutting_down(self) -> bool:
        return self.is_down or self.is_told

    @property
    def starts(self) -> bool:
        return self.running is None and bool(self.queue) and (len(self.queue) > 1 or self.is_told)

    @property
    def ends(self) -> bool:
        return self.is_told and not self.queue

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.is_told = True


class FakeConfig:
    """As much of pytest's config as the scheduler looks at; its own hook, which records what is reported."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.reports: list[pytest.CollectReport] = []

    @property
    def hook(self) -> FakeConfig:
        return self

    def getvalue(self, name: str) -> list[str]:
        assert name == "tx"
        return ["popen"] * self.workers

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.reports.append(report)


class Controller:
    """What xdist's controller does with a scheduler; checks at each start that the phases before have ended."""

    def __init__(self, phases: Sequence[Phase], workers: int, is_spent: Callable[[], bool] = lambda: False) -> None:
        self.phases = phases
        self.names = [f"test_{index}" for index in range(len(phases))]
        self.config = FakeConfig(workers)
        self.is_spent = is_spent
        self.scheduler = TuneScheduling(cast("pytest.Config", self.config), self.order_of)
        self.alive: list[FakeWorker] = []
        self.ended: list[int] = []
        self.crashed: list[int] = []

    def order_of(self, names: Sequence[str]) -> RunOrder:
        phases = [self.phases[self.names.index(name)] for name in names]
        candidates = [index for index, phase in enumerate(phases) if phase is CANDIDATE]
        state = TaskState(
            name="mm",
            weight=1,
            search=ExhaustiveSearch(len(candidates)),
            candidates=[names[index] for index in candidates],
            tests=candidates,
            defaults=(),
            most=len(candidates),
        )
        return RunOrder(phases, TaskScheduler([state], batch=4, is_spent=self.is_spent))

    def start(self) -> Controller:
        for _ in range(self.config.workers):
            assert not self.scheduler.collection_is_completed
            self.add()
        return self

    def add(self, collection: Sequence[str] | None = None) -> FakeWorker:
        worker = FakeWorker(f"gw{len(self.alive) + len(self.ended)}")
        self.alive.append(worker)
        self.scheduler.add_node(worker)
        self.scheduler.add_node_collection(worker, self.names if collection is None else collection)
        if self.scheduler.collection_is_completed:
            self.scheduler.schedule()
        self.settle()
        return worker

    def finish(self, worker: FakeWorker) -> None:
        assert worker.running is not None
        index, worker.running = worker.running, None
        worker.queue.remove(index)
        self.ended.append(index)
        self.scheduler.mark_test_complete(worker, index)
        self.settle()

    def lose(self, worker: FakeWorker) -> None:
        worker.is_down = True
        self.alive.remove(worker)
        crashed = self.scheduler.remove_node(worker)
        assert crashed == (None if worker.running is None else self.names[worker.running])
        if worker.running is not None:
            self.crashed.append(worker.running)
        self.settle()

    def settle(self) -> None:
        while True:
            for worker in self.alive:
                if worker.starts:
                    worker.running = worker.queue[0]
                    self.check_start(worker.running)
            if self.scheduler.tests_finished:
                for node in self.scheduler.nodes:
                    node.shutdown()
            ending = [worker for worker in self.alive if worker.ends]
            if not ending:
                return
            for worker in ending:
                self.alive.remove(worker)
                assert self.scheduler.remove_node(worker) is None

    def check_start(self, index: int) -> None:
        def stage(other: int) -> int:
            return max(self.phases[other], CANDIDATE)

        done = {*self.ended, *self.crashed}
        early = [other for other in range(len(self.phases)) if stage(other) < stage(index) and other not in done]
        held = {other for worker in self.alive for other in worker.queue}
        assert all(self.phases[other] is CANDIDATE and other not in held for other in early), f"{index} before {early}"

    def run(self, choose: random.Random) -> None:
        while self.alive:
            running = [worker for worker in self.alive if worker.running is not None]
            assert running, f"the run hangs after {self.ended}"
            self.finish(choose.choice(running))


def ended_in_full(controller: Controller) -> bool:
    return sorted(controller.ended + controller.crashed) == list(range(len(controller.phases)))


@pytest.mark.parametrize("workers", [1, 2, 3, len(PHASES), len(PHASES) + 5])
@pytest.mark.parametrize("seed", range(5))
def test_everything_runs_once_in_the_order_of_the_phases(workers: int, seed: int) -> None:
    controller = Controller(PHASES, workers).start()
    assert controller.scheduler.has_pending
    controller.run(random.Random(seed))
    assert ended_in_full(controller)
    assert controller.scheduler.tests_finished
    assert not controller.scheduler.has_pending


def test_one_worker_runs_candidates_in_the_order_in_which_they_are_collected() -> None:
    controller = Controller((SPEC, FINAL, CANDIDATE, ORDINARY, CANDIDATE), 1).start()
    controller.run(random.Random(0))
    assert controller.ended == [3, 2, 4, 1, 0]


def test_a_worker_holds_one_test_ahead_and_no_more() -> None:
    controller = Controller([CANDIDATE] * 9, 2).start()
    assert [worker.queue for worker in controller.alive] == [[0, 1], [2, 3]]
    controller.finish(controller.alive[1])
    assert [worker.queue for worker in controller.alive] == [[0, 1], [3, 4]]


def test_a_test_of_a_later_phase_is_held_until_the_others_are_done() -> None:
    controller = Controller((CANDIDATE, CANDIDATE, FINAL, SPEC), 2).start()
    first, second = controller.alive
    controller.finish(first)
    assert (first.running, first.queue) == (1, [1, 3])
    assert (second.running, second.queue) == (None, [2])
    controller.finish(first)
    assert second.running == 2
    assert first.running is None
    controller.finish(second)
    assert first.running == 3


def test_nothing_to_run_ends_at_once() -> None:
    controller = Controller((), 2).start()
    assert not controller.alive
    assert controller.scheduler.tests_finished


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(25))
def test_lost_workers_are_replaced_and_lose_only_what_they_ran(workers: int, seed: int) -> None:
    choose = random.Random(seed)
    controller = Controller(PHASES, workers).start()
    missing = 0
    while controller.alive or missing:
        running = [worker for worker in controller.alive if worker.running is not None]
        if missing and (not running or choose.random() < 0.3):
            controller.add()
            missing -= 1
        elif controller.alive and choose.random() < 0.2:
            controller.lose(choose.choice(controller.alive))
            missing += 1
        else:
            assert running, f"the run hangs after {controller.ended}, {controller.crashed} being lost"
            controller.finish(choose.choice(running))
    assert ended_in_full(controller)
    assert len(set(controller.crashed) & set(controller.ended)) == 0


def test_a_worker_lost_at_the_end_is_replaced_although_others_have_left() -> None:
    controller = Controller((CANDIDATE, CANDIDATE, FINAL, SPEC), 2).start()
    first, second = controller.alive
    controller.finish(first)
    controller.finish(first)
    controller.finish(second)  # The second worker is not needed any more and ends.
    assert controller.alive == [first]
    assert first.running == 3
    controller.lose(first)
    controller.add()
    assert (controller.crashed, controller.alive) == ([3], [])


def test_a_replacement_takes_up_what_the_lost_worker_held() -> None:
    controller = Controller((CANDIDATE, FINAL, SPEC), 2).start()
    first, second = controller.alive
    assert (first.queue, second.queue) == ([0, 1], [2])
    controller.finish(first)
    assert first.running is None or first.running == 1
    controller.lose(second)  # It held the spec's test and had not started it: nothing crashed.
    assert controller.crashed == []
    controller.add()
    controller.run(random.Random(0))
    assert ended_in_full(controller)


def test_a_test_that_crashed_a_worker_may_be_run_again() -> None:
    controller = Controller([CANDIDATE] * 4, 2).start()
    lost = controller.alive[0]
    controller.lose(lost)
    assert controller.crashed == [0]
    controller.crashed.clear()
    controller.scheduler.mark_test_pending("test_0")
    controller.settle()
    controller.add()
    controller.run(random.Random(0))
    assert sorted(controller.ended) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_spent_budget_leaves_candidates_out_and_nothing_else(workers: int) -> None:
    spent = False
    phases = (ORDINARY, *[CANDIDATE] * 12, FINAL, ORDINARY, SPEC)
    controller = Controller(phases, workers, lambda: spent).start()
    controller.finish(controller.alive[0])
    spent = True
    held = {index for worker in controller.alive for index in worker.queue}
    controller.run(random.Random(0))
    assert {index for index, phase in enumerate(phases) if phase is not CANDIDATE} <= set(controller.ended)
    assert held <= set(controller.ended)
    assert len(set(controller.ended)) == len(controller.ended)
    order = controller.scheduler.order
    assert order is not None
    assert len(controller.ended) < len(phases)
    assert order.unfinished == 0


def test_when_the_budget_is_spent_what_a_lost_worker_held_is_run_all_the_same() -> None:
    spent = False
    controller = Controller((CANDIDATE, CANDIDATE, FINAL, SPEC), 2, lambda: spent).start()
    first, second = controller.alive
    assert (first.queue, second.queue) == ([0, 1], [2])
    controller.lose(first)  # A candidate is given back while the other worker holds a final.
    spent = True
    controller.add()
    controller.run(random.Random(0))
    assert sorted(controller.ended) == [1, 2, 3]
    assert controller.crashed == [0]


def test_collections_that_differ_are_reported_and_nothing_runs() -> None:
    controller = Controller([CANDIDATE] * 3, 2)
    controller.add()
    controller.add(["test_0", "test_2", "test_1"])
    (report,) = controller.config.reports
    assert report.outcome == "failed"
    assert "Different tests were collected" in str(report.longrepr)
    assert not controller.alive
    assert controller.ended == []


def test_a_replacement_that_collects_something_else_is_reported_and_sent_home() -> None:
    controller = Controller([CANDIDATE] * 6, 2).start()
    controller.lose(controller.alive[0])
    replacement = controller.add(["test_0"])
    assert len(controller.config.reports) == 1
    assert replacement.is_told
    controller.run(random.Random(0))
    assert ended_in_full(controller)
    assert controller.crashed == [0]


@pytest.mark.parametrize("collected", [0, 1, 2])
def test_a_worker_that_is_left_out_is_not_waited_for(collected: int) -> None:
    controller = Controller(PHASES, 3)
    for _ in range(collected):
        controller.add()
    controller.scheduler.leave_out_worker()
    controller.settle()
    assert controller.scheduler.has_pending == (collected == 2)
    for _ in range(2 - collected):
        controller.add()
    controller.run(random.Random(0))
    assert ended_in_full(controller)


def test_tests_are_never_stolen() -> None:
    controller = Controller([CANDIDATE] * 6, 2).start()
    with pytest.raises(NotImplementedError):
        controller.scheduler.remove_pending_tests_from_node(controller.alive[0], [1])
