"""The scheduler for xdist, and the reasons why workers were lost. The only module that imports xdist when loaded."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from xdist.report import report_collection_diff
from xdist.workermanage import WorkerController, parse_tx_spec_config

from pytest_shark_tune.plugin.xdist.order import RunOrder

__all__ = ["MOST_LOST", "MOST_LOST_IN_A_ROW", "TuneScheduling", "how_it_ended", "refusal"]

MOST_LOST = 1000
"""The default for ``--max-worker-restart``: a lost worker costs one candidate only, so xdist's 4 are too few."""

MOST_LOST_IN_A_ROW = 4
"""How many workers may be lost in a row before any has run a test, per worker of the run."""

_REAP_S = 2.0
_REFUSED = "pytest.UsageError: "


class TuneScheduling:
    """Hands every worker one test to run and one to hold, and keeps the order of the phases.

    A worker starts a test only once it holds the next one or is shutting down. So a worker may hold a test of a later
    phase early: it gets nothing more until the earlier phases have ended.
    """

    def __init__(self, config: pytest.Config, order_of: Callable[[Sequence[str]], RunOrder]) -> None:
        self._config = config
        self._order_of = order_of
        self.workers = len(parse_tx_spec_config(config))
        self._collections: dict[WorkerController, list[str]] = {}
        self._held: dict[WorkerController, list[int]] = {}
        self._leaving: set[WorkerController] = set()
        self._collection: list[str] = []
        self.order: RunOrder | None = None

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers."""
        return list(self._held)

    @property
    def collection_is_completed(self) -> bool:
        """Whether all workers have collected; it stays true once the run has begun."""
        return self.order is not None or len(self._collections) >= self.workers

    @property
    def tests_finished(self) -> bool:
        """Whether no test is left to run or running."""
        return self.order is not None and self.order.is_drained and not any(self._held.values())

    @property
    def has_pending(self) -> bool:
        """Whether the run has begun and has not ended."""
        return self.order is not None and not self.tests_finished

    def add_node(self, node: WorkerController) -> None:
        """Add a worker that is ready."""
        self._held[node] = []

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Store the collection of a worker; one that replaces a lost worker must agree with the others."""
        if self.order is not None:
            self._report_difference(node, collection)
            if list(collection) != self._collection:
                node.shutdown()
                return
        self._collections[node] = list(collection)

    def schedule(self) -> None:
        """Begin the run, or continue it with workers that came later."""
        if self.order is None:
            first, *others = self._collections.values()
            self._collection = first
            agreed = [
                self._report_difference(node, names)
                for node, names in self._collections.items()
                if names is not first and others
            ]
            self.order = self._order_of(first if all(agreed) else [])
        self._feed()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Mark a worker's test as ended, and hand out the next ones."""
        assert self.order is not None
        self._held[node].remove(item_index)
        self.order.complete(item_index)
        self._feed()

    def mark_test_pending(self, item: str) -> None:
        """Run a test again that crashed its worker."""
        assert self.order is not None
        self.order.give_back(self._collection.index(item))
        self._feed()

    def leave_out_worker(self) -> None:
        """Wait for one worker less: one that was lost is not replaced."""
        self.workers -= 1
        if self.order is None and self._collections and self.collection_is_completed:
            self.schedule()

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """Refuse: this scheduler never steals tests from a worker."""
        raise NotImplementedError

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a worker; return the test that it was running when it was lost, if any."""
        held = self._held.pop(node)
        self._collections.pop(node, None)
        if not held or self.order is None:
            return None
        # A worker that held a single test had not started it, unless it was told to shut down. Xdist's own flag does
        # not tell: it is set for every lost worker.
        running = held.pop(0) if len(held) > 1 or node in self._leaving else None
        for index in held:
            self.order.give_back(index)
        if running is not None:
            self.order.complete(running)
        self._feed()
        return None if running is None else self._collection[running]

    def _feed(self) -> None:
        order = self.order
        assert order is not None
        # One worker at a time: when it takes a test, others may be left out, and so another worker may start its own.
        while node := next((node for node in self._held if self._is_hungry(node, order)), None):
            index = order.take()
            if index is None:
                # A worker that shuts down runs the test that it holds and ends.
                self._leaving.add(node)
                node.shutdown()
            else:
                self._held[node].append(index)
                node.send_runtest_some([index])

    def _is_hungry(self, node: WorkerController, order: RunOrder) -> bool:
        """Whether a worker may have another test."""
        held = self._held[node]
        if node not in self._collections or node.shutting_down or len(held) >= 2:
            return False
        return not held or order.may_start(held[0])

    def _report_difference(self, node: WorkerController, collection: Sequence[str]) -> bool:
        """Report an error if a worker's collection differs from the first one; return whether it agrees."""
        message = report_collection_diff(self._collection, list(collection), "first worker", node.gateway.id)
        if message:
            report = pytest.CollectReport(node.gateway.id, "failed", message, [])
            self._config.hook.pytest_collectreport(report=report)
        return not message


def refusal(error: object) -> str:
    """Return the usage error of a worker that was lost; empty if it was lost for another reason.

    Xdist hands over nothing but the traceback of a worker's exception.
    """
    lines = str(error).strip().splitlines()
    marks = [number for number, line in enumerate(lines) if line.startswith(_REFUSED)]
    return "\n".join(lines[marks[-1] :]).removeprefix(_REFUSED) if marks else ""


def how_it_ended(node: WorkerController) -> str:
    """Describe how the process of a lost worker ended; empty if it is not known, for example on another host."""
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    status = None
    if process is not None:
        with suppress(subprocess.TimeoutExpired, OSError):
            status = process.wait(_REAP_S)
    if status is None:
        return ""
    if host := getattr(node.gateway.spec, "ssh", None):  # The process is the client.
        return f"the connection to {host} was lost"
    if status >= 0:
        return f"exited with status {status}"
    with suppress(ValueError):
        hint = ", as the system does when memory runs out" if -status == signal.SIGKILL else ""
        return f"{signal.Signals(-status).name}{hint}"
    return f"signal {-status}"
