"""Tuning cases: the parameters of tests, behind the fixture ``candidate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.verdict import EntryCheck
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import AnyTask, FormResult, Plan
from pytest_shark_tune.search_space.candidate import Candidate

__all__ = ["DEFAULT", "NO_PLAN", "Guarded", "TuningCase", "cases_of", "guard_cases"]

DEFAULT = -1
"""The place of a task's default, which is none of its candidates."""
NO_PLAN = Plan(sources=(), tasks=(), untunable=())
"""The plan of an input that cannot be read."""


@dataclass(frozen=True)
class Guarded:
    """A check of one entry of a spec."""

    plan: GuardPlan
    entry: GuardEntry
    check: EntryCheck
    slug: str = ""
    """The device of the spec, if several specs are guarded together."""

    @property
    def id(self) -> str:
        """The part of the test's id between its brackets."""
        return "-".join(filter(None, (self.entry.name, self.slug, self.check)))


@dataclass(frozen=True, slots=True)
class TuningCase:
    """The subject of a test: a candidate of a task, its default, its finalists, the spec of a plan, or a model."""

    role: Role
    plan: Plan
    plan_key: str = ""
    """The key of the plan in the cache."""
    suite: str = ""
    """The directory of the suite; empty for a model file."""
    task: AnyTask | None = None
    """The task of a candidate, a default or a final."""
    place: int | None = None
    """The position of the candidate among those of the task, or `DEFAULT`; `None` without a config."""
    problem: str = ""
    """Why the input cannot be tuned; the test fails with it."""
    guarded: Guarded | None = None
    """The check, in guard mode."""
    model: str = ""
    """The name of the source that is measured end to end, or of the model whose forms are compared."""
    form: FormResult | None = None
    """The form of a model."""

    @property
    def id(self) -> str:
        """The part of the test's id between its brackets."""
        if self.guarded is not None:
            return self.guarded.id
        match self.role:
            case Role.SPEC | Role.INPUT:
                return self.role
            case Role.FORM:
                return f"{self.form_result.model}-{self.role}-{self.form_result.form.name}"
            case Role.END_TO_END | Role.FORM_FINAL:
                return f"{self.model}-{self.role}"
            case Role.CANDIDATE:
                assert self.place is not None, "a candidate has a config"
                return "-".join((self.known_task.name, *self.known_task.label(self.place)))
            case _:
                return f"{self.known_task.name}-{self.role}"

    @property
    def config(self) -> Candidate | None:
        """The candidate or the default. A run has many cases, so it is made anew each time.

        In guard mode it is the config of the entry if the check needs a device: fixtures of the suite treat it like any
        other candidate. A static check has neither task nor config.
        """
        if self.place is None:
            return None
        return self.known_task.default if self.place == DEFAULT else self.known_task.candidates[self.place]

    @property
    def config_id(self) -> str:
        """The id of the config; empty without one."""
        if self.place is None:
            return ""
        return self.known_task.default.id if self.place == DEFAULT else self.known_task.label(self.place)[1]

    @property
    def known_task(self) -> AnyTask:
        """The task; the case of a whole spec has none."""
        assert self.task is not None, f"a tuning case of role {self.role} has no dispatch of its own"
        return self.task

    @property
    def form_result(self) -> FormResult:
        """The form of a model."""
        assert self.form is not None, f"a tuning case of role {self.role} has no form"
        return self.form

    @property
    def candidate(self) -> Candidate:
        """The candidate, or the default."""
        config = self.config
        assert config is not None, f"a tuning case of role {self.role} has no config of its own"
        return config

    @property
    def knobs(self) -> Mapping[str, int]:
        """The candidate's knobs; a dispatch's default has none."""
        return self.candidate.knobs


def cases_of(plan: Plan, plan_key: str, suite: str) -> Iterator[TuningCase]:
    """Yield the cases of a plan in the order of their tests."""

    def case(role: Role, task: AnyTask | None = None, place: int | None = None) -> TuningCase:
        return TuningCase(role, plan, plan_key, suite, task, place)

    for form in plan.forms:
        yield TuningCase(Role.FORM, plan, plan_key, suite, form=form)
    for task in plan.everything:
        yield case(Role.DEFAULT, task, DEFAULT)
        for place in range(len(task.candidates)):
            yield case(Role.CANDIDATE, task, place)
    for task in plan.everything:
        yield case(Role.FINAL, task)
    for model in dict.fromkeys(form.model for form in plan.forms):
        yield TuningCase(Role.FORM_FINAL, plan, plan_key, suite, model=model)
    if plan.tasks:
        yield case(Role.SPEC)
    for source in plan.models:
        yield TuningCase(Role.END_TO_END, plan, plan_key, suite, model=source.name)


def guard_cases(plan: GuardPlan, suite: str, slug: str = "") -> Iterator[TuningCase]:
    """Yield a case for every check of every entry of a spec, in the order of their tests."""
    for entry in plan.entries:
        for check in entry.checks:
            guarded = Guarded(plan, entry, check, slug)
            if check.is_static or not entry.tasks:  # A form has no tasks of its own.
                yield TuningCase(Role.CHECK, plan.plan, suite=suite, guarded=guarded)
            else:
                task = entry.tasks[0]
                yield TuningCase(Role.CANDIDATE, plan.plan, suite=suite, task=task, place=0, guarded=guarded)
