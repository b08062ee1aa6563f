"""What a second worker brings: candidates a minute of ``pytest SUITE --tune`` with -n 1 and with -n 2.

Run ``python benchmarks/scaling.py --target cuda:sm_89`` on a machine with two GPUs. Each run has a cache of its own and
a copy of the suite, so it compiles everything and leaves no snapshot; seed and candidates are the same. The runs are
interleaved, each round in the other order, so that what else the machine does falls on both. On one device a second
worker brings nothing: there only that it works is seen.

This file is a pytest plugin, too: in the runs it writes down when candidates begin and end.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec
import pytest

from pytest_shark_tune.records.types import Record
from pytest_shark_tune.results.summary import DispatchSummary, Summary
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.machine import processors

_CLOCK = "SHARK_TUNE_SCALING_CLOCK"
_WANTED = 1.8
_LATER = ("-final]", "[spec]")


class Winner(msgspec.Struct, frozen=True):
    """Who won a dispatch in a run, if anybody, with the ratio to the default and its interval."""

    id: str | None
    ratio: float | None
    low: float | None
    high: float | None


class Run(msgspec.Struct, frozen=True):
    """One run: its workers, the candidates that were tried, and the seconds that trying them and all of it took."""

    workers: int
    candidates: int
    screening_s: float
    whole_s: float
    winners: dict[str, Winner]

    @property
    def screening_rate(self) -> float:
        """Candidates a minute while candidates were tried, their compilation included."""
        return 60 * self.candidates / self.screening_s

    @property
    def whole_rate(self) -> float:
        """Candidates a minute of the whole run: planning, finals and verifying included."""
        return 60 * self.candidates / self.whole_s


class Scaling(msgspec.Struct, frozen=True):
    """What ``--json`` writes; the rates are medians over the rounds, ``agree`` is by dispatch."""

    target: str
    devices: str
    jobs: int
    screening_rates: dict[str, float]
    whole_rates: dict[str, float]
    screening_ratio: float
    whole_ratio: float
    agree: dict[str, bool]
    runs: list[Run]


@click.command()
@click.option(
    "--suite",
    default="tuning_suites/quickstart",
    show_default=True,
    type=click.Path(exists=True, path_type=Path),
    help="The suite, or model, that is tuned.",
)
@click.option("--target", default="llvm-cpu", show_default=True, help="As --tune-target.")
@click.option("--devices", default="", help="As --tune-device.")
@click.option("--candidates", "count", default=60, show_default=True, help="As --tune-trials.")
@click.option("--seed", default=0, show_default=True, help="As --tune-seed.")
@click.option("--jobs", default=processors(), show_default=True, help="As --tune-jobs, for all workers together.")
@click.option("--rounds", default=2, show_default=True, help="Runs with -n 1 and with -n 2.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
def main(
    suite: Path, target: str, devices: str, count: int, seed: int, jobs: int, rounds: int, out: Path | None
) -> None:
    """Compare the candidates a minute of one worker with those of two."""
    arguments = ["--tune", f"--tune-target={target}", f"--tune-trials={count}", f"--tune-seed={seed}"]
    arguments += [f"--tune-jobs={jobs}", *([f"--tune-device={devices}"] if devices else [])]
    click.echo(f"{suite} for {target}, {count} candidates, {processors()} processors, load {os.getloadavg()[0]:.2f}\n")
    runs: list[Run] = []
    for number in range(rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            runs.append(_run(workers, suite, arguments))
            click.echo(f"round {number + 1}, {_in_words(runs[-1])}")
    scaling = _compared(runs, target, devices, jobs)
    verdict = "reaches" if scaling.screening_ratio >= _WANTED else "misses"
    click.echo(
        f"\n-n 2 by -n 1: {scaling.screening_ratio:.2f} times the candidates a minute ({verdict} {_WANTED}), "
        f"{scaling.whole_ratio:.2f} times over the whole run"
    )
    for dispatch, agree in scaling.agree.items():
        click.echo(f"{dispatch}: the winners {'agree within noise' if agree else 'DIFFER'}")
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(scaling)) + b"\n")


def _run(workers: int, suite: Path, arguments: Sequence[str]) -> Run:
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        directory = Path(name)
        clock = directory / "clock.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "scaling", f"-n{workers}", "--max-worker-restart=0"]
        command += [
            f"--tune-cache={directory / 'cache'}",
            f"--tune-out={directory / 'out'}",
            *arguments,
            _copied(suite, directory),
        ]
        paths = [os.fspath(Path(__file__).resolve().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), _CLOCK: os.fspath(clock)}
        # The driver keeps what it made of a candidate's PTX: a later run of the same ones would load them faster.
        env["CUDA_CACHE_PATH"] = os.fspath(directory / "cuda")
        started = time.monotonic()
        done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
        whole_s = time.monotonic() - started
        if done.returncode:
            raise click.ClickException(f"pytest exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        events = journal.read(clock, Event)
        trials = [event.when for event in events if not event.nodeid.endswith(_LATER)]
        tried = [each for each in journal.read(directory / "out" / "records.jsonl", Record) if each.id != DEFAULT_ID]
        summary = msgspec.json.decode((directory / "out" / "summary.json").read_bytes(), type=Summary)
        return Run(
            workers=workers,
            candidates=len(tried),
            screening_s=round(max(trials) - min(trials), 3),
            whole_s=round(whole_s, 3),
            winners={row.name: _winner(row) for row in summary.dispatches},
        )


def _copied(suite: Path, directory: Path) -> str:
    copy = directory / suite.resolve().name
    if suite.is_dir():
        shutil.copytree(suite, copy, ignore=shutil.ignore_patterns("__specs__", "__pycache__"))
    else:
        shutil.copy(suite, copy)
    return os.fspath(copy)


def _winner(row: DispatchSummary) -> Winner:
    return Winner(row.winner, row.speedup, row.speedup_low, row.speedup_high)


def _compared(runs: Sequence[Run], target: str, devices: str, jobs: int) -> Scaling:
    screening, whole = (
        {workers: statistics.median(getattr(run, rate) for run in runs if run.workers == workers) for workers in (1, 2)}
        for rate in ("screening_rate", "whole_rate")
    )
    return Scaling(
        target=target,
        devices=devices,
        jobs=jobs,
        screening_rates=_named(screening),
        whole_rates=_named(whole),
        screening_ratio=round(screening[2] / screening[1], 3),
        whole_ratio=round(whole[2] / whole[1], 3),
        agree=_agreement(runs),
        runs=list(runs),
    )


def _named(rates: Mapping[int, float]) -> dict[str, float]:
    return {f"-n {workers}": round(rate, 1) for workers, rate in rates.items()}


def _agreement(runs: Sequence[Run]) -> dict[str, bool]:
    """For each dispatch, whether the winners of -n 1 and of -n 2 are the same or their intervals overlap."""
    won: defaultdict[str, dict[int, list[Winner]]] = defaultdict(lambda: {1: [], 2: []})
    for run in runs:
        for dispatch, winner in run.winners.items():
            won[dispatch][run.workers].append(winner)
    return {
        dispatch: all(_agree(one, two) for one in winners[1] for two in winners[2]) for dispatch, winners in won.items()
    }


def _agree(one: Winner, two: Winner) -> bool:
    if one.id == two.id:
        return True
    # Who did not win is worth the default, within what the other's interval leaves open.
    lows, highs = ([each.low or 1.0 for each in (one, two)], [each.high or 1.0 for each in (one, two)])
    return max(lows) <= min(highs)


def _in_words(run: Run) -> str:
    winners = ", ".join(
        f"{dispatch}: {winner.id} {winner.ratio:.3f} ({winner.low:.3f} to {winner.high:.3f})"
        if winner.id and winner.ratio and winner.low and winner.high
        else f"{dispatch}: no winner"
        for dispatch, winner in run.winners.items()
    )
    return (
        f"-n {run.workers}: {run.candidates} candidates, {run.screening_rate:.1f} a minute in {run.screening_s:.1f} s "
        f"of trying them, {run.whole_rate:.1f} a minute in {run.whole_s:.1f} s of all; {winners}"
    )


# As a plugin of the runs.


class Event(msgspec.Struct, frozen=True):
    """A test began or ended at ``when``, in Unix time."""

    nodeid: str
    when: float


def _note(nodeid: str) -> None:
    path = os.environ.get(_CLOCK)
    if path and "PYTEST_XDIST_WORKER" not in os.environ and "[" in nodeid:
        journal.append(Path(path), Event(nodeid, time.time()))


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    _note(nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test has gone through one of its phases."""
    _note(report.nodeid)


if __name__ == "__main__":
    main()
