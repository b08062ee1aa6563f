"""How many candidates a minute the package tries, beside a loop that starts a compiler and a benchmark for each.

Run ``python benchmarks/throughput.py``. Both sides try the same candidates of a 512x512x512 f32 matmul, one after the
other in rounds, so that what else the machine does falls on both:

- A is the package: configure, compile in the pool, load, check the result, compare with the default. The cache is
  empty, the child of the device is started anew, and the default config is compiled and measured as well.
- B is the plain loop: ``iree-compile`` of the module that is already configured, then ``iree-benchmark-module``, as
  processes. It checks nothing and has no baseline.

Run ``python benchmarks/throughput.py --target cuda:sm_89 --before DIR`` to compare with the package in the tree DIR
instead. Both trees try the same random candidates of a matmul, a convolution and an attention, with empty caches, the
driver's included. The shares say how much of the time that a device was held it ran samples.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import iree.runtime
import msgspec
from iree.compiler.tools.binaries import find_tool
from throughput_side import OPS

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.identity import cpu_name
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, SharkTuneError
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.spec.build import single_entry_spec
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

_DEVICE = "local-task"
_TIMEOUT_S = 120.0
_WANTED = 1.6
_WANTED_OF_TREES = 4.0
_TREE_TIMEOUT_S = 600.0


class Side(NamedTuple):
    """One side of a round: the seconds it took, and how many candidates came to no time."""

    seconds: float
    failed: int


@click.command()
@click.option("--candidates", "count", default=24, show_default=True, help="Candidates in a round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of A, then B.")
@click.option("--seed", default=0, show_default=True, help="Seed of the candidates.")
@click.option("--jobs", default=processors(), show_default=True, help="Compilations at a time of A.")
@click.option("--size", default=512, show_default=True, help="Size of the square matmul.")
@click.option("--target", default="llvm-cpu", show_default=True, help="With --before: what to compile for.")
@click.option("--device", default="", help="With --before: IREE's URI of the device; the target's driver unless given.")
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A tree with an earlier package, to compare with in place of the plain loop.",
)
@click.option("--op", "names", multiple=True, type=click.Choice(list(OPS)), help="With --before: the ops; repeatable.")
def main(
    count: int,
    rounds: int,
    seed: int,
    jobs: int,
    size: int,
    target: str,
    device: str,
    before: Path | None,
    names: tuple[str, ...],
) -> None:
    """Compare the package's candidates per minute with those of a plain loop over processes, or of an earlier tree."""
    if before is not None:
        compared = names or ("matmul", "conv", "attention")
        _compare_trees(before, compared, target, device or Target.parse(target).driver, count, seed)
        return
    compiler = Compiler(Target.parse("llvm-cpu"))
    source = read_source(ops.matmul(m=size, n=size, k=size), Path())
    (task,) = make_plan([source], compiler, processors=processors(), count=count, seed=seed).tasks
    tried = len(task.candidates)
    modules = _configured(task)
    click.echo(
        f"{task.dispatch.name}: {tried} candidates a round, {rounds} rounds, seed {seed}\n"
        f"{cpu_name()}, {processors()} processors, {jobs} compilations at a time in A, load {_load()}\n"
    )
    ratios = []
    for number in range(1, rounds + 1):
        ours = _package(task, compiler, jobs, seed)
        between = _load()
        loop = _plain_loop(modules, compiler)
        ratios.append(loop.seconds / ours.seconds)
        click.echo(
            f"round {number}: A {_rate(tried, ours)}, B {_rate(tried, loop)}, ratio {ratios[-1]:.2f}"
            f" (load {between}, then {_load()})"
        )
    median = statistics.median(ratios)
    verdict = "reaches" if median >= _WANTED else "misses"
    click.echo(f"\nmedian ratio {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f}): {verdict} {_WANTED}")


def _compare_trees(before: Path, names: Sequence[str], target: str, device: str, count: int, seed: int) -> None:
    """Try the same candidates with an earlier tree and with this one, op after op."""
    trees = {"before": before.resolve(), "now": Path(__file__).resolve().parents[1]}
    for name in names:
        rates = {}
        for label, tree in trees.items():
            found = _of_tree(tree, [name, target, device, str(count), str(seed)])
            rates[label] = 60 * found.pop("tried") / found["seconds"]
            held, busy, seconds = found.pop("held_s"), found.pop("busy_s"), found.pop("seconds")
            states = ", ".join(f"{number:g} {state}" for state, number in found.items())
            click.echo(
                f"{name} {label}: {rates[label]:.1f} candidates/min ({seconds:.1f} s, held {held:.1f} s, running "
                f"samples {busy:.1f} s: {busy / held:.0%} of it; {states})"
            )
        ratio = rates["now"] / rates["before"]
        verdict = "reaches" if ratio >= _WANTED_OF_TREES else "misses"
        click.echo(f"{name}: {ratio:.2f} times as many: {verdict} {_WANTED_OF_TREES:g}\n")


def _of_tree(tree: Path, arguments: Sequence[str]) -> dict[str, float]:
    path = os.pathsep.join(filter(None, [os.fspath(tree), os.environ.get("PYTHONPATH", "")]))
    script = Path(__file__).resolve().with_name("throughput_side.py")
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-P", os.fspath(script), *arguments]
    printed = process.run(command, timeout_s=_TREE_TIMEOUT_S, env=environment).stdout
    return dict(msgspec.json.decode(printed.splitlines()[-1], type=dict[str, float]))


def _configured(task: Task) -> list[str]:
    """The benchmark module once for each candidate, with its config applied."""
    module = task.dispatch.members[0].module
    return [
        configure_with(module.text, single_entry_spec(task.dispatch.root, candidate.compilation_info)).text
        for candidate in task.candidates
    ]


def _package(task: Task, compiler: Compiler, jobs: int, seed: int) -> Side:
    """Side A: what the plugin does for each test of the dispatch, from an empty cache on."""
    failed = 0
    with _session(compiler, jobs, seed) as session:
        started = time.perf_counter()
        for candidate in (task.default, *task.candidates):
            try:
                session.runner.measure(task, candidate, session.builder.artifact(task, candidate))
            except CandidateFailed as failure:
                if candidate is task.default:
                    raise
                # The time of a duplicate is known: not to measure it again is part of the gain.
                failed += failure.state != State.DUPLICATE
        return Side(time.perf_counter() - started, failed)


@contextmanager
def _session(compiler: Compiler, jobs: int, seed: int) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        directory = Path(name)
        settings = RunSettings.in_directory(directory, [_DEVICE], cpu_name(), jobs=jobs, seed=seed)
        session = Session(settings, compiler, Cache(directory / "cache"))
        try:
            yield session
        finally:
            session.close()


def _plain_loop(modules: Sequence[str], compiler: Compiler) -> Side:
    """Side B: a compiler and a benchmark for each candidate, one process after the other, on a leased device."""
    failed = 0
    compile_command = [find_tool("iree-compile"), "--compile-from=executable-sources", *compiler.target.flags]
    tool = _benchmark_tool()
    with tempfile.TemporaryDirectory(prefix="throughput-") as name, DeviceLeases([_DEVICE]).acquire():
        source, binary = Path(name, "dispatch.mlir"), Path(name, "dispatch.vmfb")
        started = time.perf_counter()
        for text in modules:
            source.write_text(text, encoding="utf-8")
            try:
                process.run([*compile_command, str(source), "-o", str(binary)], timeout_s=_TIMEOUT_S)
                process.run(
                    [
                        *(tool, f"--module={binary}", f"--device={_DEVICE}"),
                        *("--benchmark_repetitions=3", "--benchmark_min_time=0.05s"),
                    ],
                    timeout_s=_TIMEOUT_S,
                )
            except CommandFailed:
                failed += 1
        return Side(time.perf_counter() - started, failed)


def _benchmark_tool() -> str:
    """The ``iree-benchmark-module`` that lies inside the installed runtime: the script on PATH only starts it."""
    for root in iree.runtime.__path__:
        path = Path(root).parent / "_runtime_libs" / "iree-benchmark-module"
        if path.is_file():
            return os.fspath(path)
    raise SharkTuneError("the installed iree.runtime has no iree-benchmark-module: install iree-base-runtime again")


def _rate(tried: int, side: Side) -> str:
    return f"{60 * tried / side.seconds:.1f} candidates/min ({side.seconds:.1f} s, {side.failed} failed)"


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    main()
