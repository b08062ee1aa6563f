"""How often slowdowns are told, and how often noise is: ``python benchmarks/regression.py`` (a minute, no device).

Comparisons of a program before and after a change are simulated from recorded runs. Three ways decide whether it became
slower: the sequential test of this package, in rounds in which both run in turns; pytest-benchmark's comparison with a
saved run (``--benchmark-compare-fail=mean:5%``); and the rule "mean x 1.1". The last two compare the mean times of two
sessions, so they see what sessions differ by. As a threshold can be chosen, they are also given the smallest one with
which they raise no more false alarms than ours.

The recorded runs are those of `guard_aa.py` on a two-core CPU: 145 sessions, each with the time of the default and
the mean ratio of a few rounds. A round's noise is that of a session's ratio times the root of its number of rounds. For
GPUs they are the rounds of `power.py` and the samples of finals.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from pytest_shark_tune.guard.bisect import Judgement, judge_side

SLOWDOWNS = (1.0, 1.02, 1.03, 1.05, 1.10)
_RECORDED = Path(__file__).parent / "results"
_SESSIONS = 10
_BORDER = -math.log(1.01)


class Recorded(msgspec.Struct, frozen=True):
    """The sessions of one machine."""

    name: str
    rounds: list[float]
    """Logarithms of the ratio of equal programs in a round, in turns."""
    sessions: list[float]
    """Logarithms of a program's time in a session by its usual time; empty if it is not known."""


class Row(msgspec.Struct, frozen=True):
    """How often a way told a slowdown, by the slowdown; 1.0 are false alarms."""

    machine: str
    way: str
    told: dict[str, float]


def recorded_on_cpu() -> Recorded:
    """The sessions of `guard_aa.py`."""
    speeds = json.loads((_RECORDED / "guard_aa_cpu.json").read_text(encoding="utf-8"))["speeds"]
    of_entry: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for verdict in speeds:
        of_entry[verdict["entry"]].append(verdict["figures"])
    rounds: list[float] = []
    sessions: list[float] = []
    for figures in of_entry.values():
        ratios = [math.log(run["ratio"]) for run in figures]
        times = [math.log(run["baseline_us"]) for run in figures]
        usual_ratio, usual_time = statistics.median(ratios), statistics.median(times)
        rounds += [(ratio - usual_ratio) * math.sqrt(run["rounds"]) for ratio, run in zip(ratios, figures, strict=True)]
        sessions += [time - usual_time for time in times]
    return Recorded("two-core CPU, 145 sessions", rounds, sessions)


def recorded_on_gpu() -> Recorded:
    """The rounds of `power.py` on an H200, and samples of the default in finals on an H100, a tenth of them a session.

    So these sessions have no offsets of their own, which is in favor of the ways that compare sessions.
    """
    ratios = json.loads((_RECORDED / "h200_power" / "power.json").read_text(encoding="utf-8"))["ratios"]["same"]
    sessions: list[float] = []
    for path in sorted(_RECORDED.glob("h100_*/finals.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            samples = json.loads(line)["baseline_samples_us"]
            size = len(samples) // _SESSIONS
            means = [statistics.fmean(samples[at * size : (at + 1) * size]) for at in range(_SESSIONS)] if size else []
            sessions += [math.log(mean / statistics.median(means)) for mean in means]
    return Recorded("GPU (rounds H200, sessions H100)", [math.log(ratio) for ratio in ratios], sessions)


def told_in_turns(recorded: Recorded, slowdown: float, alpha: float, chance: random.Random) -> bool:
    """Whether the sequential test calls a program slower that is ``slowdown`` times as slow."""
    judgement, _ = judge_side(lambda _: chance.choice(recorded.rounds) - math.log(slowdown), _BORDER, alpha)
    return judgement is Judgement.BAD


def differences(recorded: Recorded, slowdown: float, count: int, chance: random.Random) -> list[float]:
    """Logarithms of the time after by the time before, each of a session of its own."""
    return [
        chance.choice(recorded.sessions) + math.log(slowdown) - chance.choice(recorded.sessions) for _ in range(count)
    ]


def rows_of(recorded: Recorded, count: int, alpha: float, chance: random.Random) -> list[Row]:
    """The ways on one machine."""
    ours = {
        f"{slowdown:g}": sum(told_in_turns(recorded, slowdown, alpha, chance) for _ in range(count)) / count
        for slowdown in SLOWDOWNS
    }
    rows = [Row(recorded.name, "in turns, sequential", ours)]
    if not recorded.sessions:
        return rows
    found = {slowdown: differences(recorded, slowdown, count, chance) for slowdown in SLOWDOWNS}
    equal = sorted(found[1.0])[min(count - 1, math.ceil(count * (1 - ours["1"])))]
    thresholds = {
        "pytest-benchmark, mean:5%": math.log(1.05),
        "mean x 1.1": math.log(1.10),
        f"two sessions, {math.expm1(equal):.0%}: as few false alarms": equal,
    }
    for way, threshold in thresholds.items():
        told = {f"{slowdown:g}": _share(values, threshold) for slowdown, values in found.items()}
        rows.append(Row(recorded.name, way, told))
    return rows


def _share(values: Sequence[float], threshold: float) -> float:
    return sum(value > threshold for value in values) / len(values)


@click.command()
@click.option("--count", default=5000, show_default=True, help="Comparisons for each slowdown.")
@click.option("--alpha", default=0.001, show_default=True, help="The probability of a wrong answer of ours.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def main(count: int, alpha: float, seed: int, out: Path | None) -> None:
    """Simulate comparisons, and print the share of slowdowns that are told."""
    chance = random.Random(seed)
    rows = [
        row for recorded in (recorded_on_cpu(), recorded_on_gpu()) for row in rows_of(recorded, count, alpha, chance)
    ]
    click.echo(f"{count} comparisons each; the share that is called slower")
    names = [f"{slowdown - 1:.0%} slower" if slowdown > 1 else "equal" for slowdown in SLOWDOWNS]
    width = max(len(f"{row.machine}: {row.way}") for row in rows)
    click.echo(f"{'':{width}}  {'  '.join(f'{name:>10}' for name in names)}")
    for row in rows:
        shares = "  ".join(f"{share:10.2%}" for share in row.told.values())
        click.echo(f"{f'{row.machine}: {row.way}':{width}}  {shares}")
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


if __name__ == "__main__":
    main()
