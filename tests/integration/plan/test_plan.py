"""What a user asks of every space, as it reaches the plan of a suite."""

from __future__ import annotations

from functools import cache

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.make import make_plan, plan_key
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Wanted
from pytest_shark_tune.search_space import SpaceRequest

SOURCES = [
    Source(name=op.name, text=op.text, is_benchmark=False)
    for op in (ops.matmul(m=16, n=64, k=32, lhs="f32"), ops.matmul(m=256, n=64, k=32, lhs="f32"))
]


@cache
def plan(*where: str) -> Plan:
    compiler = Compiler(Target.parse("llvm-cpu"))
    return make_plan(SOURCES, compiler, processors=2, count=5, seed=0, request=SpaceRequest(where=where))


def test_a_condition_holds_for_every_candidate_and_what_has_none_is_left_alone() -> None:
    made = plan("dist_0 >= 64 and vec_2 in (1, 2, 4)")
    (task,) = made.tasks
    assert task.dispatch.root.loops[0] == 256
    assert len(task.candidates) == 5
    assert all(each.knobs["dist_0"] >= 64 and each.knobs["vec_2"] in (1, 2, 4) for each in task.candidates)
    (left_alone,) = made.untunable
    assert left_alone.source == SOURCES[0].name
    assert (
        "--tune-restrict: dist_0 >= 64 and vec_2 in (1, 2, 4) leaves no config of DoubleTilingExpert"
        in left_alone.reason
    )


def test_a_knob_that_is_nowhere_leaves_every_dispatch_alone_with_the_knobs_that_there_are() -> None:
    made = plan("wg_0 >= 64")
    assert made.everything == ()
    assert len(made.untunable) == 2
    for each in made.untunable:
        assert "--tune-restrict: wg_0 is a knob of no space; here there are dist_0, " in each.reason


def test_a_plans_key_tells_what_was_asked() -> None:
    compiler = Compiler(Target.parse("hip:gfx942"))
    requests = [
        SpaceRequest(),
        SpaceRequest(where=("wg_0 > 1",)),
        SpaceRequest(where=("wg_0 > 2",)),
        SpaceRequest(knobs={"waves_per_eu": (1, 2)}),
        SpaceRequest(knobs={"waves_per_eu": (1, 4)}),
    ]
    keys = {plan_key(SOURCES, compiler, request=request, processors=2, count=5, seed=0) for request in requests}
    assert len(keys) == len(requests)
    again = plan_key(SOURCES, compiler, request=SpaceRequest(), processors=2, count=5, seed=0)
    assert again in keys


@pytest.mark.parametrize(("in_all", "least", "each"), [(100, 2, 5), (8, 2, 4), (2, 3, 3)])
def test_many_dispatches_share_what_is_drawn(
    monkeypatch: pytest.MonkeyPatch, in_all: int, least: int, each: int
) -> None:
    monkeypatch.setattr("pytest_shark_tune.plan.draw._POOLS", in_all)
    monkeypatch.setattr("pytest_shark_tune.plan.draw._LEAST_POOL", least)
    made = make_plan(SOURCES, Compiler(Target.parse("llvm-cpu")), processors=2, count=5, seed=0)
    assert [len(task.candidates) for task in made.tasks] == [each, each]


def test_a_wanted_config_is_among_what_is_drawn_where_the_space_has_it() -> None:
    compiler = Compiler(Target.parse("llvm-cpu"))
    few, all_of_it = (make_plan(SOURCES[:1], compiler, processors=2, count=count, seed=0) for count in (3, 4096))
    (task,), (whole,) = few.tasks, all_of_it.tasks
    absent = next(each for each in whole.candidates if each.id not in {other.id for other in task.candidates})
    wanted = Wanted(task.dispatch.key, absent.pipeline, absent.knobs)
    foreign = [wanted._replace(knobs={"dist_0": 1}), wanted._replace(pipeline="Other"), wanted._replace(key="other")]
    assert wanted.is_missing(few)
    assert not wanted.is_missing(all_of_it)
    assert not wanted._replace(key="other").is_missing(few)
    again = make_plan(SOURCES[:1], compiler, processors=2, count=3, seed=0, wanted=[wanted, *foreign, wanted])
    assert [each.id for each in again.tasks[0].candidates] == [absent.id, *(each.id for each in task.candidates[:2])]
    assert not wanted.is_missing(again)
