"""The page of runs: what two real runs came to, and what text from outside does to it."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

import msgspec
import pytest

from pytest_shark_tune.guard.history import HistoryPoint
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.records.types import State
from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult
from pytest_shark_tune.report.html.page import MOST_BYTES, guard_page, tuning_page
from pytest_shark_tune.results.merge_runs import FinishedRun, read_run
from tests.pages import SVG, Page, assert_self_contained, texts_of

RUNS = Path(__file__).parents[3] / "golden" / "runs"
MODEL, DISPATCH = RUNS / "model_with_forms", RUNS / "one_dispatch"
EVIL = "</td></svg><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e\ud800{{ 7 * 7 }}&amp;'\""


@pytest.fixture(scope="module")
def model() -> FinishedRun:
    return read_run(MODEL)


@pytest.fixture(scope="module")
def one() -> FinishedRun:
    return read_run(DISPATCH)


@pytest.fixture(scope="module")
def page(model: FinishedRun) -> Page:
    return Page(tuning_page([model]))


@pytest.fixture(scope="module")
def search_page(one: FinishedRun) -> Page:
    return Page(tuning_page([one]))


def test_it_loads_nothing_and_runs_only_its_own_script(page: Page, search_page: Page) -> None:
    assert_self_contained(page)
    assert_self_contained(search_page)


def test_a_run_is_told_in_sentences(page: Page) -> None:
    assert (
        "4 of 7 dispatches are faster, depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32 by the most: 14.90x." in page.shown
    )
    assert "det in the form products+data-tiling as a whole: 2.33x (2.13 to 2.55), 173 ms to 73.2 ms." in page.shown


def test_an_interval_that_holds_1_is_called_unproven(model: FinishedRun) -> None:
    (form,) = model.summary.forms
    doubtful = msgspec.structs.replace(form, ratio_low=0.98)
    summary = msgspec.structs.replace(model.summary, forms=(doubtful,))
    shown = Page(tuning_page([FinishedRun(model.name, summary, (), ())])).shown
    assert "2.33x (0.98 to 2.55), 173 ms to 73.2 ms: unproven, since the interval holds 1." in shown


def test_the_speedups_are_those_of_the_summary(page: Page, model: FinishedRun) -> None:
    columns = page.table("Speedups of dispatches").columns
    assert columns["dispatch"] == [row.name for row in model.summary.dispatches]
    assert columns["speedup"] == [f"{row.speedup:.2f}x" if row.speedup else "" for row in model.summary.dispatches]
    drawn = " ".join(texts_of(page.drawings[2]))
    assert "14.90x (2.12 to 104.72)" in drawn
    assert "11.97x (2.67 to 53.76) not in the spec" in page.text
    assert "3.34x (0.39 to 28.37) unproven" in page.text


def test_dispatches_that_are_dropped_for_one_reason_share_a_line(model: FinishedRun) -> None:
    dropped = {f"matmul_{number}": "det is in another form" for number in range(5)}
    summary = msgspec.structs.replace(model.summary, dropped=dropped | {"conv": "it does not pay"})
    shown = Page(tuning_page([FinishedRun(model.name, summary, (), ())])).shown
    assert (
        "5 dispatches are not in the spec: det is in another form (matmul_0, matmul_1, matmul_2 and 2 more)." in shown
    )
    assert "conv is not in the spec: it does not pay." in shown


def test_the_waterfall_leads_from_the_default_to_the_measured_time(page: Page) -> None:
    columns = page.table("Where the time of det-products+data-tiling went").columns
    steps, changes, then = columns["step"], columns["change us"], columns["time then us"]
    assert steps[:2] == ["by default", "the form products+data-tiling"]
    assert steps[-2:] == ["not explained by dispatches", "with the spec, measured"]
    times = [float(text.replace(",", "")) for text in then]
    assert (times[0], times[-1]) == (173492.14, 73201.594)
    for before, after, change in zip(times, times[1:-1], changes[1:-1], strict=False):
        assert after - before == pytest.approx(float(change.replace(",", "")), abs=0.01)
    assert times[-2] == times[-1]


def test_the_form_that_another_took_the_place_of_has_no_waterfall(page: Page) -> None:
    assert not [title for title, _ in page.figures if "det-products+channels-last" in title]


def test_every_dispatch_stands_beside_the_limit_of_the_device(page: Page, model: FinishedRun) -> None:
    columns = page.table("Dispatches of det-products+data-tiling and the device's limits").columns
    shares = {share.dispatch: share for share in model.summary.profiles[1].shares}
    assert columns["dispatch"] == list(shares)
    for name, limit, of_limit in zip(columns["dispatch"], columns["limit us"], columns["of the limit"], strict=True):
        least_us = shares[name].least_us
        assert bool(limit) == bool(of_limit) == bool(least_us)
    at = columns["dispatch"].index("depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32")
    seconds = float(columns["with spec us"][at].replace(",", "")) / 1e6
    operations = 2 * 96 * 80 * 80 * 9 * int(columns["calls"][at])
    assert float(columns["GFLOP/s"][at]) == pytest.approx(operations / seconds / 1e9, rel=0.01)


def test_the_course_ends_at_the_best_of_all_trials(search_page: Page, one: FinishedRun) -> None:
    rows = search_page.table("Best so far").columns
    best = max(record.ratio or 0 for record in one.records)
    ratios = [float(text.rstrip("x")) for text in rows["ratio"]]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(best, abs=0.005)
    seconds = [float(text) for text in rows["time so far s"]]
    assert seconds == sorted(seconds)


def test_every_candidate_is_a_line_and_a_dot(search_page: Page, one: FinishedRun) -> None:
    measured = [record for record in one.records if record.state is State.MEASURED and record.id != "default"]
    lines = [
        path
        for drawing in search_page.drawings
        for path in drawing.iter(f"{SVG}path")
        if "line q" in path.get("class", "")
    ]
    assert sum((path.get("d") or "").count("M") for path in lines) == len(measured)
    knobs = {name for record in measured for name in record.knobs}
    varying = {name for name in knobs if len({record.knobs.get(name) for record in measured}) > 1}
    (slices,) = [drawing for drawing in search_page.drawings if "by each knob" in (drawing.get("aria-label") or "")]
    dots = sum((path.get("d") or "").count("M") for path in slices.iter(f"{SVG}path"))
    assert dots == len(measured) * len(varying)
    candidates = search_page.table("Parallel coordinates").columns
    assert sorted(candidates["id"]) == sorted(record.id for record in one.records if record.id != "default")


def test_the_final_has_every_sample(search_page: Page, one: FinishedRun) -> None:
    (final,) = one.finals
    columns = search_page.table("Final").columns
    counts = dict(zip(columns["id"], (len(text.split()) for text in columns["samples us"]), strict=True))
    assert counts == {
        "default": len(final.baseline_samples_us),
        **{finalist.id: len(finalist.samples_us) for finalist in final.finalists},
    }
    (drawing,) = [drawing for drawing in search_page.drawings if "all samples" in (drawing.get("aria-label") or "")]
    assert sum((path.get("d") or "").count("M") for path in drawing.iter(f"{SVG}path")) == sum(counts.values())
    assert columns["median us"][0] == f"{median(final.baseline_samples_us):,.3f}".rstrip("0").rstrip(".")


def test_the_importance_of_knobs_is_shown_where_there_are_enough_candidates(page: Page, search_page: Page) -> None:
    columns = search_page.table("Importance of knobs").columns
    values = list(map(float, columns["importance"]))
    assert columns["knob"][0].startswith("vec_")
    assert values == sorted(values, reverse=True)
    assert "Importance of knobs" not in [title for title, _ in page.figures], "14 candidates are too few"


def test_several_runs_are_compared(model: FinishedRun, one: FinishedRun) -> None:
    page = Page(tuning_page([model, one, FinishedRun("again", one.summary, one.records, one.finals)]))
    assert_self_contained(page)
    assert page.table("Runs").columns["run"] == [str(MODEL), str(DISPATCH), "again"]
    assert page.table("Dispatches in several runs").columns["run"] == [str(DISPATCH), "again"]


def test_text_from_outside_is_shown_and_marks_nothing_up(one: FinishedRun) -> None:
    (row,) = one.summary.dispatches
    run = msgspec.structs.replace(one.summary.run, device=EVIL, target=EVIL, versions={EVIL: EVIL})
    summary = msgspec.structs.replace(
        one.summary,
        run=run,
        dispatches=(msgspec.structs.replace(row, name=EVIL, reason=EVIL),),
        dropped={EVIL: EVIL},
        unprofiled={EVIL: EVIL},
    )
    evil = {"dispatch": EVIL, "config": EVIL, "pipeline": EVIL}
    records = tuple(
        msgspec.structs.replace(record, **evil, reason=EVIL, knobs={EVIL: number, "b": number % 3})
        for number, record in enumerate(one.records)
    )
    finals = tuple(msgspec.structs.replace(final, dispatch=EVIL, reason=EVIL, note=EVIL) for final in one.finals)
    page = Page(tuning_page([FinishedRun(EVIL, summary, records, finals)]))
    assert page.problems == []
    assert len(page.scripts) == 1
    assert "<img" not in page.text
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\ud800-\udfff]", page.text)
    assert "{{ 7 * 7 }}" in page.shown
    assert "\\x1b[2J\\u202e\\ud800" in page.shown


@pytest.mark.parametrize("samples", [(), (0.0, -1.0), (float("inf"), 1.0)], ids=["none", "impossible", "infinite"])
def test_figures_that_cannot_be_are_left_out(one: FinishedRun, samples: tuple[float, ...]) -> None:
    records = tuple(
        msgspec.structs.replace(record, samples_us=samples, ratio=0.0, ratio_low=-1.0, ratio_high=float("inf"))
        for record in one.records
    )
    finals = tuple(msgspec.structs.replace(final, baseline_samples_us=samples) for final in one.finals)
    assert_self_contained(Page(tuning_page([FinishedRun("run", one.summary, records, finals)])))


def test_a_run_without_records_has_a_page(one: FinishedRun) -> None:
    page = Page(tuning_page([FinishedRun("run", one.summary, (), ())]))
    assert_self_contained(page)
    assert "1 of 1 dispatch is faster" in page.shown


@pytest.mark.slow
def test_a_page_of_many_dispatches_stays_small_and_says_what_it_leaves_out(one: FinishedRun) -> None:
    names = [f"dispatch_{number}" for number in range(60)]
    (row,) = one.summary.dispatches
    (final,) = one.finals
    summary = msgspec.structs.replace(
        one.summary, dispatches=tuple(msgspec.structs.replace(row, name=name) for name in names)
    )
    records = tuple(msgspec.structs.replace(record, dispatch=name) for name in names for record in one.records)
    finals = tuple(msgspec.structs.replace(final, dispatch=name) for name in names)
    page = Page(tuning_page([FinishedRun("run", summary, records, finals)]))
    assert len(page.text.encode()) < MOST_BYTES
    shown = len(re.findall('<details class="dispatch"', page.text))
    assert 10 < shown < 60
    assert f"{60 - shown} dispatches are shown in the tables above only" in page.shown
    assert page.table("Speedups of dispatches").columns["dispatch"] == names


KEPT = GuardResult(
    verdict=Verdict(
        entry="matmul",
        check=EntryCheck.FAST,
        outcome=CheckOutcome.PASSED,
        metrics={"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "recorded_ratio": 1.7, "baseline_us": 10.0}
        | {"recorded_ratio_low": 1.65, "recorded_ratio_high": 1.75},
    ),
    spec="specs/a.mlir",
    file="test_a.py",
    line=3,
    where="llvm-cpu on some CPU",
)
BROKEN = msgspec.structs.replace(
    KEPT, verdict=Verdict(entry="matmul", check=EntryCheck.CORRECT, outcome=CheckOutcome.FAILED, reason=EVIL)
)


def test_the_page_of_a_guarding_run_has_every_check_and_the_recorded_speeds() -> None:
    page = Page(guard_page([KEPT, BROKEN], [GuardFailure(test=EVIL, file="", line=0, reason=EVIL)], "Ctrl-C"))
    assert page.problems == []
    assert len(page.scripts) == 1
    assert "1 entry, checks: 1 kept, 1 broken." in page.shown
    assert "The run ended early, so this is not all: Ctrl-C." in page.shown
    assert page.table("Checks").columns["outcome"] == ["broken", "kept"]
    speeds = page.table("Speeds of guarded entries").columns
    assert speeds["interval"] == ["1.40 to 1.60"]
    assert speeds["recorded interval"] == ["1.65 to 1.75"]
    checks, _ = page.drawings
    assert texts_of(checks) == ["matmul", "broken", "✗ correct", "✓ fast"]


def test_fields_of_many_checks_have_their_names_below() -> None:
    results = [
        msgspec.structs.replace(KEPT, verdict=Verdict(entry="matmul", check=check, outcome=CheckOutcome.SKIPPED))
        for check in EntryCheck
    ]
    checks, *_ = Page(guard_page(results)).drawings
    assert texts_of(checks) == ["matmul", "skipped", *"-" * len(EntryCheck), *map(str, EntryCheck)]


def test_the_history_has_its_scale_its_dates_and_its_changes() -> None:
    point = HistoryPoint(
        run="0", time="", entry="matmul", config="c", outcome="kept", us=50.0, default_us=100.0, ratio=2.0,
        ratio_low=1.96, ratio_high=2.04, rounds=6, target="llvm-cpu", device="some CPU", processors=2, machine="m",
        iree="3.13.0", runtime="3.13.0",
    )  # fmt: skip
    history = [
        msgspec.structs.replace(
            point,
            run=str(day),
            time=f"2026-01-{day:02}T05:00:00Z",
            us=(62.5 if day > 20 else 50.0) + day % 3 / 10,
            ratio=(1.6 if day > 20 else 2.0) - day % 3 / 100,
            outcome="broken" if day > 20 else "kept",
        )
        for day in range(1, 31)
    ]
    page = Page(guard_page([KEPT], history=history))
    assert_self_contained(page)
    drawing = page.drawings[-1]
    assert texts_of(drawing)[:2] == ["matmul", "1.60x (1.96 to 2.04)"]
    assert {"1x", "2026-01-01", "2026-01-30, 30 runs"} <= set(texts_of(drawing))
    kinds = [circle.get("class") for circle in drawing.iter(f"{SVG}circle")]
    assert kinds == ["dot good"] * 20 + ["dot bad"] * 10
    assert "matmul: the speedup over the default fell by" in page.shown


def test_no_name_is_cut_for_the_value_beside_it() -> None:
    name = "depthwise_conv_2d_nchw_chw_1x32x160x160_3x3_s2x2_f32"
    long = msgspec.structs.replace(KEPT, verdict=msgspec.structs.replace(KEPT.verdict, entry=name))
    for drawing in Page(guard_page([long])).drawings:
        assert name in texts_of(drawing)


def test_a_run_that_guarded_nothing_says_so() -> None:
    page = Page(guard_page([]))
    assert_self_contained(page)
    assert "Nothing was guarded." in page.shown
