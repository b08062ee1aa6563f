"""What a test of a tuning suite tries: the parameter behind the ``candidate`` fixture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.verdict import Promise
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import AnyTask, Plan
from pytest_shark_tune.search_space.candidate import Candidate

__all__ = ["NO_PLAN", "Guarded", "Trial", "guard_trials", "trials_of"]

NO_PLAN = Plan(sources=(), tasks=(), untunable=())
"""The plan of an input that cannot be read."""


@dataclass(frozen=True)
class Guarded:
    """A promise of one entry of a spec; ``slug`` tells the spec's device where several specs are guarded together."""

    plan: GuardPlan
    entry: GuardEntry
    promise: Promise
    slug: str = ""

    @property
    def id(self) -> str:
        """The part of the test's id between its brackets."""
        return "-".join(filter(None, (self.entry.name, self.slug, self.promise)))


@dataclass(frozen=True)
class Trial:
    """One test's subject: a candidate of a task, its default, its finalists, the merged spec of a plan, or one model.

    ``plan_key`` is the plan's in the cache, ``suite`` the folder of the suite, empty for a model file. ``task`` and
    ``config`` are there for candidates and the default, ``task`` alone for finals; ``model`` is the name of the source
    that is measured end to end. ``problem`` says why an input cannot be tuned; the test then fails with it.

    In guard mode ``guarded`` is the promise. Of one that takes a device the entry's config is the candidate, so that a
    client's own fixtures serve it like any other; of a static one there is neither ``task`` nor ``config``.
    """

    role: Role
    plan: Plan
    plan_key: str = ""
    suite: str = ""
    task: AnyTask | None = None
    config: Candidate | None = None
    problem: str = ""
    guarded: Guarded | None = None
    model: str = ""

    @property
    def id(self) -> str:
        """The part of the test's id between its brackets."""
        if self.guarded is not None:
            return self.guarded.id
        match self.role:
            case Role.SPEC | Role.INPUT:
                return self.role
            case Role.END_TO_END:
                return f"{self.model}-{self.role}"
            case Role.CANDIDATE:
                return f"{self.known_task.name}-{self.candidate.pipeline}-{self.candidate.id}"
            case _:
                return f"{self.known_task.name}-{self.role}"

    @property
    def known_task(self) -> AnyTask:
        """The task; a trial of a whole spec has none."""
        assert self.task is not None, f"a trial of role {self.role} has no dispatch of its own"
        return self.task

    @property
    def candidate(self) -> Candidate:
        """The candidate, or the default."""
        assert self.config is not None, f"a trial of role {self.role} has no config of its own"
        return self.config

    @property
    def knobs(self) -> Mapping[str, int]:
        """The candidate's knobs; a dispatch's default has none."""
        return self.candidate.knobs


def trials_of(plan: Plan, plan_key: str, suite: str) -> Iterator[Trial]:
    """Every test of a plan, in the order in which they are collected."""

    def trial(role: Role, task: AnyTask | None = None, config: Candidate | None = None) -> Trial:
        return Trial(role, plan, plan_key, suite, task, config)

    for task in plan.everything:
        yield trial(Role.DEFAULT, task, task.default)
        for candidate in task.candidates:
            yield trial(Role.CANDIDATE, task, candidate)
    for task in plan.everything:
        yield trial(Role.FINAL, task)
    if plan.tasks:
        yield trial(Role.SPEC)
    for source in plan.models:
        yield Trial(Role.END_TO_END, plan, plan_key, suite, model=source.name)


def guard_trials(plan: GuardPlan, suite: str, slug: str = "") -> Iterator[Trial]:
    """A test for each promise of each entry of a spec, in the order in which they are collected."""
    for entry in plan.entries:
        for promise in Promise:
            guarded = Guarded(plan, entry, promise, slug)
            if promise.is_static or not entry.tasks:
                yield Trial(Role.PROMISE, plan.plan, suite=suite, guarded=guarded)
            else:
                task = entry.tasks[0]
                yield Trial(
                    Role.CANDIDATE, plan.plan, suite=suite, task=task, config=task.candidates[0], guarded=guarded
                )
