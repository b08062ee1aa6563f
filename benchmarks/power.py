"""Which slowdown is told from noise: ``python benchmarks/power.py --target cuda:sm_89 --device cuda://0``.

The default config of a matmul meets itself, and itself slowed by a known factor (21 or 22 dispatches that are reported
as 20), in rounds as finals have them: a fresh process, all of them interleaved with the default in random order. First
comes how far two equal configs differ (A/A), then how often a final tells the slowed ones.

Rounds are what costs time, so a number of them is measured once, and each final is made of some of these, drawn without
replacement. Finals thus share rounds, and are as good as the rounds are a sample of what processes measure.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import msgspec
import numpy as np
from single_op import SingleOp, quantiles, single_op

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.measurement.rounds import combine_rounds, is_decided
from pytest_shark_tune.measurement.timing import (
    FINAL,
    FINAL_ROUNDS,
    MOST_ROUNDS,
    NOISE_FLOOR,
    Measurement,
    calibrate,
    compare_finalists,
)

PERCENTS = {"same": 100, "5% slower": 105, "10% slower": 110}
"""What each finalist runs where the default runs 100."""

WANTED = {"5% slower": 0.90, "10% slower": 0.99}
"""In what part of the finals a slowdown should be told, where two equal configs are told apart to ``QUIET``."""

QUIET = 0.01
_WHOLE = 20  # 105% and 110% of a multiple of 20 are whole.


class Told(msgspec.Struct, frozen=True):
    """How often a slowdown was told: the interval excludes 1, and does so by the noise floor."""

    percent: int
    told: float
    told_beyond_floor: float
    median_ratio: float


class Report(msgspec.Struct, frozen=True):
    """All figures; ``ratios`` are each round's by finalist, ``smallest_told`` the slowdown told in 90% of finals."""

    what: str
    batch: int
    ratios: dict[str, list[float]]
    half_width: float
    equal_told_apart: float
    smallest_told: float
    told: list[Told]
    finals: int
    seconds: float


@click.command()
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--device", default="local-task", show_default=True, help="An IREE device URI.")
@click.option("--size", nargs=3, default=(256, 256, 256), show_default=True, help="M, N and K of the matmul.")
@click.option("--lhs", default="f32", show_default=True, help="Element type of the matmul.")
@click.option("--rounds-measured", default=60, show_default=True, help="Rounds, each in a process of its own.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds after which no more rounds are measured.")
@click.option("--finals", default=2000, show_default=True, help="Finals made of these rounds.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def main(
    target: str,
    device: str,
    size: tuple[int, int, int],
    lhs: str,
    rounds_measured: int,
    limit: float,
    finals: int,
    out: Path | None,
) -> None:
    """Print the spread between equal configs, then how often slowed ones are told."""
    if rounds_measured < MOST_ROUNDS:
        raise click.UsageError(f"--rounds-measured: a final may need {MOST_ROUNDS} rounds")
    started = time.perf_counter()
    with single_op(target, device, size, lhs) as op:
        click.echo(f"{op.name}, load {os.getloadavg()[0]:.2f}")
        batch, rounds = _measure(op, device, rounds_measured, limit)
    ended = {name: _finals([each[name] for each in rounds], finals) for name in PERCENTS}
    report = _report(op.name, batch, rounds, ended, time.perf_counter() - started)
    _print(report, rounds)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if report.half_width < QUIET and any(each.told < _wanted(each.percent) for each in report.told):
        sys.exit(1)


def _measure(op: SingleOp, device: str, count: int, limit_s: float) -> tuple[int, list[dict[str, Measurement]]]:
    """The rounds, and the batch that all of them ran."""
    with op.session(seed=0) as session:
        artifact = session.builder.artifact(op.task, op.task.default)
    path = Path(artifact.vmfb or "")
    batch = 0
    rounds = []
    started = time.perf_counter()
    for number in range(count):
        with DeviceLeases([device]).acquire(), DeviceChild(device) as child:
            for name in ("default", *PERCENTS):
                child.load_benchmark(name, path, op.task.dispatch.members[0].module)
                child.fill(name, number)
                child.run(name, 1)
            if not batch:
                calibrated = calibrate(lambda n: child.run("default", n), FINAL.sample_s, cap=FINAL.batch_cap)
                batch = _WHOLE * math.ceil(calibrated / _WHOLE)
            runs = {name: _runner(child, name, percent) for name, percent in PERCENTS.items()}
            default = _runner(child, "default", 100)
            rounds.append(compare_finalists(runs, default, FINAL, seed=number, batch=batch))
        spent = time.perf_counter() - started
        told = "  ".join(f"{name} {each.ratio:.4f}" for name, each in rounds[-1].items())
        click.echo(f"  round {number + 1}: {told}  {spent:.0f} s")
        if spent > limit_s and len(rounds) >= MOST_ROUNDS:
            click.echo(f"stopped after {len(rounds)} rounds: --limit {limit_s:g} is spent")
            break
    return batch, rounds


def _runner(child: DeviceChild, name: str, percent: int) -> Callable[[int], float]:
    def run(batch: int) -> float:
        return child.run(name, batch * percent // 100)

    return run


def _finals(rounds: Sequence[Measurement], count: int) -> list[Measurement]:
    """``count`` finals, each of rounds drawn without replacement, as many as a final would hold."""
    light = [msgspec.structs.replace(each, samples_us=(), baseline_samples_us=()) for each in rounds]
    chance = random.Random(0)
    finals = []
    for _ in range(count):
        drawn = chance.sample(light, MOST_ROUNDS)
        played = next((n for n in range(FINAL_ROUNDS, MOST_ROUNDS) if is_decided([drawn[:n]])), MOST_ROUNDS)
        finals.append(combine_rounds(drawn[:played]))
    return finals


def _report(
    what: str,
    batch: int,
    rounds: Sequence[Mapping[str, Measurement]],
    ended: Mapping[str, Sequence[Measurement]],
    seconds: float,
) -> Report:
    same = ended["same"]
    floor = 1 / (1 + NOISE_FLOOR)
    told = [
        Told(
            percent=PERCENTS[name],
            told=_share([each.ratio_high < 1 for each in ended[name]]),
            told_beyond_floor=_share([each.ratio_high < floor for each in ended[name]]),
            median_ratio=float(np.median([each.ratio for each in ended[name]])),
        )
        for name in WANTED
    ]
    return Report(
        what=what,
        batch=batch,
        ratios={name: [round(each[name].ratio, 6) for each in rounds] for name in PERCENTS},
        half_width=float(np.median([math.log(each.ratio_high / each.ratio) for each in same])),
        equal_told_apart=_share([each.ratio_low > 1 or each.ratio_high < 1 for each in same]),
        # A config slowed by a factor has the interval of an equal one, divided by it.
        smallest_told=float(np.quantile([each.ratio_high for each in same], 0.9)) - 1,
        told=told,
        finals=len(same),
        seconds=round(seconds, 1),
    )


def _print(report: Report, rounds: Sequence[Mapping[str, Measurement]]) -> None:
    sample_ms = float(np.median([each["same"].baseline_median_us for each in rounds])) * report.batch / 1e3
    repeated = sum(each["same"].repeated for each in rounds)
    click.echo(
        f"\n{len(rounds)} rounds with samples of {report.batch} dispatches, {sample_ms:.1f} ms; {repeated} blocks were "
        f"repeated\n"
        f"A/A: a round's ratio - 1, %, quantiles at 0 5 25 50 75 95 100: "
        f"{quantiles([each - 1 for each in report.ratios['same']])}\n"
        f"A/A: half-width of a final's interval {report.half_width:.2%} (median of {report.finals} finals, drawn from "
        f"the {len(rounds)} rounds); it leaves 1 out in {report.equal_told_apart:.1%}"
    )
    for each in report.told:
        click.echo(
            f"{each.percent} dispatches reported as 100: told in {each.told:.1%} of finals, beyond the noise floor of "
            f"{NOISE_FLOOR:.0%} in {each.told_beyond_floor:.1%}; median ratio {each.median_ratio:.4f}"
        )
    if report.half_width < QUIET:
        for each in report.told:
            verdict = "reaches" if each.told >= _wanted(each.percent) else "misses"
            click.echo(f"{each.percent - 100}% slower: {verdict} {_wanted(each.percent):.0%}")
    else:
        click.echo(
            f"the device is too noisy for a promise (A/A half-width not below {QUIET:.0%}): the smallest slowdown told "
            f"in 90% of finals is {report.smallest_told:.1%}"
        )
    click.echo(f"{report.seconds:.0f} s")


def _wanted(percent: int) -> float:
    return next(share for name, share in WANTED.items() if PERCENTS[name] == percent)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    try:
        main()
    except SharkTuneError as error:
        sys.exit(f"power.py: {error}")
