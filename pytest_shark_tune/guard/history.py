"""The history of guarding: the speeds of every run, in files of JSON lines that are only appended to.

A file or a directory of files is read as one history: lines may stand in any order and more than once, so merging two
histories is joining their lines.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.measurement.change_points import Spread, find_drift, find_steps, spread_between
from pytest_shark_tune.measurement.intervals import student_quantile
from pytest_shark_tune.system import journal

__all__ = ["Change", "HistoryPoint", "append_points", "changes_in", "read_history", "session_spread", "shown"]

_SHOWN = 0.05
_RECENT = 10
"""A change is news in so many runs."""
Figure = Literal["ratio", "entry", "default"]
_OF_FIGURE = {"ratio": "the speedup over the default", "entry": "the entry's time", "default": "the default's time"}


class HistoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one entry in one run."""

    schema: Literal[1] = 1
    run: str
    """The run, by an id of its own."""
    time: str
    """The start of the run in UTC, as ISO 8601 has it."""
    commit: str = ""
    """The commit of the working tree; empty if it is not known."""
    entry: str
    config: str
    """A hash of the entry's config: a series ends where the entry is tuned anew."""
    outcome: str
    """The outcome of the check."""
    us: float
    """The median time with the entry."""
    default_us: float
    """The median time of the default."""
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    """The number of fresh processes."""
    calibration: dict[str, float] = {}
    """The times of microbenchmarks beside it, in microseconds, by a digest of their machine code."""
    target: str
    device: str
    """The model of the device."""
    processors: int
    machine: str
    """The fingerprint of the machine: a hash of its name, device, driver and number of processors."""
    driver: str = ""
    """The version of the device's driver; empty for a CPU's."""
    iree: str
    """The compiler's release."""
    runtime: str
    """The runtime's release."""

    @property
    def series(self) -> tuple[str, ...]:
        """The key of the points that can be compared."""
        return self.entry, self.config, self.target, self.device, str(self.processors)

    @property
    def error(self) -> float:
        """The standard error of the logarithm of the ratio within the run."""
        if self.rounds < 2 or self.ratio_low <= 0:
            return 0.0
        half = math.log(self.ratio_high / self.ratio_low) / 2
        return half / student_quantile(self.rounds - 1, _SHOWN) / math.sqrt(self.rounds + 1)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A step or a drift in the series of an entry."""

    entry: str
    kind: Literal["step", "drift"]
    figure: Figure
    change: float
    """The relative change: 0.04 for a time that grew by 4%, or a ratio that did."""
    first: HistoryPoint
    """The first run that shows it."""
    last: HistoryPoint
    """The last run of the series."""
    is_recent: bool
    """Whether it is among the last ten runs of the series."""

    @property
    def is_worse(self) -> bool:
        """Whether the entry became slower, or gains less. A default that became slower is worse as well."""
        return self.change < 0 if self.figure == "ratio" else self.change > 0


def read_history(path: Path) -> list[HistoryPoint]:
    """Read a history, oldest point first. No file, and an empty directory, have no points.

    Raises:
        InputError: a file cannot be read.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    points = {(point.run, *point.series): point for file in files for point in journal.read(file, HistoryPoint)}
    return sorted(points.values(), key=lambda point: (point.time, point.run, point.entry))


def append_points(path: Path, points: Sequence[HistoryPoint]) -> None:
    """Append the points of a run: to the file ``path``, or to a file of the run's own if it is a directory.

    Raises:
        OSError: they cannot be written.
    """
    if not points:
        return
    if path.is_dir():
        path = path / f"{points[0].time[:10]}-{points[0].run}.jsonl"
    for point in points:
        journal.append(path, point)


def changes_in(points: Iterable[HistoryPoint]) -> list[Change]:
    """Find the steps and drifts in every series of a history, in its ratio and in its absolute times.

    Times are divided by those of the microbenchmarks beside them, as far as all points of a series have the same ones:
    a machine that became slower is no change of an entry.
    """
    found: list[Change] = []
    for series in _by_series(points).values():
        for figure, values in _figures(series).items():
            found += _changes(series, figure, values)
    return found


def session_spread(points: Iterable[HistoryPoint], device: str, processors: int) -> Spread:
    """Estimate how far the ratios of an unchanged entry differ from session to session on one model of device.

    Only points after the last step of a series count, and series that drift do not.
    """
    stable = []
    for series in _by_series(points).values():
        if (series[0].device, series[0].processors) != (device, processors):
            continue
        ratios = [math.log(point.ratio) for point in series]
        steps = find_steps(ratios)
        begin = steps[-1].position if steps else 0
        if find_drift(ratios[begin:]) is None:
            stable.append((ratios[begin:], [point.error for point in series[begin:]]))
    return spread_between(stable)


def shown(change: Change) -> str:
    """Return a change as one line."""
    direction = "fell" if change.change < 0 else "rose"
    how = "" if change.kind == "step" else " slowly"
    commit = f", commit {change.first.commit[:12]}" if change.first.commit else ""
    return (
        f"{change.entry}: {_OF_FIGURE[change.figure]} {direction}{how} by {abs(change.change):.1%}, first seen in the "
        f"run of {change.first.time} ({change.first.run}){commit}, IREE {change.first.iree}"
    )


def _by_series(points: Iterable[HistoryPoint]) -> dict[tuple[str, ...], list[HistoryPoint]]:
    found: defaultdict[tuple[str, ...], list[HistoryPoint]] = defaultdict(list)
    for point in points:
        if point.ratio > 0 and point.us > 0 and point.default_us > 0:
            found[point.series].append(point)
    return found


def _figures(series: Sequence[HistoryPoint]) -> dict[Figure, list[float]]:
    """The logarithms of the figures of a series, absolute times calibrated."""
    shared = set.intersection(*(set(point.calibration) for point in series))
    speeds = [_machine_time(point, sorted(shared)) for point in series]
    return {
        "ratio": [math.log(point.ratio) for point in series],
        "entry": [math.log(point.us) - speed for point, speed in zip(series, speeds, strict=True)],
        "default": [math.log(point.default_us) - speed for point, speed in zip(series, speeds, strict=True)],
    }


def _machine_time(point: HistoryPoint, shared: Sequence[str]) -> float:
    """The mean logarithm of the times of the microbenchmarks; 0 without any."""
    return math.fsum(math.log(point.calibration[name]) for name in shared) / len(shared) if shared else 0.0


def _changes(series: Sequence[HistoryPoint], figure: Figure, values: Sequence[float]) -> Iterator[Change]:
    def change(kind: Literal["step", "drift"], by: float, first: int) -> Change:
        return Change(
            entry=series[0].entry,
            kind=kind,
            figure=figure,
            change=math.expm1(by),
            first=series[first],
            last=series[-1],
            is_recent=kind == "drift" or len(series) - first <= _RECENT,
        )

    steps = find_steps(values)
    yield from (change("step", step.change, step.position) for step in steps)
    begin = steps[-1].position if steps else 0
    if (drift := find_drift(values[begin:])) is not None:
        yield change("drift", drift.change, begin + drift.start)
