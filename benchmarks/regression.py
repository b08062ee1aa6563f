"""How often slowdowns are told, and how often noise is: ``python benchmarks/regression.py`` (a minute, no device).

Comparisons of a program before and after a change are made of recorded runs. Three ways decide whether it became
slower: the sequential test of this package, in rounds in which both run in turns; pytest-benchmark's comparison with a
saved run (``--benchmark-compare-fail=mean:5%``); and the rule "mean x 1.1". The last two compare the mean times of two
sessions, so they see what sessions differ by. As they depend on a threshold, they are compared twice: by their own
thresholds, and by the smallest one with which they raise no more false alarms than ours.

``--record FILE`` makes a recording on a device, an hour on a quiet machine: the default of a matmul beside itself, and
beside programs that run 102, 103, 105 and 110 dispatches where it runs 100, in rounds as guarding has them. A session
is the default's mean time in a round, or in as many rounds as the sequential test has on average. Simulated comparisons
draw rounds and sessions at random. Real ones take the rounds as they followed each other, each from another start.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import msgspec
from single_op import SingleOp, single_op

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import DeviceChildDied
from pytest_shark_tune.guard.bisect import Judgement, judge_side
from pytest_shark_tune.measurement.timing import GUARD_ROUND, calibrate, compare_finalists

SLOWDOWNS = (100, 102, 103, 105, 110)
"""The time of a program, in percent of its baseline's; 100 are the false alarms."""

_RESULTS = Path(__file__).parent / "results"
_RECORDINGS = _RESULTS / "regression"
_SESSIONS = 10
_BORDER = -math.log(1.01)


class Round(msgspec.Struct, frozen=True):
    """One round of a recording."""

    default_us: float
    """The default's mean time."""
    ratios: dict[str, float]
    """The default's time by that of each program, by its percent."""


class Recording(msgspec.Struct, frozen=True):
    """The rounds of one machine, in order."""

    machine: str
    rounds: list[Round]


class Recorded(msgspec.Struct, frozen=True):
    """The rounds and sessions of one machine."""

    name: str
    rounds: dict[int, list[float]]
    """Logarithms of the ratio of a program to its baseline in a round, in turns, by the program's percent."""
    sessions: list[float]
    """Logarithms of a program's mean time in a session of one round, by its usual time, in order."""
    follow: bool
    """Whether the rounds are in the order in which they were run."""


class Row(msgspec.Struct, frozen=True):
    """How often a way told a slowdown, by the slowdown in percent; 100 are false alarms."""

    machine: str
    way: str
    told: dict[int, float]


def read_recording(path: Path) -> Recorded:
    """A file of ``--record``."""
    recording = msgspec.json.decode(path.read_bytes(), type=Recording)
    usual = statistics.median(each.default_us for each in recording.rounds)
    return Recorded(
        f"{recording.machine}, {len(recording.rounds)} rounds",
        {percent: [math.log(each.ratios[str(percent)]) for each in recording.rounds] for percent in SLOWDOWNS},
        [math.log(each.default_us / usual) for each in recording.rounds],
        follow=True,
    )


def recorded_on_gpu() -> Recorded:
    """The rounds of `power.py` on an H200, and samples of the default in finals on an H100, a tenth of them a session.

    So these sessions have no offsets of their own, which is in favor of the ways that compare sessions.
    """
    ratios = json.loads((_RESULTS / "h200_power" / "power.json").read_text(encoding="utf-8"))["ratios"]["same"]
    sessions: list[float] = []
    for path in sorted(_RESULTS.glob("h100_*/finals.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            samples = json.loads(line)["baseline_samples_us"]
            size = len(samples) // _SESSIONS
            means = [statistics.fmean(samples[at * size : (at + 1) * size]) for at in range(_SESSIONS)] if size else []
            sessions += [math.log(mean / statistics.median(means)) for mean in means]
    equal = [math.log(ratio) for ratio in ratios]
    rounds = {percent: [ratio - math.log(percent / 100) for ratio in equal] for percent in SLOWDOWNS}
    return Recorded("GPU (42 rounds of an H200, sessions of an H100)", rounds, sessions, follow=False)


def judged(play: Callable[[int], float], alpha: float) -> tuple[bool, int]:
    """Whether the sequential test calls a program slower, and the number of its rounds."""
    judgement, rounds = judge_side(play, _BORDER, alpha)
    return judgement is Judgement.BAD, len(rounds)


def rows_of(recorded: Recorded, count: int, real: int, alpha: float, chance: random.Random) -> Iterator[Row]:
    """The ways on one machine."""
    ours: dict[int, float] = {}
    lengths: list[int] = []
    for percent, rounds in recorded.rounds.items():
        found = [judged(lambda _: chance.choice(rounds), alpha) for _ in range(count)]  # noqa: B023 - called at once
        ours[percent] = sum(told for told, _ in found) / count
        lengths += [length for _, length in found]
    yield Row(recorded.name, "in turns, sequential", ours)
    if recorded.follow:
        yield Row(recorded.name, f"the same, {real} real ones", _real(recorded, real, alpha))
    many = round(statistics.fmean(lengths))
    for size, what in ((1, "two sessions"), (many, f"two sessions of {many} rounds")):
        sessions = _sessions(recorded, size, chance)
        differences = [sessions() - sessions() for _ in range(count)]
        allowed = math.floor(count * ours[100])
        equal = sorted(differences, reverse=True)[allowed]
        thresholds = {"mean:5%": math.log(1.05), "mean x 1.1": math.log(1.10)}
        if recorded.follow or size == 1:
            thresholds[f"{math.expm1(equal):.1%}: as few false alarms"] = equal
            for way, threshold in thresholds.items():
                told = {
                    percent: sum(each + math.log(percent / 100) > threshold for each in differences) / count
                    for percent in SLOWDOWNS
                }
                yield Row(recorded.name, f"{what}, {way}", told)


def _real(recorded: Recorded, count: int, alpha: float) -> dict[int, float]:
    """How often the sequential test tells a slowdown in rounds that followed each other."""
    told = {}
    for percent, rounds in recorded.rounds.items():
        starts = [number * len(rounds) // count for number in range(count)]
        found = [judged(partial(_following, rounds, start), alpha) for start in starts]
        told[percent] = sum(bad for bad, _ in found) / count
    return told


def _following(rounds: Sequence[float], start: int, number: int) -> float:
    return rounds[(start + number) % len(rounds)]


def _sessions(recorded: Recorded, size: int, chance: random.Random) -> Callable[[], float]:
    """Draws the mean of a session of so many rounds that followed each other."""
    times = [math.exp(session) for session in recorded.sessions]

    def draw() -> float:
        start = chance.randrange(len(times) - size + 1)
        return math.log(statistics.fmean(times[start : start + size]))

    return draw


def record(op: SingleOp, device: str, count: int, limit_s: float, out: Path) -> None:
    """Run rounds, and write them to a file after every one of them."""
    with op.session(seed=0) as session:
        path = Path(session.builder.artifact(op.task, op.task.default).vmfb or "")
    module = op.task.dispatch.members[0].module
    rounds: list[Round] = []
    batch, started = 0, time.perf_counter()
    while len(rounds) < count and time.perf_counter() - started < limit_s:
        with DeviceLeases([device]).acquire(), DeviceChild(device) as child, suppress(DeviceChildDied):
            seed = len(rounds)
            for name in ("default", *map(str, SLOWDOWNS)):
                child.load_benchmark(name, path, module)
                child.fill(name, seed)
                child.run(name, 1)
            if not batch:
                calibrated = calibrate(partial(child.run, "default"), GUARD_ROUND.sample_s, cap=GUARD_ROUND.batch_cap)
                batch = 100 * math.ceil(calibrated / 100)
            runs = {str(percent): partial(_slowed, child, percent) for percent in SLOWDOWNS}
            found = compare_finalists(runs, partial(child.run, "default"), GUARD_ROUND, seed=seed, batch=batch)
            mean = statistics.fmean(found["100"].baseline_samples_us)
            rounds.append(Round(round(mean, 3), {name: round(each.ratio, 5) for name, each in found.items()}))
            out.write_bytes(msgspec.json.encode(Recording(op.name, rounds)) + b"\n")
    click.echo(f"{len(rounds)} rounds in {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.2f}: {out}")


def _slowed(child: DeviceChild, percent: int, batch: int) -> float:
    return child.run(str(percent), batch * percent // 100)


@click.command()
@click.option("--count", default=5000, show_default=True, help="Simulated comparisons for each slowdown.")
@click.option("--real", default=500, show_default=True, help="Comparisons of rounds as they followed each other.")
@click.option("--alpha", default=0.001, show_default=True, help="The probability of a wrong answer of ours.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
@click.option("--record", "recording", type=click.Path(path_type=Path), help="Make a recording, and compare nothing.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target, for a recording.")
@click.option("--device", default="local-sync", show_default=True, help="An IREE device URI, for a recording.")
@click.option("--size", nargs=3, default=(96, 96, 96), show_default=True, help="M, N and K of the matmul.")
@click.option("--rounds", default=2000, show_default=True, help="Rounds of a recording.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds after which a recording ends.")
def main(
    count: int,
    real: int,
    alpha: float,
    seed: int,
    out: Path | None,
    recording: Path | None,
    target: str,
    device: str,
    size: tuple[int, int, int],
    rounds: int,
    limit: float,
) -> None:
    """Make comparisons of recorded rounds, and print the share of slowdowns that are told."""
    if recording is not None:
        with single_op(target, device, size, "f32") as op:
            record(op, device, rounds, limit, recording)
        return
    chance = random.Random(seed)
    machines = [*map(read_recording, sorted(_RECORDINGS.glob("*.json"))), recorded_on_gpu()]
    rows = [row for machine in machines for row in rows_of(machine, count, real, alpha, chance)]
    names = ["equal" if percent == 100 else f"{percent - 100}% slower" for percent in SLOWDOWNS]
    width = max(len(row.way) for row in rows)
    for machine in machines:
        click.echo(f"\n{machine.name}: {count} comparisons each; the share that is called slower")
        click.echo(f"{'':{width}}  {'  '.join(f'{name:>10}' for name in names)}")
        for row in rows:
            if row.machine == machine.name:
                shares = "  ".join(f"{share:10.2%}" for share in row.told.values())
                click.echo(f"{row.way:{width}}  {shares}")
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


if __name__ == "__main__":
    main()
