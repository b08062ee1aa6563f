"""A run as the figures want it: the records, the final and the summary of each dispatch side by side."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State
from pytest_shark_tune.report.html.figures.intervals import RatioRow
from pytest_shark_tune.report.html.scale import usable
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.results.summary import DispatchSummary, Summary
from pytest_shark_tune.search_space.candidate import DEFAULT_ID

__all__ = ["DispatchView", "gains_of", "profiles_of", "views_of"]


@dataclass(frozen=True)
class DispatchView:
    """One dispatch of a run."""

    row: DispatchSummary
    candidates: tuple[Record, ...]
    """The candidates, in the order in which they were tried."""
    default: Record | None
    final: FinalRecord | None
    dropped: str
    """The reason why its winner is not in the spec; empty without a winner and for one that is."""

    @property
    def name(self) -> str:
        """The dispatch's name."""
        return self.row.name

    @property
    def measured(self) -> tuple[Record, ...]:
        """The candidates with a time."""
        return tuple(record for record in self.candidates if record.state is State.MEASURED and usable([record.ratio]))

    @property
    def finalists(self) -> tuple[Finalist, ...]:
        """The finalists with a time, the fastest first."""
        found = self.final.finalists if self.final is not None else ()
        timed = (finalist for finalist in found if finalist.ratio is not None and usable([finalist.ratio]))
        return tuple(sorted(timed, key=lambda finalist: -(finalist.ratio or 0)))

    @property
    def best(self) -> Finalist | None:
        """The winner, or else the fastest finalist."""
        winner = self.row.winner or (self.final.winner if self.final is not None else None)
        return next(
            (finalist for finalist in self.finalists if finalist.id == winner), next(iter(self.finalists), None)
        )

    @property
    def speedup(self) -> RatioRow | None:
        """The result of the final; ``None`` if no candidate was in one."""
        best, row = self.best, self.row
        if row.speedup is not None and usable([row.speedup]):
            remark = "provisional" if self.final is not None and self.final.is_provisional else ""
            return RatioRow(self.name, row.speedup, row.speedup_low, row.speedup_high, "good", remark)
        if best is None or best.ratio is None:
            return None
        remark = "not in the spec" if self.dropped else "unproven"
        return RatioRow(self.name, best.ratio, best.ratio_low, best.ratio_high, "noise", remark)


def views_of(run: FinishedRun) -> tuple[DispatchView, ...]:
    """Return the dispatches of a run, in the order of its summary."""
    records: dict[str, dict[str, Record]] = {}
    for record in run.records:  # Later lines of a journal take the place of earlier ones.
        records.setdefault(record.dispatch, {})[record.id] = record
    finals = {final.dispatch: final for final in run.finals}

    def view(row: DispatchSummary) -> DispatchView:
        own = records.get(row.name, {})
        candidates = tuple(record for name, record in own.items() if name != DEFAULT_ID)
        dropped = run.summary.dropped.get(row.name, "")
        return DispatchView(row, candidates, own.get(DEFAULT_ID), finals.get(row.name), dropped)

    return tuple(map(view, run.summary.dispatches))


def profiles_of(summary: Summary) -> tuple[Profile, ...]:
    """Return the profiles of the models of a run, without those of forms that another form took the place of."""
    chosen = {form.source for form in summary.forms}
    compared = {other.form.source_name(form.model) for form in summary.forms for other in form.compared}
    tried = {result.source for result in summary.tried_forms if chosen}
    return tuple(profile for profile in summary.profiles if profile.source not in (compared | tried) - chosen)


def gains_of(summary: Summary) -> dict[str, float]:
    """Return the speedups of the dispatches that have an entry in the spec, by name."""
    rows = (row for row in summary.dispatches if row.name not in summary.dropped)
    return {row.name: row.speedup for row in rows if row.speedup is not None and usable([row.speedup])}
