"""What a candidate costs beyond compiling it and beyond its samples: ``python benchmarks/overhead.py``.

Tunes a small f32 matmul with ``pytest --tune`` twice, without its final. The first run fills the cache; in the second,
nothing is compiled, and each candidate's time is divided up:

- *Sample time* is what the device spends on timing: the seconds that the child reports of the batches that it was asked
  for, among them the first glance at a candidate and everything of the default beside it.
- *Overhead* is all else, from the end of one test to the end of the next: looking the artifact up, loading it, the
  check of its result (fill the buffer, run once, read back, compare), asking the child, statistics, record and journal,
  pytest itself.

The wait for a device that another worker, or another run, holds is neither. With ``--workers`` the run as a whole is
told, too: its time less all samples, by its candidates; what one does while the other measures costs nothing there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import click
import msgspec
from overhead_probe import COMPILE, DIRECTORY, SAMPLES, WAIT, TestTimes

from pytest_shark_tune.device.identity import cpu_name
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.machine import processors

_WANTED_MS = 25.0
_SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m={size}, n={size}, k={size}, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    pass
"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds a candidate, over ``candidates`` that were measured; ``of_run`` is the run's time less all samples.

    ``parts`` are means of what the overhead went into, largest first.
    """

    device: str
    workers: int
    candidates: int
    mean: float
    median: float
    percentile_90: float
    of_run: float
    samples: float
    wait: float
    parts: dict[str, float]


@click.command()
@click.option("--candidates", "count", default=60, show_default=True, help="Candidates, at least 40.")
@click.option("--size", default=256, show_default=True, help="Size of the square matmul.")
@click.option("--workers", default=0, show_default=True, help="The number that goes to pytest's -n.")
@click.option("--target", default="llvm-cpu", show_default=True, help="What to compile for.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file, too.")
def main(count: int, size: int, workers: int, target: str, out: Path | None) -> None:
    """Print what a candidate costs beyond compiling it and beyond its samples."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        directory = Path(name)
        suite = directory / "test_matmul.py"
        suite.write_text(_SUITE.format(size=size), encoding="utf-8")
        _tune(directory, count, workers, target)
        processes = _tune(directory, count, workers, target)
        known = _measured(directory)
    report = _report(processes, known, workers)
    _show(report, size, target)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _tune(directory: Path, count: int, workers: int, target: str) -> list[list[TestTimes]]:
    """Tune once; the tests of each process that ran any, in order."""
    probes = Path(tempfile.mkdtemp(dir=directory))
    here = os.fspath(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "overhead_probe", "-p", "no:cacheprovider", f"-n{workers}"),
        *(
            "--tune",
            "--tune-fresh",
            f"--tune-trials={count}",
            f"--tune-target={target}",
            "--tune-cache=cache",
            "--tune-out=out",
        ),
        *("-k", "not final and not spec", "test_matmul.py"),
    ]
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, DIRECTORY: os.fspath(probes)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    found = [msgspec.json.decode(probe.read_bytes(), type=list[TestTimes]) for probe in probes.iterdir()]
    # With workers the controller sees their tests too, and does nothing in them.
    return [tests for tests in found if any(SAMPLES in test.parts for test in tests)]


def _measured(directory: Path) -> set[str]:
    """The ids of the candidates that were measured."""
    records = journal.read(directory / "out" / "records.jsonl", Record)
    return {record.id for record in records if record.state is State.MEASURED} - {DEFAULT_ID}


def _report(processes: Sequence[Sequence[TestTimes]], known: Collection[str], workers: int) -> Report:
    """The first test of each process is left out, as is the default's: much in them is done once for all candidates.

    So is a test during which something was compiled again, which the cache does not keep if it failed for want of time.
    """
    rest = [test for tests in processes for test in tests[1:] if COMPILE not in test.parts]
    measured = [test for test in rest if _id(test) in known]
    overheads = [_overhead(test) for test in measured]
    names = {part for test in measured for part in test.parts} - {SAMPLES, WAIT}
    means = {name: _mean_ms([test.parts.get(name, 0.0) for test in measured]) for name in names}
    seconds = max(test.ended for test in measured) - min(test.started for test in measured)
    samples = sum(test.parts.get(SAMPLES, 0.0) for test in measured)
    return Report(
        device=f"{cpu_name()}, {processors()} processors",
        workers=workers,
        candidates=len(measured),
        mean=_mean_ms(overheads),
        median=round(1e3 * statistics.median(overheads), 2),
        percentile_90=round(1e3 * statistics.quantiles(overheads, n=10)[-1], 2),
        of_run=round(1e3 * (seconds - samples) / len(measured), 2),
        samples=_mean_ms([test.parts.get(SAMPLES, 0.0) for test in measured]),
        wait=_mean_ms([test.parts.get(WAIT, 0.0) for test in measured]),
        parts=dict(sorted(means.items(), key=lambda part: -part[1])),
    )


def _overhead(test: TestTimes) -> float:
    return sum(seconds for part, seconds in test.parts.items() if part not in (SAMPLES, WAIT))


def _id(test: TestTimes) -> str:
    return test.name.rpartition("-")[2].rstrip("]")


def _mean_ms(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.fmean(seconds), 2)


def _show(report: Report, size: int, target: str) -> None:
    click.echo(
        f"{report.candidates} measured candidates of a {size}x{size}x{size} f32 matmul for {target}, from the cache\n"
        f"-n {report.workers} on {report.device}, load {os.getloadavg()[0]:.2f}\n"
        "sample time is what the device spends on timing; the check of results is overhead\n"
    )
    click.echo(f"{report.samples:8.2f} ms of samples a candidate")
    click.echo(f"{report.wait:8.2f} ms of waiting for the device, which another worker or another run has")
    click.echo(f"{report.mean:8.2f} ms of overhead a candidate, of which")
    for name, mean in report.parts.items():
        click.echo(f"{mean:12.2f} {name}")
    verdict = "reaches" if report.mean <= _WANTED_MS else "misses"
    click.echo(
        f"\noverhead a candidate: mean {report.mean:.1f} ms, median {report.median:.1f} ms, 90th percentile "
        f"{report.percentile_90:.1f} ms: {verdict} {_WANTED_MS:g} ms"
    )
    if report.workers:
        click.echo(f"{report.of_run:.1f} ms a candidate of the run as a whole, waiting for other runs included")


if __name__ == "__main__":
    main()
