"""Whether a reported speedup is what a fresh process measures: ``python benchmarks/honesty.py``.

Tunes a small matmul many times, each time by ``pytest --tune`` in a process of its own, with another seed and so with
other candidates, other inputs and another order. The interval that a run reports for its winner (where nothing won, for
its best finalist) is then compared with one that is measured afresh: the same config beside the default in one new
process of the device, as in a round of a final, with another seed. Two intervals agree where they overlap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import FinalRecord, State
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.runner import Runner
from pytest_shark_tune.tuning.settings import RunSettings

_WANTED = 0.9
_SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m={0}, n={1}, k={2}, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    pass
"""
_FRESH = 1000
"""The number of the round measured afresh: no final has as many, so its inputs and its order are new."""


class Ratio(msgspec.Struct, frozen=True):
    """A ratio to the default with its interval."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What the run with ``seed`` reported of ``candidate``, and what a new process measured."""

    seed: int
    candidate: str
    won: bool
    reported: Ratio
    fresh: Ratio

    @property
    def overlaps(self) -> bool:
        """Whether the intervals have a point in common."""
        return self.reported.low <= self.fresh.high and self.fresh.low <= self.reported.high


@click.command()
@click.option("--runs", default=20, show_default=True, help="Tuning runs.")
@click.option("--candidates", "count", default=12, show_default=True, help="Candidates of a run.")
@click.option("--size", type=(int, int, int), default=(256, 256, 256), show_default=True, help="M, N and K.")
@click.option("--target", default="llvm-cpu", show_default=True, help="What to compile for.")
@click.option("--device", default="local-task", show_default=True, help="URI of the device to measure on.")
@click.option(
    "--seed", "first_seed", default=0, show_default=True, help="Seed of the first run; the next have the next."
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the pairs of intervals to this file, too.")
def main(
    runs: int, count: int, size: tuple[int, int, int], target: str, device: str, first_seed: int, out: Path | None
) -> None:
    """Compare the interval that each of many runs reports with one measured afresh."""
    with DeviceChild(device) as child:
        name = child.info().name
    click.echo(
        f"matmul {'x'.join(map(str, size))} f32 for {target} on {name} ({device}), {processors()} processors, "
        f"load {os.getloadavg()[0]:.2f}: {runs} runs of {count} candidates"
    )
    started = time.monotonic()
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="honesty-") as directory:
        for seed in range(first_seed, first_seed + runs):
            pair = _pair(Path(directory), seed, count, size, target, device)
            if pair is None:
                click.echo(f"seed {seed}: no candidate came to the final, so nothing was reported")
                continue
            pairs.append(pair)
            click.echo(
                f"seed {seed}: {pair.candidate} {'won' if pair.won else 'was best'}, reported {pair.reported}, "
                f"afresh {pair.fresh}: {'overlap' if pair.overlaps else 'APART'}"
            )
    agreed = sum(pair.overlaps for pair in pairs)
    verdict = "reaches" if pairs and agreed >= _WANTED * runs else "misses"
    click.echo(
        f"\n{agreed} of {runs} reported intervals overlap the one measured afresh: {verdict} {_WANTED * runs:g}\n"
        f"{sum(pair.won for pair in pairs)} runs had a winner; {time.monotonic() - started:.0f} s in all"
    )
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(pairs)) + b"\n")


def _pair(directory: Path, seed: int, count: int, size: tuple[int, int, int], target: str, device: str) -> Pair | None:
    final = _tuned(directory, seed, count, size, target, device)
    measured = [each for each in final.finalists if each.state is State.MEASURED and each.ratio]
    if not measured:
        return None
    best = final.finalist(final.winner) if final.winner else max(measured, key=lambda each: each.ratio or 0)
    with _runner(directory, seed, count, size, target, device) as (runner, task):
        fresh = _measured_afresh(runner, task, best.id)
    return Pair(
        seed=seed,
        candidate=best.id,
        won=final.winner is not None,
        reported=Ratio(best.ratio or 0, best.ratio_low or 0, best.ratio_high or 0),
        fresh=Ratio(fresh.ratio, fresh.ratio_low, fresh.ratio_high),
    )


def _tuned(directory: Path, seed: int, count: int, size: tuple[int, int, int], target: str, device: str) -> FinalRecord:
    """Tune in a pytest of its own, whose final is what it reports in its summary; the spec is not verified."""
    suite, out = directory / "test_matmul.py", directory / f"out-{seed}"
    suite.write_text(_SUITE.format(*size), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "-k", "not spec", suite.name),
        *("--tune", "--tune-fresh", f"--tune-trials={count}", f"--tune-seed={seed}", f"--tune-target={target}"),
        *(f"--tune-device={device}", "--tune-cache=cache", f"--tune-out={out.name}"),
    ]
    done = subprocess.run(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    (final,) = journal.read(out / "finals.jsonl", FinalRecord)
    return final


@contextmanager
def _runner(
    directory: Path, seed: int, count: int, size: tuple[int, int, int], target: str, device: str
) -> Iterator[tuple[Runner, Task]]:
    """What the run with ``seed`` measured with, on what it compiled."""
    compiler = Compiler(Target.parse(target))
    m, n, k = size
    source = read_source(ops.matmul(m=m, n=n, k=k, lhs="f32"), Path())
    (task,) = make_plan([source], compiler, processors=processors(), count=count, seed=seed).tasks
    settings = RunSettings.in_directory(directory, [device], device, jobs=1, seed=seed)
    leases = DeviceLeases(settings.devices)
    builder = Builder(compiler, Cache(directory / "cache"), leases, jobs=settings.jobs, report=click.echo)
    children = DeviceChildren(leases, click.echo)
    try:
        yield Runner(settings, builder, children), task
    finally:
        builder.close()
        children.close()


def _measured_afresh(runner: Runner, task: Task, candidate: str) -> Measurement:
    """One round beside the default in a new process of the device."""
    measured, failed = runner.round(task, [candidate], _FRESH)
    if candidate in failed:
        raise click.ClickException(f"{candidate} could not be measured again: {failed[candidate]}")
    return measured[candidate]


if __name__ == "__main__":
    main()
