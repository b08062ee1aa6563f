"""The model profile: where the time of a model goes, and which of its dispatches are hot enough to be tuned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pytest_shark_tune.plan.source import Source
    from pytest_shark_tune.plan.types import Plan, Task

__all__ = ["Profile", "Share", "drop_cold", "tasks_of", "worth_profiling"]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one dispatch costs in one call of the model: ``time_us`` of all its ``calls`` together.

    ``dispatch`` is its NAME, or the executable's where it cannot be tuned, for which ``reason`` says why. ``op`` says
    what it computes, ``pipeline`` is the compiler's own choice. ``share`` is its part of the sum over all dispatches.
    """

    dispatch: str
    op: str = ""
    pipeline: str = ""
    calls: int
    time_us: float
    share: float
    reason: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a source's function goes, what takes longest first.

    ``model_us`` is the time of a call as it was measured, ``None`` where only the dispatches were; ``measured`` says
    what was measured, and ``unknown`` names dispatches whose time nobody could tell, with the reason.
    """

    source: str
    function: str
    model_us: float | None
    shares: tuple[Share, ...]
    measured: str
    unknown: dict[str, str] = {}

    @property
    def dispatches_us(self) -> float:
        """The time of all dispatches together, in microseconds."""
        return sum(each.time_us for each in self.shares)

    def time_us(self, dispatch: str) -> float:
        """The time of that dispatch in a call of the model; 0 where it is not told."""
        return sum(each.time_us for each in self.shares if each.dispatch == dispatch)

    def hot(self, share: float) -> tuple[str, ...]:
        """The names of the fewest dispatches that make up ``share`` of the time, those that take longest first."""
        names = []
        so_far = 0.0
        for each in self.shares:
            if so_far >= share:
                break
            so_far += each.share
            names.append(each.dispatch)
        return tuple(names)


def worth_profiling(plan: Plan) -> tuple[Source, ...]:
    """The models of a plan that have a function to run and several dispatches, so that some of them may be cold."""
    return tuple(
        source
        for source in plan.sources
        if source.functions and not source.is_op and len(list(tasks_of(source, plan.tasks))) > 1
    )


def drop_cold(plan: Plan, profiles: Sequence[Profile], share: float, unprofiled: Mapping[str, str]) -> Plan:
    """The plan without the dispatches that are not among those that make up ``share`` of a model's time.

    A dispatch stays if a source without a profile calls it too, or if its default could not be run. The untunable
    dispatches get their share of the time.

    Args:
        plan: The plan of all dispatches.
        profiles: Where the time of its models goes.
        share: The part of the time to tune, 1 for all of it.
        unprofiled: The models that have no profile, with the reason.
    """
    hot = {profile.source: {*profile.hot(share), *profile.unknown} for profile in profiles}
    costs = {(profile.source, part.dispatch): part.share for profile in profiles for part in profile.shares}
    return msgspec.structs.replace(
        plan,
        tasks=tuple(
            task
            for task in plan.tasks
            if any(task.name in hot.get(member.source, (task.name,)) for member in task.dispatch.members)
        ),
        untunable=tuple(
            msgspec.structs.replace(entry, share=costs.get((entry.source, entry.name))) for entry in plan.untunable
        ),
        profiles=tuple(profiles),
        unprofiled=dict(unprofiled),
    )


def tasks_of(source: Source, tasks: Iterable[Task]) -> Iterator[Task]:
    """The tasks whose dispatch a source calls."""
    return (task for task in tasks if any(member.source == source.name for member in task.dispatch.members))
