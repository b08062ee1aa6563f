"""How often guarding fails though nothing changed: ``python benchmarks/guard_aa.py`` (200 runs, half an hour).

A suite of two small matmuls is tuned once. Its spec is then guarded again and again, each time by
``pytest --tune-guard`` in a process of its own, as CI does. Whatever is broken is a false alarm.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import msgspec
from guarded_suite import GuardedSuite, show

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.system.machine import processors

_SIZES = ((251, 257, 127), (256, 512, 256))
"""The default of the first, whose sizes are primes, is slow: it has a winner on any machine."""


class Report(msgspec.Struct, frozen=True):
    """All verdicts on speed, and everything that was broken, by the number of the run."""

    what: str
    speeds: list[Verdict]
    broken: dict[int, list[Verdict]]
    seconds: float


@click.command()
@click.option("--count", default=200, show_default=True, help="Runs.")
@click.option("--candidates", default=12, show_default=True, help="Candidates tried per dispatch while tuning.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--device", default="local-task", show_default=True, help="An IREE device URI.")
@click.option("--at-most", default=1, show_default=True, help="Exit with 1 where more runs than this fail.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds after which no more runs are started.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def main(count: int, candidates: int, target: str, device: str, at_most: int, limit: float, out: Path | None) -> None:
    """Guard an unchanged suite many times, and count the runs that fail."""
    started = time.perf_counter()
    what = f"{len(_SIZES)} matmuls for {target} on {device}, {processors()} processors, load {os.getloadavg()[0]:.2f}"
    click.echo(what)
    speeds: list[Verdict] = []
    broken: dict[int, list[Verdict]] = {}
    with tempfile.TemporaryDirectory(prefix="guard-aa-") as directory:
        suite = GuardedSuite(Path(directory), target, device)
        suite.tune(_SIZES, candidates)
        for number in range(1, count + 1):
            before = time.perf_counter()
            verdicts = suite.guard(suite.spec)
            now = time.perf_counter()
            run = [each for each in verdicts if each.check is EntryCheck.FAST]
            speeds += run
            if bad := [each for each in verdicts if each.outcome is CheckOutcome.FAILED]:
                broken[number] = bad
            click.echo(f"  run {number}: {'; '.join(map(show, run))}; {now - before:.1f} s")
            if now - started > limit:
                click.echo(f"stopped after {number} runs: --limit {limit:g} is spent")
                break
    seconds = round(time.perf_counter() - started, 1)
    for number, bad in broken.items():
        click.echo("\n".join(f"run {number}, {each.check}: {each.reason}" for each in bad))
    counts = Counter(each.outcome for each in speeds)
    told = ", ".join(f"{counts[each]} {each}" for each in CheckOutcome)
    click.echo(
        f"{len(speeds)} speeds of {number} runs: {told}; {len(broken)} runs failed, {at_most} may; {seconds:.0f} s"
    )
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(Report(what, speeds, broken, seconds))) + b"\n")
    if len(broken) > at_most:
        sys.exit(1)


if __name__ == "__main__":
    main()
