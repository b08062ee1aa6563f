"""The header of a run: its target and device, the shares of its time, and a GPU that it does not use."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.device.driver.architecture import unused_gpu
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.report.remaining import Event
from pytest_shark_tune.report.tables import wrapped
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.steps import Stage
from pytest_shark_tune.system.terminal import escaped_line
from pytest_shark_tune.system.units import format_s

__all__ = ["describe_shares", "describe_spent", "header_lines"]

_COLUMNS = 80


def header_lines(options: TuneOptions, device: str) -> Iterator[str]:
    """Yield the lines for the header of a run that tunes on a device."""
    for sentence in _sentences(options, device):
        yield from wrapped(f"shark-tune: {escaped_line(sentence)}", _COLUMNS)


def _sentences(options: TuneOptions, device: str) -> Iterator[str]:
    how = "--tune-target" if options.target_is_given else "default; --tune-target"
    where = f" on {device}" if device else ""
    yield f"tuning for {options.target}{where} ({how})"
    if options.time_s is not None:
        yield describe_shares(options.time_s)
    if not options.target_is_given and (gpu := unused_gpu(options.target)):
        yield f"the GPU of this machine is not used: --tune-target {gpu} tunes for it"


def describe_shares(time_s: float) -> str:
    """Return how the time of a run is shared out, by when each stage ends."""
    shares = TimeBudget(total_s=time_s).shares
    ends = ", ".join(f"{stage} until {format_s(part * time_s)}" for stage, part in shares.items())
    return f"{format_s(time_s)} (--tune-time): {ends}; they get what whole models do not need"


def describe_spent(events: list[Event], total_s: float) -> str:
    """Return how the time of a run was spent, stage by stage; empty if nothing was tried."""
    begun: dict[Stage, float] = {}
    for event in events:
        begun.setdefault(event.stage, event.s)
    begun = {stage: begun[stage] for stage in Stage if stage in begun}
    if Stage.SEARCH not in begun:
        return ""
    ends = [*list(begun.values())[1:], total_s]
    parts = [
        f"{stage} {format_s(max(0.0, end - start))}" for (stage, start), end in zip(begun.items(), ends, strict=True)
    ]
    return f"time: {format_s(total_s)}, of which {', '.join(parts)}"
