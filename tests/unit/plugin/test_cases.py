"""What each test of a suite tries, and the ids that it has for good."""

from __future__ import annotations

import pytest

from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.plugin.cases import Trial, guard_trials, trials_of

EMPTY = Plan(sources=(), tasks=(), untunable=())


@pytest.fixture
def trials(plan: Plan) -> list[Trial]:
    return list(trials_of(plan, "key", "/suite"))


def test_a_plan_becomes_default_candidates_final_and_spec(plan: Plan, trials: list[Trial]) -> None:
    (task,) = plan.tasks
    name = "matmul_64x96x128_f32"
    assert [trial.id for trial in trials] == [
        f"{name}-default",
        *(f"{name}-DoubleTilingExpert-{candidate.id}" for candidate in task.candidates),
        f"{name}-final",
        "spec",
    ]
    assert [trial.role.phase for trial in trials] == [Phase.CANDIDATE] * 4 + [Phase.FINAL, Phase.SPEC]


def test_ids_are_unique_and_safe_in_a_test_id(trials: list[Trial]) -> None:
    identifiers = [trial.id for trial in trials]
    assert len(set(identifiers)) == len(identifiers)
    assert not any(set(" []/:$") & set(identifier) for identifier in identifiers)


def test_every_trial_knows_its_plan_and_suite(plan: Plan, trials: list[Trial]) -> None:
    assert {trial.plan_key for trial in trials} == {"key"}
    assert {trial.suite for trial in trials} == {"/suite"}
    assert all(trial.plan is plan for trial in trials)


def test_finals_of_all_dispatches_come_after_all_candidates(plan: Plan) -> None:
    twice = Plan(sources=plan.sources, tasks=plan.tasks * 2, untunable=())
    roles = [trial.role for trial in trials_of(twice, "key", "")]
    one = [Role.DEFAULT, *[Role.CANDIDATE] * 3]
    assert roles == [*one, *one, Role.FINAL, Role.FINAL, Role.SPEC]


def test_knobs_are_the_candidates(plan: Plan, trials: list[Trial]) -> None:
    (task,) = plan.tasks
    assert trials[0].knobs == {}
    assert [trial.knobs for trial in trials[1:4]] == [candidate.knobs for candidate in task.candidates]
    assert all(trial.knobs for trial in trials[1:4])
    assert trials[0].task is task


def test_what_a_trial_lacks_cannot_be_asked_for(trials: list[Trial]) -> None:
    *_, final, spec = trials
    with pytest.raises(AssertionError, match="role final has no config"):
        _ = final.candidate
    with pytest.raises(AssertionError, match="role spec has no dispatch"):
        _ = spec.known_task


def test_a_plan_without_tasks_has_no_test() -> None:
    assert list(trials_of(EMPTY, "key", "")) == []


def test_an_input_that_cannot_be_tuned_is_an_ordinary_test() -> None:
    trial = Trial(Role.INPUT, EMPTY, problem="there is no file")
    assert (trial.id, trial.role.phase, trial.plan_key) == ("input", Phase.ORDINARY, "")


def test_each_promise_of_an_entry_is_a_test(plan: Plan) -> None:
    (task,) = plan.tasks
    entries = (GuardEntry(name="mine", tasks=(task,)), GuardEntry(name="stray"))
    guarded = GuardPlan(key="key", spec_path="spec.mlir", spec="", entries=entries, plan=plan)
    trials = list(guard_trials(guarded, "/suite"))
    promises = ["parses", "allowed", "applies", "correct", "fast"]
    assert [trial.id for trial in trials] == [f"{name}-{each}" for name in ("mine", "stray") for each in promises]
    # What takes a device is a candidate to a client's own fixtures, and what takes none is nothing to them.
    assert [trial.role for trial in trials] == [Role.PROMISE] * 3 + [Role.CANDIDATE] * 2 + [Role.PROMISE] * 5
    assert [trial.config for trial in trials] == [None] * 3 + [task.candidates[0]] * 2 + [None] * 5
    assert {trial.role.phase for trial in trials[:3]} == {Phase.ORDINARY}
    assert next(guard_trials(guarded, "/suite", "cortex-x4")).id == "mine-cortex-x4-parses"
