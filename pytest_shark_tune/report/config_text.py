"""Configs as text: the best config of a dispatch against its default, knob by knob."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.measurement.roofline import Rates
from pytest_shark_tune.report.tables import INDENT, wrapped
from pytest_shark_tune.results.summary import DispatchSummary, Summary

__all__ = ["config_lines", "describe_rates"]

_SHOWN = 3
"""The most dispatches that are shown; those that gain most come first."""
_OFF = "-"


def config_lines(summary: Summary, width: int, *, everything: bool) -> Iterator[str]:
    """Yield the winner's knobs beside the default's for the dispatches that gain most.

    Args:
        summary: the summary of the run.
        width: the columns of the terminal.
        everything: whether to show all of them.
    """
    won = sorted(summary.improved, key=_gain, reverse=True)
    shown = [row for row in won if row.knobs and row.winner]
    for row in shown if everything else shown[:_SHOWN]:
        yield from _config(row, width)
    if len(shown) > _SHOWN and not everything:
        yield f"{len(shown) - _SHOWN} more configs: -v shows them, as does shark-tune show SPEC"


def describe_rates(rates: Rates) -> str:
    """Return the speed of a dispatch in absolute terms, and how near it is to the device's limits."""
    parts = [f"{rates.gflops:.3g} GFLOP/s"] if rates.gflops is not None else []
    parts.append(f"{rates.gb_per_s:.3g} GB/s")
    if rates.of_limit is not None:
        parts.append(f"{min(rates.of_limit, 1.0):.0%} of what the device reached in microbenchmarks")
    return ", ".join(parts)


def _gain(row: DispatchSummary) -> float:
    """The time that a dispatch saves, in the whole if that is known."""
    saved = 1 - 1 / row.speedup if row.speedup else 0.0
    return saved * (row.share if row.share is not None else (row.baseline_us or 0.0) * row.weight)


def _config(row: DispatchSummary, width: int) -> Iterator[str]:
    head = f"{row.name}: {row.winner}"
    if row.pipelines is not None and row.pipelines[0] and row.pipelines[0] != row.pipelines[1]:
        head += f" ({row.pipelines[1]}) in place of {row.pipelines[0]}"
    else:
        head += " beside the default"
    yield from wrapped(head, width)
    if row.rates is not None:
        yield from wrapped(describe_rates(row.rates), width, indent=INDENT)
    knobs, default = row.knobs or {}, row.default_knobs
    label = max(len("default"), len(row.winner or ""))
    columns = [
        (name, _OFF if default is None else str(default.get(name, 0)), str(value)) for name, value in knobs.items()
    ]
    left = width - INDENT - label
    while columns:
        taken, used = 0, 0
        for column in columns:
            used += 2 + max(map(len, column))
            if taken and used > left:
                break
            taken += 1
        for place, name in enumerate(("", "default", row.winner or "")):
            if place == 1 and default is None:
                continue
            cells = "".join(f"  {column[place]:>{max(map(len, column))}}" for column in columns[:taken])
            yield f"{'':{INDENT}}{name:{label}}{cells}"
        columns = columns[taken:]
