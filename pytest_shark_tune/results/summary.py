"""The summary of a run, as ``summary.json`` has it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.records.types import SourceCheck
from pytest_shark_tune.results.funnel import Loss
from pytest_shark_tune.tuning.manifest import Coverage

__all__ = ["DispatchSummary", "RunSummary", "Summary", "coverage_of_spec"]


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the run was: versions by package, target, device, seconds; ``complete`` unless it ended early.

    ``unsteady`` counts the candidates and finals during whose measurement the machine changed its speed. ``coverage``
    says how much of what was named was tuned, and ``spec_coverage`` the same of the run that ``spec.mlir`` is of, which
    is an earlier one where ``keeps_spec``; it is ``None`` without such a file.
    """

    versions: dict[str, str]
    target: str
    device: str
    seconds: float
    complete: bool
    unsteady: int = 0
    coverage: Coverage = Coverage.WHOLE
    spec_coverage: Coverage | None = None
    keeps_spec: bool = False


class DispatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch in the summary: times in microseconds, the funnel in candidates, the winner's id or ``None``.

    ``losses`` say why the counts of the funnel fall from one stage to the next. ``knobs`` are the winner's; with
    ``is_custom`` it is a kernel of the client's own, which no spec holds. ``space`` is ``None`` where the configs are
    too many to list. ``share`` is its part of the time of the models that were profiled.
    """

    name: str
    weight: int
    baseline_us: float | None
    best_us: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    generated: int
    tried: int
    compiled: int
    applied: int
    ran: int
    correct: int
    measured: int
    finalists: int
    winner: str | None
    reason: str
    space: int | None
    losses: tuple[Loss, ...]
    knobs: dict[str, int] | None = None
    is_custom: bool = False
    share: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``summary.json``.

    ``profiles`` tell where the time of models goes, and ``unprofiled`` why that is not known. ``left_out`` take too
    little of it to be tuned. ``dropped`` are entries that won and are not in the spec, with the reason.
    """

    run: RunSummary
    dispatches: tuple[DispatchSummary, ...]
    sources: tuple[SourceCheck, ...]
    untunable: tuple[Untunable, ...]
    left_out: tuple[Share, ...] = ()
    dropped: dict[str, str] = {}
    profiles: tuple[Profile, ...] = ()
    unprofiled: dict[str, str] = {}


class _EarlierRun(msgspec.Struct, frozen=True):
    spec_coverage: Coverage | None = None


class _EarlierSummary(msgspec.Struct, frozen=True):
    """What is read of the summary that an earlier run left."""

    run: _EarlierRun


def coverage_of_spec(spec: Path, summary: Path) -> Coverage | None:
    """What the run covered that left a spec beside its summary; ``None`` without a spec, or where no run tells of it.

    Of a summary that does not say so the run is taken to have covered all.
    """
    if not spec.exists():
        return None
    try:
        earlier = msgspec.json.decode(summary.read_bytes(), type=_EarlierSummary)
    except (OSError, msgspec.DecodeError):
        return None
    return earlier.run.spec_coverage or Coverage.WHOLE
