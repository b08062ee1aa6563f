"""The checks of a ported spec: those of a guarded one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.speed import RUN_ALPHA
from pytest_shark_tune.guard.verdict import CHECKS_OF_ENTRY, CheckOutcome, EntryCheck
from pytest_shark_tune.port.fit import PortedEntry, PortStatus

__all__ = ["check_ported"]


def check_ported(
    drafts: Iterable[PortedEntry],
    path: Path,
    sources: Sequence[object],
    session: GuardSession,
    report: Callable[[str], None],
    *,
    has_models: bool,
) -> Iterator[PortedEntry]:
    """Yield the entries, those that fail a check as lost.

    Args:
        drafts: the ported entries.
        path: the spec that was written of them.
        sources: the models, or the single ops that recorded entries are for.
        session: compiles, runs and measures.
        report: gets a message for every entry.
        has_models: whether ``sources`` are models. In single ops only static checks make sense, and an entry without a
            record, and so without a known op, only has to parse.
    """
    guarded = session.guard_plan(sources, Path(), path)
    for draft in drafts:
        if draft.status is PortStatus.NOT_PORTED:
            yield draft
            continue
        entry = next((entry for entry in guarded.entries if _is_entry_of(entry, draft)), None)
        if entry is None:
            yield draft.as_not_ported("an entry before it asks the very same")
            continue
        report(f"checking {draft.name}")
        reason = _failure_reason(entry, guarded, session, has_models=has_models)
        yield draft.as_not_ported(reason) if reason else draft


def _is_entry_of(entry: GuardEntry, draft: PortedEntry) -> bool:
    if draft.record is not None:
        return entry.record == draft.record
    return entry.record is None and entry.matcher == draft.matcher


def _failure_reason(entry: GuardEntry, guarded: GuardPlan, session: GuardSession, *, has_models: bool) -> str:
    """The reason of the first check that the entry fails; empty if it passes all of them."""
    checks: Iterable[EntryCheck] = CHECKS_OF_ENTRY
    if not has_models:
        checks = [check for check in CHECKS_OF_ENTRY if check.is_static] if entry.record else [EntryCheck.PARSES]
    alpha = RUN_ALPHA / len(guarded.entries)
    for check in checks:
        verdict = session.evaluator.evaluate(guarded, entry, check, alpha=alpha)
        if verdict.outcome is CheckOutcome.FAILED:
            return verdict.reason.removeprefix(guarded.blame(entry, ""))
    return ""
