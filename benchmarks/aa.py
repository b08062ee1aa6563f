"""How often a config beats itself: ``python benchmarks/aa.py`` (300 comparisons, 10 to 15 minutes on two quiet cores).

The default config of a small matmul is screened against itself, and then enters finals under other names. Both are
what `pytest --tune` does, from the fresh process of each round to the verdict: whoever wins here wins by luck. With
as many copies in a final as there are finalists in a run, it also gets the luck of the best of them.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

import click
import msgspec
from single_op import SingleOp, quantiles, single_op

from pytest_shark_tune.measurement.timing import NOISE_FLOOR
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.records.winner import FINALISTS
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.session import Session


class Compared(msgspec.Struct, frozen=True):
    """One comparison of the config with itself; ``wins`` where it would count as faster."""

    ratio: float
    low: float
    high: float
    wins: bool
    rounds: int
    repeated: int


class Report(msgspec.Struct, frozen=True):
    """All that was measured: each screening, and the finalists of each final; ``winners`` are finals that had one."""

    what: str
    screenings: list[Compared]
    finals: list[list[Compared]]
    winners: int
    seconds: float


@click.command()
@click.option("--count", default=300, show_default=True, help="Comparisons, of each kind.")
@click.option("--finalists", default=FINALISTS, show_default=True, help="Copies of the config in one final.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--device", default="local-task", show_default=True, help="An IREE device URI.")
@click.option("--size", nargs=3, default=(256, 256, 256), show_default=True, help="M, N and K of the matmul.")
@click.option("--lhs", default="f32", show_default=True, help="Element type of the matmul.")
@click.option("--at-most", default=1, show_default=True, help="Exit with 1 where more finalists than this win.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def main(
    count: int,
    finalists: int,
    target: str,
    device: str,
    size: tuple[int, int, int],
    lhs: str,
    at_most: int,
    out: Path | None,
) -> None:
    """Compare a config with itself, and count how often it wins."""
    started = time.perf_counter()
    with single_op(target, device, size, lhs) as op:
        click.echo(f"{op.name}, load {os.getloadavg()[0]:.2f}")
        screenings = _screen(op, count)
        _report("screenings, each beside itself in one process", screenings)
        task = _with_copies(op, finalists)
        finals: list[list[Compared]] = []
        winners = 0
        for number in range(math.ceil(count / finalists)):
            with op.session(seed=1000 * number) as session:
                compared, winner = _final(session, task)
            finals.append(compared)
            winners += winner is not None
    everyone = [each for final in finals for each in final]
    _report("finalists, in fresh processes", everyone)
    wins = sum(each.wins for each in everyone)
    seconds = time.perf_counter() - started
    click.echo(
        f"{winners} of {len(finals)} finals declare a winner; the intervals of {wins} of {len(everyone)} finalists "
        f"clear the noise floor of {NOISE_FLOOR:.0%}, {at_most} may; {seconds:.0f} s"
    )
    if out is not None:
        report = Report(op.name, screenings, finals, winners, round(seconds, 1))
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if wins > at_most:
        sys.exit(1)


def _screen(op: SingleOp, count: int) -> list[Compared]:
    """What the default's own test does, ``count`` times in one process."""
    screenings = []
    with op.session(seed=0) as session:
        artifact = session.builder.artifact(op.task, op.task.default)
        for _ in range(count):
            measured = session.runner.measure(op.task, op.task.default, artifact)
            low, high = measured.ratio_low, measured.ratio_high
            wins = low > 1 + NOISE_FLOOR
            screenings.append(Compared(measured.ratio, low, high, wins, 1, measured.repeated))
    return screenings


def _with_copies(op: SingleOp, count: int) -> Task:
    """The task with ``count`` copies of the default as its candidates, put on record as the fastest."""
    copies = tuple(msgspec.structs.replace(op.task.default, id=f"copy{number}") for number in range(count))
    for each in copies:
        journal.append(RunDirectory(op.settings.run_directory).records, _screened(op, each))
    return msgspec.structs.replace(op.task, candidates=copies)


def _screened(op: SingleOp, copy: Candidate) -> Record:
    return Record(
        id=copy.id,
        dispatch=op.task.name,
        pipeline=copy.pipeline,
        knobs=copy.knobs,
        config=copy.config,
        state=State.MEASURED,
        ratio=1.01,
        ratio_low=0.99,
        ratio_high=1.03,
        device=op.settings.device_name,
        target=str(op.compiler.target),
        iree="",
    )


def _final(session: Session, task: Task) -> tuple[list[Compared], str | None]:
    """Hold a final and print a line for it."""
    started = time.perf_counter()
    final = session.finals.hold(task, Plan(sources=(), tasks=(task,), untunable=()))
    compared = []
    for each in final.finalists:
        if each.ratio is None or each.ratio_low is None or each.ratio_high is None:
            raise click.ClickException(f"a copy of the default came to nothing: {each.state}: {each.reason}")
        wins = each.ratio_low > 1 + NOISE_FLOOR
        compared.append(Compared(each.ratio, each.ratio_low, each.ratio_high, wins, final.rounds, final.repeated))
    told = "  ".join(f"{each.ratio:.3f} ({each.low:.3f} to {each.high:.3f})" for each in compared)
    notes = f", {final.repeated} blocks repeated" if final.repeated else ""
    mark = f"  WINNER {final.winner}" if final.winner else ""
    click.echo(f"  {told}  {final.rounds} rounds{notes}, {time.perf_counter() - started:.1f} s{mark}")
    return compared, final.winner


def _report(what: str, compared: list[Compared]) -> None:
    click.echo(
        f"{len(compared)} {what}; quantiles at 0 5 25 50 75 95 100:\n"
        f"  ratio - 1, %:   {quantiles([each.ratio - 1 for each in compared])}\n"
        f"  half-width, %:  {quantiles([math.log(each.high / each.ratio) for each in compared])}\n"
        f"  {sum(each.low > 1 or each.high < 1 for each in compared)} intervals leave 1 out, "
        f"{sum(each.wins for each in compared)} clear the noise floor, "
        f"{sum(each.repeated for each in compared)} blocks were repeated"
    )


if __name__ == "__main__":
    main()
