"""The model profile: where the time of a model goes, and which of its dispatches are hot enough to be tuned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from pytest_shark_tune.plan.source import Source
    from pytest_shark_tune.plan.types import Plan, Task

__all__ = ["Profile", "Share", "drop_cold", "tasks_of", "worth_profiling"]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one dispatch in one call of the model."""

    dispatch: str
    """The dispatch's NAME, or the executable's if it cannot be tuned."""
    op: str = ""
    """The op that it computes."""
    pipeline: str = ""
    """The compiler's own choice."""
    calls: int
    time_us: float
    """The time of all calls together."""
    share: float
    """Its part of the sum over all dispatches."""
    least_us: float | None = None
    """The least time of all calls together that the device's limits leave; ``None`` if it is not known."""
    reason: str = ""
    """The reason why it cannot be tuned."""

    @property
    def gain_us(self) -> float:
        """The time that tuning may save: what exceeds twice the least time; 0 if that is not known."""
        if self.reason or self.least_us is None:
            return 0.0
        return max(0.0, self.time_us - _REACHED * self.least_us)


_REACHED = 2.0
"""The time of a tuned dispatch by the least that the device's limits leave, as most matrix products reach it."""


_LOST = 0.25
"""The gains that may be left out of a tuned model, by the time that may be left out of the model by default."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a source's function goes."""

    source: str
    function: str
    model_us: float | None
    """The measured time of a call; `None` if only the dispatches were measured."""
    shares: tuple[Share, ...]
    """The dispatches, the one that takes longest first."""
    measured: str
    """How the dispatches were measured."""
    unknown: dict[str, str] = {}
    """The dispatches that could not be measured, with the reason."""

    @property
    def dispatches_us(self) -> float:
        """The time of all dispatches together, in microseconds."""
        return sum(part.time_us for part in self.shares)

    @property
    def outside_us(self) -> float:
        """The time of a call that is none of its dispatches', in microseconds; 0 if the model was not measured."""
        return max(0.0, (self.model_us or self.dispatches_us) - self.dispatches_us)

    @property
    def calls(self) -> int:
        """The number of calls of dispatches."""
        return sum(part.calls for part in self.shares)

    def time_us(self, dispatch: str) -> float:
        """Return the time of that dispatch in a call of the model; 0 if it is unknown."""
        return sum(part.time_us for part in self.shares if part.dispatch == dispatch)

    def hot_dispatches(self, share: float) -> tuple[str, ...]:
        """Return the dispatches to tune for ``share`` of the time, the one that takes longest first.

        These are the fewest that make up ``share`` of the time by default. If they may become much faster, the others
        make up more of the tuned model. So those that may gain most are added, until the gains that are left out make
        up no more than a quarter of 1 - ``share`` of the tuned model's time.
        """
        names = []
        so_far = 0.0
        for part in self.shares:
            if so_far >= share:
                break
            so_far += part.share
            names.append(part.dispatch)
        left_out = sum(part.gain_us for part in self.shares[len(names) :])
        tuned_us = self.dispatches_us + self.outside_us - sum(part.gain_us for part in self.shares)
        for part in sorted(self.shares[len(names) :], key=lambda part: -part.gain_us):
            if left_out <= _LOST * (1 - share) * tuned_us:
                break
            left_out -= part.gain_us
            names.append(part.dispatch)
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
    hot_dispatches = {profile.source: {*profile.hot_dispatches(share), *profile.unknown} for profile in profiles}
    costs = {(profile.source, part.dispatch): part.share for profile in profiles for part in profile.shares}

    def is_hot(task: Task) -> bool:
        return any(task.name in hot_dispatches.get(member.source, (task.name,)) for member in task.dispatch.members)

    untunable = (replace(entry, share=costs.get((entry.source, entry.name))) for entry in plan.untunable)
    return replace(
        plan,
        tasks=tuple(filter(is_hot, plan.tasks)),
        untunable=tuple(untunable),
        profiles=tuple(profiles),
        unprofiled=dict(unprofiled),
    )


def tasks_of(source: Source, tasks: Iterable[Task]) -> Iterator[Task]:
    """Select the tasks of the dispatches that a source calls."""
    return (task for task in tasks if any(member.source == source.name for member in task.dispatch.members))
