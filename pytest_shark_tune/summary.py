"""The summary as text: what the terminal shows at the end of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pytest_shark_tune.ledger import Summary
from pytest_shark_tune.stages.dispatch import Untunable
from pytest_shark_tune.stages.record import SourceCheck

__all__ = ["format_us", "render"]


def render(summary: Summary, *, width: int, spec: Path, snapshots: tuple[Path, ...]) -> str:
    """The end of a run as plain text, ``width`` columns wide: table, funnel, whole functions, what was written."""
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=False, no_color=True, highlight=False, soft_wrap=False)
    if summary.dispatches:
        console.print(_times(summary))
        console.print(_funnel(summary))
    for line in _notes(summary):
        console.print(line, markup=False)
    if spec.exists():
        console.print(f"spec: {spec}", markup=False, soft_wrap=True)
    elif any(not row.is_custom for row in summary.dispatches):
        console.print("no spec was written: nothing won", markup=False)
    for snapshot in snapshots:
        console.print(f"snapshot: {snapshot}", markup=False, soft_wrap=True)
    return stream.getvalue()


def format_us(microseconds: float | None) -> str:
    """A time with three digits and a fitting unit."""
    if microseconds is None:
        return "-"
    rounded = float(f"{microseconds:.3g}")
    unit, scale = ("us", 1.0) if rounded < 1e3 else ("ms", 1e3) if rounded < 1e6 else ("s", 1e6)
    return f"{rounded / scale:.4g} {unit}"


def _times(summary: Summary) -> Table:
    table = Table(title=f"{summary.run.target} on {summary.run.device}", title_justify="left")
    table.add_column("dispatch", overflow="fold")
    for heading in ("calls", "default", "best", "speedup", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("winner", no_wrap=True)
    for row in summary.dispatches:
        table.add_row(
            row.name,
            str(row.weight),
            format_us(row.baseline_us),
            format_us(row.best_us),
            f"{row.speedup:.2f}x" if row.speedup else "-",
            f"{row.speedup_low:.2f} to {row.speedup_high:.2f}" if row.speedup_low and row.speedup_high else "-",
            row.winner or "none",
        )
    return table


def _funnel(summary: Summary) -> Table:
    table = Table(title="candidates", title_justify="left")
    table.add_column("dispatch", overflow="fold")
    for heading in ("space", "generated", "compiled", "applied", "ran", "correct", "measured", "finalists"):
        table.add_column(heading, justify="right")
    for row in summary.dispatches:
        counts = (row.generated, row.compiled, row.applied, row.ran, row.correct, row.measured, row.finalists)
        space = f"{row.space:,}" if row.space is not None else "too many to list"
        table.add_row(row.name, space, *(f"{count:,}" for count in counts))
    return table


def _notes(summary: Summary) -> Iterator[str]:
    for row in summary.dispatches:
        if row.losses:
            losses = ", ".join(f"{count} {state}" for state, count in row.losses.items())
            yield f"{row.name}: lost {losses}"
        if row.is_custom and row.knobs:
            yield f"{row.name}: fastest with {', '.join(f'{name}={value}' for name, value in row.knobs.items())}"
        if row.reason:
            yield f"{row.name}: {row.reason}"
    if summary.run.unsteady:
        yield (
            f"unsteady machine: it changed its speed while {summary.run.unsteady} candidates or finals were measured; "
            "`note` in records.jsonl and finals.jsonl says by how much"
        )
    for source in summary.sources:
        yield _source_note(source)
    reasons: defaultdict[str, list[Untunable]] = defaultdict(list)
    for untunable in summary.untunable:
        reasons[untunable.reason].append(untunable)
    for reason, ones in reasons.items():
        names = ", ".join(sorted({each.name for each in ones})[:6]) + (", …" if len(ones) > 6 else "")
        yield f"not tuned ({len(ones)}): {names}: {reason}"


def _source_note(source: SourceCheck) -> str:
    if source.ratio is None:
        return f"{source.source}: {source.note or f'the spec applies to {source.applied} of its dispatches'}"
    note = f"; {source.note}" if source.note else ""
    return (
        f"{source.source} as a whole, with the spec: {source.ratio:.2f} times as fast "
        f"({source.ratio_low:.2f} to {source.ratio_high:.2f}), same results{note}"
    )
