"""Tries candidates of one op with the package that PYTHONPATH names, and prints what that took as JSON.

`throughput.py --before` starts it for two trees in turn, so it uses only what both have. The caches are empty, the
driver's included.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

OPS: dict[str, Callable[[], Any]] = {
    "matmul": lambda: ops.matmul(m=2048, n=10240, k=1280, lhs="f16", transpose_b=True),
    "conv": lambda: ops.conv_2d(
        batch=2, height=32, width=32, channels=1280, filters=1280, kernel_height=3, kernel_width=3, lhs="f16"
    ),
    "attention": lambda: ops.attention(batch=20, queries=1024, keys=1024, head=64),
    "small": lambda: ops.matmul(m=128, n=128, k=128, lhs="f32"),
}


class _Clock:
    """The seconds that a device was held, and those in which it ran samples."""

    def __init__(self) -> None:
        self.held_s = self.busy_s = 0.0

    def watch(self) -> None:
        """Count from now on, in every object of the package."""
        run, acquire, clock = DeviceChild.run, DeviceLeases.acquire, self

        def timed_run(child: DeviceChild, key: str, batch: int, **options: Any) -> float:
            seconds = run(child, key, batch, **options)
            clock.busy_s += seconds
            return seconds

        @contextmanager
        def timed_acquire(leases: DeviceLeases, *arguments: Any) -> Iterator[str]:
            with acquire(leases, *arguments) as uri:
                began = time.perf_counter()
                try:
                    yield uri
                finally:
                    clock.held_s += time.perf_counter() - began

        for owner, name, method in ((DeviceChild, "run", timed_run), (DeviceLeases, "acquire", timed_acquire)):
            setattr(owner, name, method)


def main(name: str, target: str, device: str, count: str, seed: str) -> None:
    """Try candidates of the op called ``name``."""
    compiler = Compiler(Target.parse(target))
    with DeviceChild(device) as child:
        model = child.info().name
    clock = _Clock()
    states: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="throughput-") as directory:
        os.environ["CUDA_CACHE_PATH"] = str(Path(directory, "driver"))
        source = read_source(OPS[name](), Path())
        (task,) = make_plan([source], compiler, processors=processors(), count=int(count), seed=int(seed)).tasks
        settings = RunSettings.in_directory(Path(directory), [device], model, jobs=processors(), seed=int(seed))
        session = Session(settings, compiler, Cache(Path(directory, "cache")))
        clock.watch()
        began = time.perf_counter()
        try:
            session.run.publish(task, [candidate.id for candidate in task.candidates])
            for candidate in (task.default, *task.candidates):
                state = str(State.MEASURED)
                try:
                    session.runner.measure(task, candidate, session.builder.artifact(task, candidate))
                except CandidateFailed as failure:
                    state = str(failure.state)
                states[state] = states.get(state, 0) + 1
            seconds = time.perf_counter() - began
        finally:
            session.close()
    tried = len(task.candidates)
    found = {"tried": tried, "seconds": seconds, "held_s": clock.held_s, "busy_s": clock.busy_s, **states}
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
