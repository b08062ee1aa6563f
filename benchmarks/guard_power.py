"""Whether guarding tells a slower config: ``python benchmarks/guard_power.py --target cuda:sm_89 --device cuda://0``.

A matmul is tuned. Among the configs that were measured meanwhile one is looked for that is 15% slower than the winner,
and one that is 30% slower, and how slow they really are is measured in fresh processes. Each then takes the winner's
place in the spec and its records, with the winner's figures, and is guarded many times, each time by
``pytest --tune-guard`` in a process of its own. First comes how far two equal configs differ (A/A): where that is more
than 1%, nothing is asked.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
from guarded_suite import GuardedSuite, show
from single_op import SingleOp, single_op

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import MOST_ROUNDS, Measurement
from pytest_shark_tune.plan.types import POOL
from pytest_shark_tune.records.snapshot import read_records, write_spec
from pytest_shark_tune.records.types import Record, State, WinnerRecord
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.runner import Runner

WANTED = {1.15: 0.95, 1.30: 1.0}
"""In what part of the runs a slowdown should fail, where two equal configs are told apart to ``QUIET``."""

QUIET = 0.01
_NEAREST = 3
_BY_LUCK = 0.03
"""How much less than wanted a config found may be slower."""
_FAR = 0.08


class Guarded(msgspec.Struct, frozen=True):
    """How runs ended with a config that is ``slowdown`` times as slow as the winner, where ``wanted`` was."""

    wanted: float
    slowdown: float
    candidate: str
    broken: int
    undecided: int
    kept: int


class Report(msgspec.Struct, frozen=True):
    """All figures; ``half_width`` is that of the interval of a config beside itself."""

    what: str
    half_width: float
    recorded: tuple[float, float, float]
    guarded: list[Guarded]
    seconds: float


@click.command()
@click.option("--runs", default=40, show_default=True, help="Runs for each slower config.")
@click.option("--candidates", default=60, show_default=True, help="Candidates tried while tuning.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--device", default="local-task", show_default=True, help="An IREE device URI.")
@click.option("--size", nargs=3, default=(512, 512, 512), show_default=True, help="M, N and K of the matmul.")
@click.option("--lhs", default="f32", show_default=True, help="Element type of the matmul.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds after which no more runs are started.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def main(
    runs: int,
    candidates: int,
    target: str,
    device: str,
    size: tuple[int, int, int],
    lhs: str,
    limit: float,
    out: Path | None,
) -> None:
    """Guard a spec whose entry has become slower, and count the runs that fail."""
    started = time.perf_counter()
    with (
        single_op(target, device, size, lhs, count=POOL) as op,
        op.runner() as runner,
        tempfile.TemporaryDirectory(prefix="guard-power-") as directory,
    ):
        click.echo(f"{op.name}, load {os.getloadavg()[0]:.2f}")
        suite = GuardedSuite(Path(directory), target, device)
        suite.tune([size], candidates, lhs)
        (winner,) = read_records(suite.spec)
        same = _measured(op, runner, DEFAULT_ID)
        half_width = math.log(same.ratio_high / same.ratio)
        click.echo(f"A/A: half-width {half_width:.2%} from {same.rounds} processes{_unasked(half_width)}")
        fastest = _measured(op, runner, winner.id)
        click.echo(f"winner {winner.id}: {fastest.ratio:.3f}, recorded {_interval(winner)}")
        guarded = []
        for wanted in WANTED:
            name, slowdown = _slower(op, runner, journal.read(suite.records, Record), fastest, winner, wanted)
            far = "" if slowdown < wanted + _FAR else "; none nearer was found, more --candidates may find one"
            click.echo(f"{name} takes the place of {winner.id}: {slowdown:.3f} times as slow{far}")
            spec = Path(directory) / f"slower-{wanted}.mlir"
            write_spec(spec, [_replaced(winner, op, name)])
            counts = _guard(suite, spec, runs, started + limit)
            guarded.append(
                Guarded(
                    wanted,
                    round(slowdown, 4),
                    name,
                    counts[CheckOutcome.FAILED],
                    counts[CheckOutcome.UNDECIDED],
                    counts[CheckOutcome.PASSED],
                )
            )
    recorded = (winner.ratio or 0, winner.ratio_low or 0, winner.ratio_high or 0)
    report = Report(op.name, half_width, recorded, guarded, round(time.perf_counter() - started, 1))
    missed = _report(report)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if missed and half_width < QUIET:
        sys.exit(1)


def _measured(op: SingleOp, runner: Runner, name: str) -> Measurement:
    """A config beside the default, in as many fresh processes as a final has at most."""
    candidate = op.task.candidate(name)
    return combine_rounds([runner.guard_round(op.task, candidate, number) for number in range(MOST_ROUNDS)])


def _slower(
    op: SingleOp, runner: Runner, records: Iterable[Record], fastest: Measurement, winner: WinnerRecord, wanted: float
) -> tuple[str, float]:
    """The config that is nearest to ``wanted`` times as slow as the winner, and how slow it is; seldom less slow.

    The nearest few by what was measured once are measured again.
    """
    measured = {each.id: each.ratio for each in records if each.state is State.MEASURED and each.ratio}
    measured.pop(DEFAULT_ID, None)
    bar = measured.pop(winner.id) / wanted
    nearest = sorted(measured, key=lambda name: abs(math.log(measured[name] / bar)))[:_NEAREST]
    slowdowns = {name: fastest.ratio / _measured(op, runner, name).ratio for name in nearest}
    enough = {name: slow for name, slow in slowdowns.items() if slow >= wanted - _BY_LUCK} or slowdowns
    name = min(enough, key=lambda each: (abs(enough[each] - wanted), each))
    return name, enough[name]


def _replaced(winner: WinnerRecord, op: SingleOp, name: str) -> WinnerRecord:
    """The winner's record with another config: as if that had been as fast when it was recorded."""
    slower = op.task.candidate(name)
    return msgspec.structs.replace(
        winner,
        id=slower.id,
        pipeline=slower.pipeline,
        knobs=slower.knobs,
        config=slower.config,
        compilation_info=slower.compilation_info,
    )


def _guard(suite: GuardedSuite, spec: Path, runs: int, end: float) -> Counter[CheckOutcome]:
    counts: Counter[CheckOutcome] = Counter()
    for number in range(1, runs + 1):
        before = time.perf_counter()
        (speed,) = (each for each in suite.guard(spec) if each.check is EntryCheck.FAST)
        counts[speed.outcome] += 1
        now = time.perf_counter()
        click.echo(f"  run {number}: {show(speed)}; {now - before:.1f} s")
        if now > end:
            click.echo(f"stopped after {number} runs: --limit is spent")
            break
    return counts


def _report(report: Report) -> bool:
    """Print how often each slower config failed; whether that was too seldom for one of them."""
    click.echo(f"\nA/A: half-width {report.half_width:.2%}{_unasked(report.half_width)}")
    missed = False
    for each in report.guarded:
        count = each.broken + each.undecided + each.kept
        reaches = each.broken >= WANTED[each.wanted] * count
        missed = missed or not reaches
        click.echo(
            f"{each.slowdown:.3f} times as slow: {each.broken} of {count} runs failed, {each.undecided} were "
            f"undecided: {'reaches' if reaches else 'misses'} {WANTED[each.wanted]:.0%}"
        )
    click.echo(f"{report.seconds:.0f} s")
    return missed


def _unasked(half_width: float) -> str:
    return f"; over {QUIET:.0%}, so nothing is asked of this machine" if half_width >= QUIET else ""


def _interval(winner: WinnerRecord) -> str:
    return f"{winner.ratio or 0:.3f} ({winner.ratio_low or 0:.3f} to {winner.ratio_high or 0:.3f})"


if __name__ == "__main__":
    main()
