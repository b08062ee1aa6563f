"""What explains a change of a model between two releases: its dispatches, with the part of the change of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pytest_shark_tune.compiler.versions import OtherCompiler
from pytest_shark_tune.errors import CheckSkipped
from pytest_shark_tune.guard.against import Rivalry
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.speed import AcceptanceCriteria
from pytest_shark_tune.guard.verdict import CheckOutcome, Verdict
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task

__all__ = ["Explanation", "Part", "blamed", "explain", "part_of", "parts_of"]

_ALPHA = 0.01
_BUDGET_S = 30.0
_WORTH_NAMING = 0.1
"""The smallest share of a model's change for which a dispatch is named, if none is slower for sure."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or one of its dispatches, with two releases."""

    name: str
    other_name: str = ""
    """The name of the dispatch with the other release, if it has another one there."""
    calls: int = 1
    """How often the model calls the dispatch."""
    outcome: str = ""
    """The judgement of the sequential test; ``same code`` if both releases make the same machine code."""
    other_us: float = 0.0
    """The time with the other release; 0 if it was not timed."""
    us: float = 0.0
    ratio: float = 1.0
    """The time with the other release by that with this one."""
    ratio_low: float = 1.0
    ratio_high: float = 1.0
    share: float | None = None
    """The part of the model's change that the dispatch explains; ``None`` if the model did not change for sure."""
    note: str = ""

    @property
    def is_slower(self) -> bool:
        """Whether it is slower with this release for sure."""
        return self.outcome == _OUTCOMES[CheckOutcome.FAILED]

    @property
    def change_us(self) -> float:
        """The change of the model's time by the dispatch, in microseconds."""
        return self.calls * (self.us - self.other_us)


_OUTCOMES = {CheckOutcome.PASSED: "not slower", CheckOutcome.FAILED: "slower", CheckOutcome.UNDECIDED: "undecided"}
_SAME_CODE = "same code"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What explains a model's slowdown from the last good release to the first bad one."""

    model: Part | None = None
    """The model; ``None`` if it could not be timed."""
    dispatches: tuple[Part, ...] = ()
    """The dispatches that both releases have, the largest share first."""
    slower: tuple[str, ...] = ()
    """The names of those that explain the slowdown: they are slower for sure, or else have the largest shares."""
    unmatched_good: tuple[str, ...] = ()
    """The dispatches that only the last good release has."""
    unmatched_bad: tuple[str, ...] = ()
    """The dispatches that only the first bad release has."""
    unexplained: float | None = None
    """The part of the model's change that the dispatches do not explain."""
    skipped: dict[str, str] = {}
    """The dispatches that could not be timed, with the reason."""


def parts_of(model: Verdict, dispatches: Sequence[Verdict], *, changed: bool | None = None) -> list[Part]:
    """Return a model and its dispatches, with the shares that these have in the model's change.

    Args:
        model: the verdict on the model.
        dispatches: the verdicts on dispatches. Those that the model does not call are left out.
        changed: whether the model's time changed; if this is ``None``, its interval tells.
    """
    whole = part_of(model)
    if changed is None:
        changed = not whole.ratio_low <= 1 <= whole.ratio_high
    parts = [part_of(one, calls) for one in dispatches if (calls := one.calls.get(model.entry))]
    if changed and whole.change_us:
        change_us = whole.change_us * _slowness(whole, parts)
        parts = [msgspec.structs.replace(part, share=part.change_us / change_us) for part in parts]
    return [whole, *parts]


def _slowness(whole: Part, parts: Sequence[Part]) -> float:
    """How many times as slow the machine was while dispatches were timed: in all they take no longer than the model."""
    other_us = sum(part.calls * part.other_us for part in parts)
    us = sum(part.calls * part.us for part in parts)
    return max(1.0, other_us / whole.other_us, us / whole.us)


def part_of(verdict: Verdict, calls: int = 1) -> Part:
    """Return a model, or a dispatch that is called so often, without a share."""
    if verdict.by_identity:
        return Part(name=verdict.entry, calls=calls, outcome=_SAME_CODE, note=verdict.note)
    metrics = verdict.metrics
    return Part(
        name=verdict.entry,
        calls=calls,
        outcome=_OUTCOMES.get(verdict.outcome, str(verdict.outcome)),
        other_us=metrics["baseline_us"],
        us=metrics["tuned_us"],
        ratio=metrics["ratio"],
        ratio_low=metrics["ratio_low"],
        ratio_high=metrics["ratio_high"],
        note=verdict.note,
    )


def explain(
    session: GuardSession,
    good: OtherCompiler,
    bad: OtherCompiler,
    source: Source,
    report: Callable[[str], None],
) -> tuple[Explanation, dict[str, tuple[Task | None, Task | None]]]:
    """Pair the dispatches of a model with two releases, and time the pairs in turns, and the model.

    Args:
        session: leases the device, and has the cache.
        good: the release with which the model is fast.
        bad: the release with which it is slow.
        source: the model.
        report: gets a message about each comparison.

    Returns:
        The explanation, and the dispatches that belong to it, by name: as the good release has them, and as the bad
        one does. Unmatched dispatches have only one of them.

    Raises:
        InputError: the model's dispatches cannot be found with the bad release.
    """
    here = session.with_compiler(bad)
    plan = here.plan_against(good, [source])
    rivalry = Rivalry(here, good)
    verdicts: dict[str, Verdict] = {}
    skipped: dict[str, str] = {}
    for number, entry in enumerate(plan.entries, 1):
        report(f"{number} of {len(plan.entries)}: timing {entry.name} with {bad.version} and {good.version}")
        try:
            verdicts[entry.name] = rivalry.verdict(plan, entry, _criteria(session, bad))
        except CheckSkipped as reason:
            skipped[entry.name] = str(reason)
    model = next((verdicts.get(entry.name) for entry in plan.entries if _is_model(entry)), None)
    dispatches = [verdicts[entry.name] for entry in plan.entries if not _is_model(entry) and entry.name in verdicts]
    ours, theirs = next(
        (entry.rival.unmatched for entry in plan.entries if entry.rival and entry.rival.model), ((), ())
    )
    whole, parts = None, [part_of(one, sum(one.calls.values())) for one in dispatches]
    if model is not None:
        whole, *parts = parts_of(model, dispatches, changed=True)
    parts = [_with_names(part, plan) for part in sorted(parts, key=lambda part: part.change_us, reverse=True)]
    explanation = Explanation(
        model=whole,
        dispatches=tuple(parts),
        slower=blamed(parts),
        unmatched_good=theirs,
        unmatched_bad=ours,
        unexplained=1 - sum(part.share or 0 for part in parts) if whole and whole.change_us else None,
        skipped=skipped,
    )
    return explanation, _tasks_of(explanation, plan, here, good, source)


def blamed(parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the names of the dispatches that are slower for sure or, without any, of those with large shares."""
    sure = tuple(part.name for part in parts if part.is_slower)
    return sure or tuple(part.name for part in parts if (part.share or 0) >= _WORTH_NAMING)


def _with_names(part: Part, plan: GuardPlan) -> Part:
    rival = plan.entry(part.name).rival
    other = rival.rival.name if rival and rival.rival else ""
    return msgspec.structs.replace(part, other_name=other if other != part.name else "")


def _is_model(entry: GuardEntry) -> bool:
    return entry.rival is not None and entry.rival.task is None


def _criteria(session: GuardSession, bad: OtherCompiler) -> AcceptanceCriteria:
    device = session.settings.device_name
    return AcceptanceCriteria(alpha=_ALPHA, device=device, iree=bad.version, budget_s=_BUDGET_S)


def _tasks_of(
    explanation: Explanation, plan: GuardPlan, here: GuardSession, good: OtherCompiler, source: Source
) -> dict[str, tuple[Task | None, Task | None]]:
    """The dispatches that explain the change, and the unmatched ones, with the good release and with the bad one."""
    found: dict[str, tuple[Task | None, Task | None]] = {}
    for name in explanation.slower:
        if (rival := plan.entry(name).rival) is not None:
            found[name] = rival.rival, rival.task
    known = {task.name: task for task in plan.plan.tasks}
    found |= {name: (None, known[name]) for name in explanation.unmatched_bad}
    if explanation.unmatched_good:
        others = {task.name: task for task in here.with_compiler(good).dispatches_of([source]).tasks}
        found |= {name: (others[name], found.get(name, (None, None))[1]) for name in explanation.unmatched_good}
    return found
