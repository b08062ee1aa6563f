"""What is verified at the end of a run, since no test of the run verified just that."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import SpecRecord
from pytest_shark_tune.records.verification import Settled, Verification
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from tests.factories import INFO, make_task
from tests.unit.results.test_store import ONE, PLAN, TWO

THREE = make_task("three", 16)
ENTRIES = tuple(
    SpecEntry(name=task.name, root=task.dispatch.root, compilation_info=INFO.format(8)) for task in (ONE, TWO, THREE)
)
ALL = Draft(ENTRIES)
FOREIGN = build_spec([SpecEntry(name="foreign", root=make_task("f", 8).dispatch.root, compilation_info=INFO.format(8))])


class Verifying:
    """Notes what it is asked, and speaks against entries ``bad`` in the plan with that many tasks."""

    def __init__(self, bad: Mapping[int, str]) -> None:
        self.bad = bad
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def __call__(self, plan: Plan, draft: Draft) -> SpecRecord:
        self.asked.append((len(plan.tasks), draft.names))
        bad = self.bad.get(len(plan.tasks), "")
        return SpecRecord(sources=(), dropped={bad: "it is wrong"} if bad in draft.names else {})


# One test has all three dispatches, the other one the first.
PLANS = {
    "all": msgspec.structs.replace(PLAN, tasks=(ONE, TWO, THREE)),
    "one": msgspec.structs.replace(PLAN, tasks=(ONE,)),
}
CHECKED = {(key, ""): SpecRecord(sources=(), dropped={}, entries=ALL.configs) for key in PLANS}


def settle(draft: Draft, verify: Verifying, checks: Mapping[tuple[str, str], SpecRecord] = CHECKED) -> Settled:
    return Verification(PLANS, ["one", "two", "three"], checks, verify).settle(draft, PLANS)


def test_what_the_tests_verified_is_not_verified_again() -> None:
    verify = Verifying({})
    assert settle(ALL, verify) == Settled(ALL, {})
    assert verify.asked == []


def test_without_an_entry_the_rest_is_verified_where_that_entry_may_be_in_force() -> None:
    verify = Verifying({})
    assert settle(ALL.without(["two"]), verify).dropped == {}
    assert verify.asked == [(3, ("one", "three"))], "no op of the other test is like that of two"


def test_what_is_dropped_at_the_end_has_the_rest_verified_everywhere() -> None:
    verify = Verifying({3: "one"})
    settled = settle(ALL.without(["two"]), verify)
    assert (settled.draft.names, settled.dropped) == (("three",), {"one": "it is wrong"})
    assert verify.asked == [(3, ("one", "three")), (3, ("three",)), (1, ("three",))]


def test_a_draft_with_another_starter_is_another_draft() -> None:
    verify = Verifying({1: "@match_foreign"})
    settled = settle(Draft(ENTRIES, FOREIGN), verify)
    assert (settled.draft, settled.dropped) == (ALL, {"@match_foreign": "it is wrong"})
    names = (*ALL.names, "@match_foreign")
    assert verify.asked == [(3, names), (1, names)]


def test_an_end_to_end_test_verifies_a_plan_of_its_model_alone() -> None:
    source = Source(name="model", text="", is_benchmark=False)
    left = ALL.without(["two"])
    record = SpecRecord(sources=(), dropped={}, model="model", entries=left.configs)
    for sources, asked in (((source,), 0), ((source, msgspec.structs.replace(source, name="other")), 1)):
        verify = Verifying({})
        plans = {"all": msgspec.structs.replace(PLANS["all"], sources=sources)}
        Verification(plans, ["one", "two", "three"], {("all", "model"): record}, verify).settle(left, plans)
        assert len(verify.asked) == asked


def test_what_cannot_be_verified_is_said() -> None:
    def verify(plan: Plan, draft: Draft) -> SpecRecord:
        raise CommandFailed("no compiler")

    settled = Verification(PLANS, [], {}, verify).settle(ALL, PLANS)
    assert (settled.draft, settled.problem) == (ALL, "no compiler")
