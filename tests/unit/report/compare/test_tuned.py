"""Two runs that tuned, with the records of real runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.report.compare.comparison import Verdict
from pytest_shark_tune.report.compare.comparison_markdown import comparison_markdown
from pytest_shark_tune.report.compare.tuned import compare_tuned
from pytest_shark_tune.results.merge_runs import FinishedRun, read_run
from pytest_shark_tune.results.summary import DispatchSummary, Summary

RUNS = Path(__file__).parents[3] / "golden" / "runs"
FAST = "depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32"


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return read_run(RUNS / "model_with_forms")


def head_of(base: FinishedRun, **changes: object) -> FinishedRun:
    return FinishedRun("head", msgspec.structs.replace(base.summary, **changes), base.records, base.finals)


def with_row(summary: Summary, name: str, **changes: object) -> tuple[DispatchSummary, ...]:
    return tuple(msgspec.structs.replace(row, **changes) if row.name == name else row for row in summary.dispatches)


def test_the_same_run_twice_is_one_line(run: FinishedRun) -> None:
    text = comparison_markdown(compare_tuned(run, run))
    assert text.count("\n") == 1
    assert "nothing changed" in text
    assert text.endswith("IREE 3.13.0).\n")


def test_an_entry_that_gains_less_has_both_speeds_and_their_quotient(run: FinishedRun) -> None:
    base = head_of(run, dispatches=with_row(run.summary, FAST, speedup=14.9, speedup_low=14.0, speedup_high=16.0))
    slow = with_row(run.summary, FAST, speedup=7.45, speedup_low=7.2, speedup_high=7.7, winner="other")
    (row,) = compare_tuned(base, head_of(run, dispatches=slow)).rows
    assert row.verdict is Verdict.LESS
    assert row.base == "161 us, 14.90x (14.00 to 16.00)"
    assert row.head == "322 us, 7.45x (7.20 to 7.70)"
    assert str(row.change) == "0.50x (0.46 to 0.54)"


def test_an_entry_that_head_lost_comes_before_one_that_it_gained(run: FinishedRun) -> None:
    lost = with_row(run.summary, FAST, winner=None, speedup=None, speedup_low=None, speedup_high=None)
    found = compare_tuned(run, head_of(run, dispatches=lost, dropped={})).sorted_rows
    assert [row.verdict for row in found] == [Verdict.LOST]
    assert found[0].head == "2.4 ms by default"
    assert [row.verdict for row in compare_tuned(head_of(run, dispatches=lost), run).rows] == [Verdict.ENTRY]


def test_a_dispatch_of_one_run_is_gone_or_new(run: FinishedRun) -> None:
    fewer = tuple(row for row in run.summary.dispatches if row.name != FAST)
    head = head_of(run, dispatches=fewer)
    assert [(row.name, row.verdict) for row in compare_tuned(run, head).rows] == [(FAST, Verdict.GONE)]
    assert [(row.name, row.verdict) for row in compare_tuned(head, run).rows] == [(FAST, Verdict.ADDED)]


def test_a_model_is_compared_as_a_whole(run: FinishedRun) -> None:
    (form,) = run.summary.forms
    slow = msgspec.structs.replace(form, ratio=1.2, ratio_low=1.15, ratio_high=1.25)
    (row,) = compare_tuned(run, head_of(run, forms=(slow,))).rows
    assert (row.name, row.verdict) == ("det as a whole", Verdict.LESS)


def test_another_config_of_the_same_speed_is_a_remark(run: FinishedRun) -> None:
    head = head_of(run, dispatches=with_row(run.summary, FAST, winner="other"))
    compared = compare_tuned(run, head)
    assert compared.rows == []
    assert comparison_markdown(compared).endswith("1 has another config, at no provably different speed.\n")


def test_circumstances_that_differ_are_told(run: FinishedRun) -> None:
    versions = run.summary.run.versions | {"iree-base-compiler": "3.14.0"}
    head = head_of(run, run=msgspec.structs.replace(run.summary.run, versions=versions))
    assert compare_tuned(run, head).where.endswith("IREE 3.13.0 against IREE 3.14.0")


def test_runs_of_different_targets_are_refused(run: FinishedRun) -> None:
    head = head_of(run, run=msgspec.structs.replace(run.summary.run, target="cuda:sm_89"))
    with pytest.raises(InputError, match="different targets"):
        compare_tuned(run, head)
