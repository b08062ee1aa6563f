"""The plan of a run, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

import msgspec

from pytest_shark_tune.dispatch.types import Dispatch, RootOp, Untunable
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.search.facts import ProblemFacts, facts_of, on_device
from pytest_shark_tune.search_space.candidate import (
    Candidate,
)

__all__ = ["AnyTask", "KernelTask", "Plan", "Task", "renamed", "with_data_of"]


class _Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A default and the candidates to try instead.

    ``space_size`` counts the configs they were drawn from; ``None`` where they are too many to list.
    """

    default: Candidate
    candidates: tuple[Candidate, ...]
    space_size: int | None

    def candidate(self, identifier: str) -> Candidate:
        """The candidate of that id, the default included."""
        return next(each for each in (self.default, *self.candidates) if each.id == identifier)


class Task(_Tried, frozen=True, kw_only=True):
    """A dispatch with the candidates to try.

    ``near`` are the compiler's own choice of knobs, as far as spaces of its pipeline have them: by the position of such
    a space among the dispatch's. ``facts`` are there where the compiler, which reads them, may not be.
    """

    dispatch: Dispatch
    near: dict[int, dict[str, int]] = {}
    facts: ProblemFacts | None = None

    def facts_on(self, device: str) -> ProblemFacts:
        """What a search may know of the dispatch on the device of that name."""
        if self.facts is None:
            return facts_of(self.dispatch.root, self.dispatch.target, device)
        return on_device(self.facts, self.dispatch.target, device)

    @property
    def name(self) -> str:
        """The dispatch's name."""
        return self.dispatch.name

    @property
    def root(self) -> RootOp | None:
        """The op that a spec entry for the dispatch matches."""
        return self.dispatch.root

    @property
    def weight(self) -> int:
        """How many calls a better config makes faster."""
        return self.dispatch.weight


class KernelTask(_Tried, frozen=True, kw_only=True):
    """A client's own kernel with the candidates to try: no dispatch of IREE, so no spec entry comes of it."""

    name: str
    weight: int
    root: ClassVar[None] = None


AnyTask: TypeAlias = Task | KernelTask


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one test function, or one model file, tunes.

    ``profiles`` tell where the time of its models goes; ``unprofiled`` are models of which that could not be told, with
    the reason. ``left_out`` are the dispatches that could be tuned and take too little of the time.
    """

    sources: tuple[Source, ...]
    tasks: tuple[Task, ...]
    untunable: tuple[Untunable, ...]
    kernels: tuple[KernelTask, ...] = ()
    profiles: tuple[Profile, ...] = ()
    unprofiled: dict[str, str] = {}

    @property
    def everything(self) -> tuple[AnyTask, ...]:
        """The dispatches, then the kernels."""
        return (*self.tasks, *self.kernels)

    @property
    def models(self) -> tuple[Source, ...]:
        """The sources that are measured end to end: models with a function to run, and something to tune in them."""
        tuned = {member.source for task in self.tasks for member in task.dispatch.members}
        return tuple(each for each in self.sources if each.run_whole and not each.is_op and each.name in tuned)

    @property
    def left_out(self) -> tuple[Share, ...]:
        """What takes too little of a model's time to be tuned, by model."""
        tuned = {task.name for task in self.tasks}
        return tuple(
            each
            for profile in self.profiles
            for each in profile.shares
            if not each.reason and each.dispatch not in tuned
        )

    def time_us(self, task: AnyTask) -> float | None:
        """Microseconds of all calls of a dispatch in the plan's models; ``None`` unless all of them were profiled."""
        profiled = {profile.source for profile in self.profiles}
        if not isinstance(task, Task) or any(each.source not in profiled for each in task.dispatch.members):
            return None
        return sum(profile.time_us(task.name) for profile in self.profiles) or None

    def share(self, task: AnyTask) -> float | None:
        """The part that a dispatch has in the time of the models that were profiled; ``None`` where none was."""
        total = sum(profile.dispatches_us for profile in self.profiles)
        return sum(profile.time_us(task.name) for profile in self.profiles) / total if total else None

    def source(self, name: str) -> Source:
        """The source of that name."""
        return next(source for source in self.sources if source.name == name)


def with_data_of(plan: Plan, sources: Sequence[Source]) -> Plan:
    """``plan`` with the files of ``sources``, its own: who put it into the cache may have had them elsewhere."""
    data = {source.name: source.data for source in sources}
    here = tuple(msgspec.structs.replace(source, data=data[source.name]) for source in plan.sources)
    return msgspec.structs.replace(plan, sources=here)


def renamed(plan: Plan, names: Mapping[str, str]) -> Plan:
    """The plan with other names for some of its dispatches."""

    def rename(task: Task) -> Task:
        name = names.get(task.dispatch.name, task.dispatch.name)
        return msgspec.structs.replace(
            task,
            dispatch=msgspec.structs.replace(task.dispatch, name=name),
            default=msgspec.structs.replace(task.default, dispatch=name),
            candidates=tuple(msgspec.structs.replace(each, dispatch=name) for each in task.candidates),
        )

    def rename_share(share: Share) -> Share:
        return msgspec.structs.replace(share, dispatch=names.get(share.dispatch, share.dispatch))

    return msgspec.structs.replace(
        plan,
        tasks=tuple(map(rename, plan.tasks)),
        profiles=tuple(
            msgspec.structs.replace(profile, shares=tuple(map(rename_share, profile.shares)))
            for profile in plan.profiles
        ),
    )
