"""Counting how far candidates came, and grouping the reasons of those that did not."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import pytest

from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.results.funnel import OTHERS, Cause, Funnel, Loss, causes_of, common_run_failures, funnel_of
from tests.factories import make_record

STAGES = ("generated", "tried", "compiled", "applied", "ran", "correct", "measured", "finalists")


def record_of(identity: str, state: State, reason: str = "", ratio: float | None = None) -> Record:
    low, high = (ratio and ratio * factor for factor in (0.9, 1.1))
    return make_record(identity, state=state, reason=reason, ratio=ratio, ratio_low=low, ratio_high=high)


def funnel(
    names: Sequence[str], records: Sequence[Record], finalists: Collection[str] | None = None, untried: str = ""
) -> Funnel:
    return funnel_of(names, {record.id: record for record in records}, finalists, untried=untried)


def reasons_of(*reasons: str) -> list[str]:
    return [cause.reason for cause in causes_of((str(number), reason) for number, reason in enumerate(reasons))]


def test_each_state_is_lost_at_its_stage_and_all_adds_up() -> None:
    records = [record_of(f"{state}_{number}", state, "why") for state in State for number in range(2)]
    names = [*(record.id for record in records), "untried"]
    found = funnel(names, records, {"measured_0"}, untried="no time")
    assert {loss.state: loss.stage for loss in found.losses} == {
        "not_tried": "tried",
        "compile_failed": "compiled",
        "compile_timeout": "compiled",
        "not_applied": "applied",
        "duplicate": "ran",
        "run_failed": "ran",
        "run_timeout": "ran",
        "wrong_result": "correct",
        "measured": "finalists",
    }
    assert [getattr(found, stage) for stage in STAGES] == [17, 16, 12, 10, 4, 2, 2, 1]
    assert found.generated - sum(loss.count for loss in found.losses) == found.finalists
    for loss in found.losses:
        assert sum(cause.count for cause in loss.causes) == loss.count


def test_the_default_is_no_candidate() -> None:
    found = funnel(["a"], [record_of("default", State.MEASURED, ratio=1.0)], untried="no time")
    assert [getattr(found, stage) for stage in STAGES] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert found.losses[0].causes == (Cause(reason="no time", count=1, example="a"),)


def test_why_a_measured_candidate_was_not_in_the_final() -> None:
    records = [record_of(name, State.MEASURED, ratio=ratio) for name, ratio in (("a", 2.0), ("b", 1.2), ("c", 0.5))]
    held = funnel(["a", "b", "c"], records, ["a"])
    assert held.losses[0].causes == (
        Cause(reason="not among the 4 fastest", count=1, example="b"),
        Cause(reason="not faster than the default", count=1, example="c"),
    )
    ended = funnel(["a", "b", "c"], records)
    assert ended.losses[0].causes == (Cause(reason="no final was held", count=3, example="a"),)
    assert ended.finalists == 0


@pytest.mark.parametrize(
    ("reason", "plain"),
    [
        ("dispatch:27:16: error: 'vector.contract' op failed", "'vector.contract' op failed"),
        ("error: failed to link", "failed to link"),
        ("<unknown>:0: error: out of registers", "out of registers"),
        ("/a b/c.mlir:3:4: error: no such thing", "no such thing"),
        ("the default failed: compile_failed: dispatch:1:2: error: boom", "the default failed: compile_failed: boom"),
        ("Error creating device: c/runtime/task_driver.c:166: NOT_FOUND; x", "Error creating device: NOT_FOUND; x"),
        ("ended by SIGSEGV; its stderr ends with:\n#0 main", "ended by SIGSEGV"),
        ("because", "because"),
        ("", "no reason was given"),
    ],
)
def test_a_cause_is_what_was_said_without_where(reason: str, plain: str) -> None:
    assert reasons_of(reason) == [plain]


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("Got 40960 bytes of 32768.", "Got 1,024 bytes of 32768.", "Got … bytes of 32768."),
        ("dispatch:3:1: error: %12 of ^bb0", "dispatch:44:10: error: %arg0#1 of ^bb0", "… of ^bb0"),
        ("'a.b' op failed to lower", "'c' op failed to lower", "… op failed to lower"),
        ("has vector<4x[8]xf32> here", "has vector<2xf16> here", "has … here"),
        ("#i.c<a = <[8, 4]>, b = (d0) -> (d1)>", "#i.c<a = <[1]>, b = affine_map<(d0) -> (d1)>>", "…"),
        ("tiles [1, 2]", "tiles []", "tiles …"),
        ("expected 1.5e-05, got nan", "expected -2, got -inf", "expected …, got …"),
        ("equals that of candidate abcdef", "equals that of candidate 3f9a1c", "equals that of candidate …"),
        ("@main calls", "@other.1 calls", "… calls"),
    ],
)
def test_causes_that_differ_in_figures_and_names_are_one(one: str, other: str, common: str) -> None:
    assert reasons_of(one, other) == [common]
    assert reasons_of(one, one) == reasons_of(one), "what all share is kept"


@pytest.mark.parametrize(
    ("one", "other"),
    [("ended by SIGSEGV", "ended by SIGABRT"), ("it's too large", "it's too small"), ("a < b", "a < c")],
)
def test_causes_of_other_words_stay_apart(one: str, other: str) -> None:
    assert reasons_of(one, other) == sorted([one, other])


def test_the_most_frequent_causes_come_first_and_the_rest_are_counted() -> None:
    told = ["one"] * 2 + ["two"] * 5 + ["three"] + ["four"] * 2 + ["five"]
    causes = causes_of((f"c{number}", reason) for number, reason in enumerate(told))
    assert causes == (
        Cause(reason="two", count=5, example="c2"),
        Cause(reason="four", count=2, example="c8"),
        Cause(reason="one", count=2, example="c0"),
        Cause(reason=OTHERS, count=2, example="c10"),
    )


@pytest.mark.parametrize("noise", ["<" * 50_000, "<->" * 20_000, "[" * 50_000, "'" * 50_000, "a." * 30_000])
def test_a_reason_of_any_size_is_read_at_once_and_told_shortly(noise: str) -> None:
    started = time.process_time()
    (reason,) = reasons_of(f"see {noise}")
    assert time.process_time() - started < 1
    assert len(reason) <= 240
    assert reason.startswith("see ")


def test_what_more_than_a_third_failed_of_at_run_time_is_common() -> None:
    def loss(state: str, *causes: tuple[str, int]) -> Loss:
        told = tuple(Cause(reason=reason, count=count, example="abc123") for reason, count in causes)
        return Loss(stage="ran", state=state, count=sum(each.count for each in told), causes=told)

    losses = [
        loss("compile_failed", ("no layout", 40)),
        loss("run_failed", ("no reference is kept", 21), ("out of memory", 20), (OTHERS, 25)),
        loss("run_timeout", ("no answer within … s", 22)),
    ]
    assert [(cause.reason, cause.count) for cause in common_run_failures(losses, tried=60)] == [
        ("run_timeout: no answer within … s", 22),
        ("run_failed: no reference is kept", 21),
    ]
    assert common_run_failures(losses, tried=66) == ()
