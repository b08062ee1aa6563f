"""Time and peak memory of whole commands on inputs of great size: ``python benchmarks/load.py``.

The inputs are made first, by a process of their own: a spec with 200,000 records beside it, two output directories with
200,000 records together, a suite of 300 dispatches with some 120,000 tests, and a cache of 50,000 entries. Each command
then runs as a process of its own. A row has its wall-clock time, its processor time with that of all processes that it
started, and the peak memory of the largest of them, beside the bar for each. The exit status is 1 if a bar is missed.

The bars on time are for a machine that does nothing else. Where others are at work too, the wall-clock time tells
nothing, and guarding waits for runs that measure. So a command also passes if its processor time, divided by the
processors that it can use, is within the bar: ``--wall`` judges by the clock alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:  # What makes inputs is imported only by the process that makes them.
    from pytest_shark_tune.records.types import WinnerRecord

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
_TUNE = (sys.executable, "-c", "from pytest_shark_tune.cli import main; main()")
_RECORDS = 200_000
_DISPATCHES = 300
_ENTRIES = 50_000
_MEBIBYTE = 1 << 20
# As for a user: only the first process compiles the package.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Bar(NamedTuple):
    """The most that a command may take; ``None`` without a limit."""

    seconds: float
    mebibytes: int | None = None
    cores: int = 1
    """The processors that the command keeps busy."""


class Case(NamedTuple):
    """A command on a large input."""

    name: str
    command: tuple[str, ...]
    bar: Bar
    statuses: tuple[int, ...] = (0,)
    """The exit statuses of a run that did its work."""


class Run(NamedTuple):
    """The cost of a command."""

    status: int
    wall_s: float
    cpu_s: float
    mebibytes: int
    text: str
    """The end of its output."""

    def seconds(self, cores: int, *, wall: bool) -> float:
        """The seconds to judge it by."""
        return self.wall_s if wall else min(self.wall_s, self.cpu_s / cores)


@click.group(invoke_without_command=True)
@click.option("--only", default="", help="Run the commands with this text in their name.")
@click.option("--inputs", type=click.Path(file_okay=False, path_type=Path), help="Keep the inputs there, or use them.")
@click.option("--wall", is_flag=True, help="Judge by the wall-clock time alone.")
@click.pass_context
def main(context: click.Context, only: str, inputs: Path | None, wall: bool) -> None:
    """Run the commands, and compare their cost with the bars."""
    if context.invoked_subcommand is not None:
        return
    with tempfile.TemporaryDirectory(prefix="load-") as scratch:
        directory = inputs or Path(scratch)
        click.echo(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
        click.echo(f"{'command':<42}{'wall':>8}{'CPU':>8}{'bar':>8}{'peak':>9}{'bar':>9}")
        sys.exit(1 if _misses(directory.resolve(), only, wall=wall) else 0)


def _misses(directory: Path, only: str, *, wall: bool) -> int:
    """Run the cases of all groups that were asked for; return how many missed a bar."""
    missed = 0
    in_one_process = 0.0
    for group, cases in (("records", _records), ("collection", _collection), ("cache", _cache)):
        chosen = [case for case in cases(directory / group) if only in case.name]
        if chosen:
            _make(group, directory / group)
        for case in chosen:
            if case.name.endswith("cold"):
                shutil.rmtree(directory / group / "cache", ignore_errors=True)
            run = _run(case.command, directory)
            bar = case.bar
            if case.name.endswith("-n8"):
                bar = bar._replace(seconds=2 * in_one_process)
            seconds = run.seconds(bar.cores, wall=wall)
            if case.name.endswith("-n0"):
                in_one_process = run.wall_s if wall else run.cpu_s
            is_missed = seconds > bar.seconds or (bar.mebibytes is not None and run.mebibytes > bar.mebibytes)
            missed += is_missed or run.status not in case.statuses
            most = f"{bar.mebibytes} MiB" if bar.mebibytes else "-"
            click.echo(
                f"{case.name:<42}{run.wall_s:>6.1f} s{run.cpu_s:>6.1f} s{bar.seconds:>6.1f} s{run.mebibytes:>5} MiB"
                f"{most:>9}{'  MISSED' if is_missed else ''}"
            )
            if run.status not in case.statuses:
                click.echo(f"  it ended with the status {run.status}:\n{run.text}")
    return missed


def _records(inputs: Path) -> Iterator[Case]:
    bar = Bar(15, 500)
    spec, outs = inputs / "suite" / "spec.mlir", [str(inputs / name) for name in ("out_a", "out_b")]
    yield Case("show, 200,000 records", (*_TUNE, "show", str(spec)), bar)
    merged = ("merge-records", *outs, "-o", str(inputs / "merged"))
    yield Case("merge-records, 200,000 records", (*_TUNE, *merged), bar)
    guard = (f"--tune-guard={spec}", "-k", "parses or allowed or applies", str(inputs / "suite"))
    # The records of entries that are gone fail.
    yield Case("guard, 200,000 records", (*_PYTEST, "--tb=no", *guard, f"--tune-cache={inputs / 'cache'}"), bar, (0, 1))


def _collection(inputs: Path) -> Iterator[Case]:
    tune = (
        str(inputs),
        "--tune",
        "--tune-form=none",
        f"--tune-out={inputs / 'out'}",
        f"--tune-cache={inputs / 'cache'}",
    )
    yield Case("collect, cold", (*_PYTEST, *tune, "--collect-only"), Bar(100, None, cores=2))
    yield Case("collect, warm", (*_PYTEST, *tune, "--collect-only"), Bar(10, 400))
    # With --collect-only, xdist starts no worker: these end as the first test begins.
    yield Case("to the first test, -n0", (*_PYTEST, *tune, "-n0"), Bar(20), (1,))
    yield Case("to the first test, -n8", (*_PYTEST, *tune, "-n8"), Bar(20, None, cores=2), (1,))


def _cache(inputs: Path) -> Iterator[Case]:
    bar, cache = Bar(5), f"--tune-cache={inputs / 'cache'}"
    tune = (str(inputs / "suite"), "--tune", "--tune-form=none", "--collect-only", f"--tune-out={inputs / 'out'}")
    yield Case("start, cache of 50,000", (*_PYTEST, *tune, cache), bar)
    yield Case("shark-tune cache, 50,000", (*_TUNE, "cache", cache), bar)
    yield Case("evict nearly all, cache of 50,000", (*_PYTEST, *tune, cache, "--tune-cache-size=1M"), bar)


def _make(group: str, directory: Path) -> None:
    """Make the inputs of a group in a process of its own, since its memory would count as that of the commands."""
    if not directory.exists():
        subprocess.run([sys.executable, __file__, "make", group, directory], check=True)


def _run(command: Sequence[str], directory: Path) -> Run:
    """Run a command to its end.

    Its time is that of all processes that it waited for, its memory that of the largest of them.
    """
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=directory, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - started
        output.seek(max(0, output.seek(0, os.SEEK_END) - 2000))
        text = output.read().decode(errors="replace")
    peak = usage.ru_maxrss * 1024 // _MEBIBYTE
    return Run(process.returncode, wall_s, usage.ru_utime + usage.ru_stime, peak, text)


# The inputs.


@main.command(hidden=True)
@click.argument("group")
@click.argument("directory", type=click.Path(path_type=Path))
def make(group: str, directory: Path) -> None:
    """Make the inputs of a group of commands."""
    directory.mkdir(parents=True)
    {"records": _make_records, "collection": _make_collection, "cache": _make_cache}[group](directory)


def _make_records(directory: Path) -> None:
    """A suite with a spec of a few entries and many records beside it, and the outputs of two runs."""
    from msgspec.json import Encoder
    from msgspec.structs import replace

    from pytest_shark_tune.records.snapshot import records_path, write_spec

    suite = directory / "suite"
    suite.mkdir()
    sizes = range(64, 68)
    suite.joinpath("test_load.py").write_text(_suite_text([(size, 64, 64) for size in sizes]), encoding="utf-8")
    winners = _winners(sizes)
    write_spec(suite / "spec.mlir", winners)
    encoder = Encoder()
    with records_path(suite / "spec.mlir").open("ab") as file:
        for number in range(_RECORDS - len(winners)):
            winner = winners[number % len(winners)]
            file.write(encoder.encode(replace(winner, dispatch=f"{winner.dispatch}_{number}")) + b"\n")
    for name, start in (("out_a", 0), ("out_b", _RECORDS)):
        _make_out(directory / name, winners, start)


def _winners(sizes: Sequence[int]) -> list[WinnerRecord]:
    from pytest_shark_tune import ops
    from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
    from pytest_shark_tune.compiler.target import Target
    from pytest_shark_tune.plan.make import make_plan
    from pytest_shark_tune.plan.source import read_sources
    from pytest_shark_tune.records.types import State, WinnerRecord

    sources = read_sources([ops.matmul(m=size, n=64, k=64, lhs="f32") for size in sizes], Path())
    plan = make_plan(sources, Compiler(Target.parse("llvm-cpu")), processors=2, count=2, seed=0)
    return [
        WinnerRecord(
            id=config.id,
            dispatch=task.name,
            pipeline=config.pipeline,
            knobs=config.knobs,
            config=config.config,
            state=State.MEASURED,
            compile_s=0.3,
            samples_us=(10.125, 10.25) * 4,
            baseline_samples_us=(20.125, 20.25) * 4,
            ratio=2.0,
            ratio_low=1.9,
            ratio_high=2.1,
            device="a device",
            target="llvm-cpu",
            iree=compiler_version(),
            root=task.root,
            weight=1,
            compilation_info=config.compilation_info,
            candidates=2,
        )
        for task in plan.tasks
        for config in task.candidates[:1]
    ]


def _make_out(out: Path, winners: Sequence[WinnerRecord], start: int) -> None:
    """The output directory of a run that tried the same number of candidates for many dispatches."""
    from msgspec import convert
    from msgspec.json import Encoder
    from msgspec.structs import replace

    from pytest_shark_tune.records.types import FinalRecord, Record
    from pytest_shark_tune.results.funnel import funnel_of
    from pytest_shark_tune.results.summary import DispatchSummary, RunSummary, Summary, write_summary
    from pytest_shark_tune.search_space.candidate import DEFAULT_ID

    out.mkdir()
    encoder, rows = Encoder(), []
    each = _RECORDS // 2 // len(winners)
    with out.joinpath("records.jsonl").open("wb") as records, out.joinpath("finals.jsonl").open("wb") as finals:
        for winner in winners:
            record = convert(winner, Record, from_attributes=True)
            own = [replace(record, id=name) for name in (DEFAULT_ID, record.id)]
            own += [replace(record, id=f"{number:06x}", ratio=0.5) for number in range(start, start + each - 2)]
            records.write(encoder.encode_lines(own))
            final = FinalRecord.kept(winner)
            finals.write(encoder.encode_lines([final]))
            known = {record.id: record for record in own}
            funnel = funnel_of(list(known), known, {record.id}, untried="")
            rows.append(
                DispatchSummary.of(
                    winner.dispatch,
                    funnel,
                    known,
                    final,
                    winner,
                    weight=1,
                    space=each,
                    dropped="",
                    without_final="",
                    is_custom=False,
                )
            )
    about = winners[0]
    run = RunSummary(
        versions={"iree-base-compiler": about.iree},
        target=about.target,
        device=about.device,
        seconds=1.0,
        complete=True,
    )
    write_summary(out / "summary.json", Summary(run=run, dispatches=tuple(rows), sources=(), untunable=()))


def _make_collection(directory: Path) -> None:
    rows = (8, 16, 24, 32, 48, 64, 80, 96, 128, 160)
    shapes = [(m, 16 * n, 16 * k) for m in rows for n in range(1, 7) for k in range(1, 6)]
    assert len(shapes) == _DISPATCHES
    directory.joinpath("test_load.py").write_text(_suite_text(shapes), encoding="utf-8")
    directory.joinpath("conftest.py").write_text(_ENDS_AT_ONCE, encoding="utf-8")


_ENDS_AT_ONCE = """
import pytest

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Ending())

class Ending:
    def pytest_runtest_logstart(self):
        pytest.exit("all tests are collected", returncode=0)
"""
"""A plugin that ends a run as its first test begins, in the process that controls it."""


def _suite_text(shapes: Sequence[tuple[int, int, int]]) -> str:
    return (
        "import pytest\n"
        "from pytest_shark_tune import ops\n\n"
        f"SHAPES = {shapes!r}\n\n"
        '@pytest.mark.tune(*[ops.matmul(m=m, n=n, k=k, lhs="f32") for m, n, k in SHAPES])\n'
        "def test_dispatch(candidate, artifact, measurement):\n"
        "    pass\n"
    )


def _make_cache(directory: Path) -> None:
    """A cache of values and binaries that were last used two days ago, and a small suite."""
    from pytest_shark_tune.system.cache import BINARY, Cache, content_key

    suite = directory / "suite"
    suite.mkdir()
    suite.joinpath("test_load.py").write_text(_suite_text([(16, 16, 8)]), encoding="utf-8")
    cache = Cache(directory / "cache")
    used_s = time.time() - 172_800
    for number in range(_ENTRIES):
        key = content_key("load", number)
        paths = [cache.file("artifacts", key, suffix) for suffix in (".json", BINARY)]
        for path in paths:
            path.write_bytes(b"0" * 400)
            os.utime(path, (used_s, used_s))


if __name__ == "__main__":
    main()
