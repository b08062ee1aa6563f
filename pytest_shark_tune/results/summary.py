"""The summary of a run, as ``summary.json`` has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType

import msgspec

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.measurement.roofline import Rates
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.types import FormResult
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import FinalRecord, Record, SizeRatio, SourceCheck, State, WinnerRecord
from pytest_shark_tune.results.coverage import Coverage
from pytest_shark_tune.results.funnel import Funnel, Loss
from pytest_shark_tune.search_space.candidate import DEFAULT_ID
from pytest_shark_tune.system import journal

__all__ = [
    "DEFAULT_FAILED",
    "BestFinalist",
    "DispatchSummary",
    "RunSummary",
    "Summary",
    "says_nothing",
    "write_summary",
]

DEFAULT_FAILED = "the default config failed"
"""The beginning of the reason of a dispatch whose default failed."""
_SAYS_NOTHING = 8.0
"""The upper bound of an interval by its lower bound from which on it says nothing."""


def says_nothing(low: float, high: float) -> bool:
    """Return whether an interval is too wide to say anything: two rounds that differ by a tenth make such a one."""
    return high > _SAYS_NOTHING * low


class BestFinalist(msgspec.Struct, frozen=True, kw_only=True):
    """The fastest participant of a final that nobody won."""

    id: str
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int = 0
    """The number of the final's rounds; 0 in a summary of an earlier release."""

    @classmethod
    def of(cls, final: FinalRecord) -> BestFinalist | None:
        """Return the finalist with the largest ratio; ``None`` if none was measured."""
        found = [
            cls(
                id=known.id,
                ratio=known.ratio,
                ratio_low=known.ratio_low,
                ratio_high=known.ratio_high,
                rounds=final.rounds,
            )
            for known in final.finalists
            if known.ratio is not None and known.ratio_low is not None and known.ratio_high is not None
        ]
        return max(found, key=lambda known: known.ratio, default=None)


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a run."""

    versions: dict[str, str]
    """Versions by package."""
    target: str
    device: str
    seconds: float
    complete: bool
    """False if the run ended early."""
    unsteady: int = 0
    """The number of candidates and finals for which the machine changed its speed while they were measured."""
    coverage: Coverage = Coverage.WHOLE
    """The part of the input that was tuned."""
    spec_coverage: Coverage | None = None
    """The same of the run that ``spec.mlir`` is of; ``None`` without such a file."""
    keeps_spec: bool = False
    """True if ``spec.mlir`` is that of an earlier run."""


class DispatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch, or kernel, in the summary; the counts are those of its funnel."""

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
    """The winner's id, ``None`` without one."""
    reason: str
    """The reason for there being no winner, or a remark about the one there is."""
    space: int | None
    """The number of configs, ``None`` if they are too many to list."""
    losses: tuple[Loss, ...]
    """The reasons why the counts fall from one stage to the next."""
    knobs: dict[str, int] | None = None
    """The winner's knobs."""
    is_custom: bool = False
    """True for a kernel of the client's own, which no spec holds."""
    share: float | None = None
    """The dispatch's part of the time of the models that were profiled."""
    sizes: dict[str, SizeRatio] = {}
    """Of a dispatch with open sizes: the winner's result at each of them, or the default's without a winner."""
    best: BestFinalist | None = None
    """The fastest finalist, of a final without a winner."""
    default_knobs: dict[str, int] | None = None
    """The knobs of the default, if it is a config of the winner's space."""
    pipelines: tuple[str, str] | None = None
    """The pipelines of the default and of the winner."""
    sources: tuple[str, ...] = ()
    """The sources that have the dispatch."""
    rates: Rates | None = None
    """The speed of the winner, or of the default without one; ``None`` for kernels and for open sizes."""

    @property
    def fastest_us(self) -> float | None:
        """The winner's time beside the default's time of the same final: that time, divided by the speedup.

        The speedup is the mean over pairs of samples that were taken in turns. The median of the winner's samples alone
        includes the drift of the machine, and would not fit it.
        """
        return self.baseline_us / self.speedup if self.baseline_us is not None and self.speedup else self.best_us

    @classmethod
    def of(
        cls,
        name: str,
        funnel: Funnel,
        records: Mapping[str, Record],
        final: FinalRecord | None,
        winner: WinnerRecord | None,
        *,
        weight: int,
        space: int | None,
        dropped: str,
        without_final: str,
        is_custom: bool,
        share: float | None = None,
        near: Mapping[int, dict[str, int]] = MappingProxyType({}),
        sources: tuple[str, ...] = (),
    ) -> DispatchSummary:
        """Return the summary of one dispatch.

        Args:
            name: the dispatch's name.
            funnel: the funnel of its candidates.
            records: the records of its candidates by id, the default included.
            final: its final, if one was held.
            winner: the record of its winner, ``None`` without one and for one that was dropped.
            weight: the number of its calls.
            space: the number of configs, ``None`` if they are too many to list.
            dropped: the reason why its winner has no entry, empty if that has one.
            without_final: the reason for there being no final.
            is_custom: true for a kernel of the client's own.
            share: its part of the time of the models that were profiled.
            near: the knobs of its default in the spaces that can express it.
            sources: the sources that have it.
        """
        default = records.get(DEFAULT_ID)
        baseline_us = (final.baseline_samples_us if final else ()) or (default.baseline_samples_us if default else ())
        reason = dropped or (final.reason if final else without_final)
        if winner is None and default is not None and default.state is not State.MEASURED:
            reason = f"{DEFAULT_FAILED}: {default.state}: {default.reason}"
        return cls(
            name=name,
            weight=weight,
            baseline_us=median(baseline_us) if baseline_us else None,
            best_us=median(winner.samples_us) if winner and winner.samples_us else None,
            speedup=winner.ratio if winner else None,
            speedup_low=winner.ratio_low if winner else None,
            speedup_high=winner.ratio_high if winner else None,
            winner=winner.id if winner else None,
            reason=reason,
            space=space,
            knobs=winner.knobs if winner else None,
            is_custom=is_custom,
            share=share,
            sizes=winner.sizes if winner else default.sizes if default else {},
            best=BestFinalist.of(final) if final is not None and winner is None and not dropped else None,
            default_knobs=_knobs_like(near, winner) if winner else None,
            pipelines=(default.pipeline, winner.pipeline) if winner and default else None,
            sources=sources,
            **msgspec.structs.asdict(funnel),
        )


def _knobs_like(near: Mapping[int, dict[str, int]], winner: WinnerRecord) -> dict[str, int] | None:
    """The knobs of a default in the winner's space, which is known by the names of its knobs.

    Knobs that are off may be left out.
    """
    return next((knobs for knobs in near.values() if knobs and knobs.keys() <= winner.knobs.keys()), None)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``summary.json``."""

    run: RunSummary
    dispatches: tuple[DispatchSummary, ...]
    sources: tuple[SourceCheck, ...]
    untunable: tuple[Untunable, ...]
    left_out: tuple[Share, ...] = ()
    """Dispatches that take too little of a model's time to be tuned."""
    dropped: dict[str, str] = {}
    """Entries that won and are not in the spec, with the reasons."""
    profiles: tuple[Profile, ...] = ()
    """Where the time of models goes."""
    unprofiled: dict[str, str] = {}
    """Models without a profile, with the reasons."""
    failed_steps: dict[str, str] = {}
    """Dispatches for which an optional step of the compiler failed, with the step and the reason. They are tuned."""
    forms: tuple[FormRecord, ...] = ()
    """The chosen forms of models, with the forms that they were compared with."""
    tried_forms: tuple[FormResult, ...] = ()
    """The forms of models that were compiled whole and timed untuned."""

    @property
    def in_use(self) -> list[DispatchSummary]:
        """The dispatches of the models as they are used.

        A model was tuned in several forms. Dispatches that only the forms have that were not chosen are left out.
        """
        models, chosen = {record.model for record in self.forms}, {record.source for record in self.forms}
        others = {result.source for result in self.tried_forms if result.model in models} - chosen
        return [row for row in self.dispatches if not row.sources or not others.issuperset(row.sources)]

    @property
    def improved(self) -> list[DispatchSummary]:
        """The dispatches with an entry in the spec."""
        return [row for row in self.dispatches if row.winner is not None and row.name not in self.dropped]

    @property
    def unproven(self) -> dict[str, SourceCheck]:
        """The dispatches with an entry that no model is surely faster with, and the check of one of these models.

        A dispatch that a single op or benchmark has as well is faster there.
        """
        checks = {check.source: check for check in self.sources if check.ratio_low is not None}
        found = {}
        for row in self.improved:
            models = [checks[source] for source in row.sources if source in checks]
            if models and len(models) == len(row.sources) and all((model.ratio_low or 0.0) <= 1 for model in models):
                found[row.name] = models[0]
        return found


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json``.

    Raises:
        OSError: it cannot be written; an older file is then whole.
    """
    journal.replace_file(path, msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
