"""Summaries, computed from the results of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from pytest_shark_tune.measurement.roofline import rates_of
from pytest_shark_tune.plan.types import KernelTask, Plan, Task
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.results.form_results import named_wrong_part
from pytest_shark_tune.results.funnel import funnel_of
from pytest_shark_tune.results.run_results import RunResults
from pytest_shark_tune.results.summary import DispatchSummary, RunSummary, Summary

__all__ = ["summarise"]


def summarise(
    run: RunSummary,
    results: RunResults,
    won: Mapping[str, WinnerRecord],
    dropped: Mapping[str, str],
    why_stopped: Callable[[str], str],
) -> Summary:
    """Return the summary of a run.

    Args:
        run: the circumstances of the run.
        results: its results.
        won: the records of the winners, by dispatch.
        dropped: the winners, and entries of the starter, that are not in the spec, with the reasons.
        why_stopped: returns the reason why no more of a dispatch's candidates were tried, empty if that is not known.
    """

    def untried(name: str) -> str:
        if name in results.kept:
            return "the entry of the snapshot is kept"
        if not run.complete:
            return "the run ended early"
        return why_stopped(name) or "its test was deselected or came to no result"

    plans = results.plans.values()
    return Summary(
        run=run,
        dispatches=tuple(
            _row(results, name, won.get(name), dropped.get(name, ""), untried(name)) for name in results.tasks
        ),
        sources=results.sources,
        untunable=tuple(untunable for plan in plans for untunable in plan.untunable),
        left_out=tuple(share for plan in plans for share in plan.left_out),
        dropped=dict(dropped),
        profiles=tuple(profile for plan in plans for profile in plan.profiles),
        unprofiled={name: why for plan in plans for name, why in plan.unprofiled.items()},
        failed_steps={task.name: task.failed_step for plan in plans for task in plan.tasks if task.failed_step},
        forms=tuple(record for _, record in results.forms.values()),
        tried_forms=tuple(named_wrong_part(result) for plan in plans for result in plan.forms),
    )


def _row(results: RunResults, name: str, winner: WinnerRecord | None, dropped: str, untried: str) -> DispatchSummary:
    task, final, records = results.tasks[name], results.final(name), results.records[name]
    # A provisional final that has rounds was cut, and one without them was not held.
    was_held = final is not None and (not final.is_provisional or final.rounds > 0) and name not in results.kept
    finalists = {finalist.id for finalist in final.finalists} if final is not None and was_held else None
    funnel = funnel_of(task.ids, records, finalists, untried=untried)
    all_tried = funnel.tried == funnel.generated
    row = DispatchSummary.of(
        name,
        funnel,
        records,
        final,
        winner if not dropped else None,
        weight=task.weight,
        space=task.space_size,
        dropped=dropped,
        without_final="no final was held" if all_tried else "its candidates were not all tried",
        is_custom=isinstance(task, KernelTask),
        share=results.plan_of[name].share(task),
        near=task.near if isinstance(task, Task) else {},
        sources=tuple(dict.fromkeys(member.source for member in task.dispatch.members))
        if isinstance(task, Task)
        else (),
    )
    us = row.fastest_us or row.baseline_us
    if not us or not isinstance(task, Task) or row.sizes:
        return row
    return replace(row, rates=rates_of(task.dispatch.root, us, _least_us(results.plan_of[name], name)))


def _least_us(plan: Plan, name: str) -> float | None:
    """The least time of a call that the device's limits leave; ``None`` if no model with the dispatch was profiled."""
    shares = (share for profile in plan.profiles for share in profile.shares if share.dispatch == name)
    return next((share.least_us / share.calls for share in shares if share.least_us), None)
