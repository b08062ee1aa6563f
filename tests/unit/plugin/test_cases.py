"""What each test of a suite tries, and the ids that it has for good."""

from __future__ import annotations

import pytest

from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.plugin.cases import TuningCase, cases_of, guard_cases

EMPTY = Plan(sources=(), tasks=(), untunable=())


@pytest.fixture
def cases(plan: Plan) -> list[TuningCase]:
    return list(cases_of(plan, "key", "/suite"))


def test_a_plan_becomes_default_candidates_final_and_spec(plan: Plan, cases: list[TuningCase]) -> None:
    (task,) = plan.tasks
    name = "matmul_64x96x128_f32"
    assert [case.id for case in cases] == [
        f"{name}-default",
        *(f"{name}-DoubleTilingExpert-{candidate.id}" for candidate in task.candidates),
        f"{name}-final",
        "spec",
    ]
    assert [case.role.phase for case in cases] == [Phase.CANDIDATE] * 4 + [Phase.FINAL, Phase.SPEC]


def test_ids_are_unique_and_safe_in_a_test_id(cases: list[TuningCase]) -> None:
    identifiers = [case.id for case in cases]
    assert len(set(identifiers)) == len(identifiers)
    assert not any(set(" []/:$") & set(identifier) for identifier in identifiers)


def test_every_trial_knows_its_plan_and_suite(plan: Plan, cases: list[TuningCase]) -> None:
    assert {case.plan_key for case in cases} == {"key"}
    assert {case.suite for case in cases} == {"/suite"}
    assert all(case.plan is plan for case in cases)


def test_finals_of_all_dispatches_come_after_all_candidates(plan: Plan) -> None:
    twice = Plan(sources=plan.sources, tasks=plan.tasks * 2, untunable=())
    roles = [case.role for case in cases_of(twice, "key", "")]
    one = [Role.DEFAULT, *[Role.CANDIDATE] * 3]
    assert roles == [*one, *one, Role.FINAL, Role.FINAL, Role.SPEC]


def test_knobs_are_the_candidates(plan: Plan, cases: list[TuningCase]) -> None:
    (task,) = plan.tasks
    assert cases[0].knobs == {}
    assert [case.knobs for case in cases[1:4]] == [candidate.knobs for candidate in task.candidates]
    assert all(case.knobs for case in cases[1:4])
    assert cases[0].task is task


def test_what_a_trial_lacks_cannot_be_asked_for(cases: list[TuningCase]) -> None:
    *_, final, spec = cases
    with pytest.raises(AssertionError, match="role final has no config"):
        _ = final.candidate
    with pytest.raises(AssertionError, match="role spec has no dispatch"):
        _ = spec.known_task


def test_a_plan_without_tasks_has_no_test() -> None:
    assert list(cases_of(EMPTY, "key", "")) == []


def test_an_input_that_cannot_be_tuned_is_an_ordinary_test() -> None:
    case = TuningCase(Role.INPUT, EMPTY, problem="there is no file")
    assert (case.id, case.role.phase, case.plan_key) == ("input", Phase.ORDINARY, "")


def test_each_promise_of_an_entry_is_a_test(plan: Plan) -> None:
    (task,) = plan.tasks
    entries = (GuardEntry(name="mine", tasks=(task,)), GuardEntry(name="stray"))
    guarded = GuardPlan(key="key", spec_path="spec.mlir", spec="", entries=entries, plan=plan)
    cases = list(guard_cases(guarded, "/suite"))
    checks = ["parses", "allowed", "applies", "correct", "fast"]
    assert [case.id for case in cases] == [f"{name}-{each}" for name in ("mine", "stray") for each in checks]
    # What takes a device is a candidate to a client's own fixtures, and what takes none is nothing to them.
    assert [case.role for case in cases] == [Role.CHECK] * 3 + [Role.CANDIDATE] * 2 + [Role.CHECK] * 5
    assert [case.config for case in cases] == [None] * 3 + [task.candidates[0]] * 2 + [None] * 5
    assert {case.role.phase for case in cases[:3]} == {Phase.ORDINARY}
    assert next(guard_cases(guarded, "/suite", "cortex-x4")).id == "mine-cortex-x4-parses"
