"""An op and its configs on a device, set up as a run would: for `aa.py`, `power.py` and `guard_power.py`."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.runner import Runner
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["SingleOp", "quantiles", "single_op"]


class SingleOp(NamedTuple):
    """A matmul with its configs; ``name`` says what it is and where it runs."""

    task: Task
    compiler: Compiler
    settings: RunSettings
    cache: Cache
    name: str

    @contextmanager
    def session(self, seed: int) -> Iterator[Session]:
        """A session of its own with ``seed``; what is compiled is shared by all of them."""
        session = Session(dataclasses.replace(self.settings, seed=seed), self.compiler, self.cache)
        try:
            yield session
        finally:
            session.close()

    @contextmanager
    def runner(self) -> Iterator[Runner]:
        """A bench of its own."""
        leases = DeviceLeases(self.settings.devices)
        builder = Builder(self.compiler, self.cache, leases, jobs=1, report=click.echo)
        children = DeviceChildren(leases, click.echo)
        try:
            yield Runner(self.settings, builder, children)
        finally:
            builder.close()
            children.close()


@contextmanager
def single_op(target: str, device: str, size: tuple[int, int, int], lhs: str, *, count: int = 1) -> Iterator[SingleOp]:
    """A matmul of M, N and K as ``size`` says on ``device``, in a directory that is removed again.

    Besides its default config it has ``count`` candidates, or as many as there are.
    """
    compiler = Compiler(Target.parse(target))
    m, n, k = size
    source = read_source(ops.matmul(m=m, n=n, k=k, lhs=lhs), Path())
    (task,) = make_plan([source], compiler, processors=processors(), count=count, seed=0).tasks
    with DeviceChild(device) as child:
        device_name = child.info().name
    with tempfile.TemporaryDirectory(prefix="single-op-") as name:
        directory = Path(name)
        settings = RunSettings.in_directory(directory, [device], device_name, jobs=1)
        described = f"{task.name} for {target} on {device_name} ({device}), {processors()} processors"
        yield SingleOp(task, compiler, settings, Cache(directory / "cache"), described)


def quantiles(values: list[float]) -> str:
    """The range of ``values`` in percent, at 0, 5, 25, 50, 75, 95 and 100 of a hundred."""
    return " ".join(f"{100 * float(each):+.2f}" for each in np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
