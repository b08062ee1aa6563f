"""Workers whose host is lost, with as much of xdist's controller as replaces workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

pytest.importorskip("xdist")

import execnet

from pytest_shark_tune.plugin.xdist.hosts import survive_lost_hosts

HERE, THERE, ELSEWHERE = "popen", "ssh=there", "ssh=elsewhere"


class Worker:
    def __init__(self, name: str, spec: str, *, shutting_down: bool = False) -> None:
        self.gateway = SimpleNamespace(id=name, spec=execnet.XSpec(spec))
        self.shutting_down = shutting_down


@dataclass
class Controller:
    """As much of xdist's as this needs."""

    error: Exception | None
    tests_finished: bool = False
    tried: list[str] = field(default_factory=list)
    _active_nodes: set[Worker] = field(default_factory=set)

    @property
    def sched(self) -> Controller:
        return self

    def start(self, *specs: str) -> list[Worker]:
        workers = [Worker(f"gw{number}", spec) for number, spec in enumerate(specs)]
        self._active_nodes.update(workers)
        return workers

    def lose(self, worker: Worker) -> Worker | None:
        try:
            return self._clone_node(worker)
        finally:
            self._active_nodes.discard(worker)

    def _clone_node(self, lost: Worker) -> Worker:
        self.tried.append(lost.gateway.id)
        if self.error is not None:
            raise self.error
        return lost


def watched(controller: Controller) -> list[str]:
    """What is told of lost workers, and how many are left out."""
    told: list[str] = []
    survive_lost_hosts(controller, told.append, lambda: told.append("left out"))
    return told


def test_a_worker_of_a_living_host_is_replaced() -> None:
    controller = Controller(None)
    told = watched(controller)
    (worker,) = controller.start(THERE)
    assert controller.lose(worker) is worker
    assert told == []


def test_all_workers_of_a_lost_host_are_left_out_and_it_is_tried_once() -> None:
    controller = Controller(execnet.HostNotFound("there"))
    told = watched(controller)
    first, second, _ = controller.start(THERE, THERE, HERE)
    assert controller.lose(first) is None
    assert controller.lose(second) is None
    gone = "--tx: ssh gets no connection to there; the run goes on without"
    assert told == [f"{gone} gw0, with 2 workers", "left out", f"{gone} gw1, with 1 worker", "left out"]
    assert controller.tried == ["gw0"]


def test_a_connection_that_ends_while_a_worker_starts_is_a_lost_host() -> None:
    controller = Controller(EOFError("no python"))
    told = watched(controller)
    first, _ = controller.start(THERE, ELSEWHERE)
    assert controller.lose(first) is None
    assert told[0] == (
        "--tx: a worker on there ended as it was started (no python): does python= name a Python there?; "
        "the run goes on without gw0, with 1 worker"
    )


@pytest.mark.parametrize("others_leave", [False, True])
def test_without_another_worker_the_run_ends(others_leave: bool) -> None:
    controller = Controller(execnet.HostNotFound("there"))
    watched(controller)
    (worker,) = controller.start(THERE)
    if others_leave:  # It takes no test any more.
        controller._active_nodes.add(Worker("gw1", HERE, shutting_down=True))
    with pytest.raises(pytest.exit.Exception, match="no connection to there; the same command continues"):
        controller.lose(worker)


def test_nothing_is_missed_once_all_tests_have_ended() -> None:
    controller = Controller(execnet.HostNotFound("there"), tests_finished=True)
    told = watched(controller)
    (worker,) = controller.start(THERE)
    assert controller.lose(worker) is None
    assert told == ["left out"]


def test_a_worker_of_this_host_that_does_not_start_is_an_error() -> None:
    controller = Controller(OSError("no memory"))
    watched(controller)
    worker, _ = controller.start(HERE, HERE)
    with pytest.raises(OSError, match="no memory"):
        controller.lose(worker)
