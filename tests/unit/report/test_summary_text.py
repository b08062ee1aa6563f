"""The end of a run as text."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.measurement.roofline import Rates
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.types import FormResult
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import SizeRatio, SourceCheck
from pytest_shark_tune.report.config_text import config_lines, describe_rates
from pytest_shark_tune.report.summary_text import render
from pytest_shark_tune.results.funnel import OTHERS, Cause, Loss
from pytest_shark_tune.results.summary import BestFinalist, DispatchSummary, RunSummary, Summary
from pytest_shark_tune.system.units import format_us

WON = DispatchSummary(
    name="matmul_512x512x512_f32",
    weight=3,
    baseline_us=3210.4,
    best_us=1337.0,
    speedup=2.4012,
    speedup_low=2.355,
    speedup_high=2.449,
    generated=60,
    tried=58,
    compiled=46,
    applied=46,
    ran=45,
    correct=44,
    measured=44,
    finalists=4,
    winner="3f9a1c",
    reason="",
    space=12345,
    losses=(
        Loss(stage="tried", state="not_tried", count=2, causes=(Cause(reason="early", count=2, example="a"),)),
        Loss(
            stage="compiled",
            state="compile_failed",
            count=12,
            causes=(
                Cause(reason="more than … bytes of stack, as one function needs for its vectors", count=7, example="b"),
                Cause(reason="'vector.contract' op failed to derive a layout", count=3, example="c"),
                Cause(reason=OTHERS, count=2, example="d"),
            ),
        ),
        Loss(stage="ran", state="run_failed", count=1, causes=(Cause(reason="SIGSEGV", count=1, example="e"),)),
        Loss(
            stage="finalists",
            state="measured",
            count=40,
            causes=(Cause(reason="slow", count=30, example="f"), Cause(reason="slower", count=10, example="g")),
        ),
    ),
)
LOST = msgspec.structs.replace(
    WON,
    name="batch_matmul_12x128x128x64_f32",
    weight=1,
    best_us=None,
    speedup=None,
    speedup_low=None,
    speedup_high=None,
    winner=None,
    reason="none is faster than the default [by more than 2%] for sure",
    losses=(),
)
SUMMARY = Summary(
    run=RunSummary(versions={}, target="llvm-cpu", device="AMD EPYC", seconds=12.5, complete=True),
    dispatches=(WON, LOST),
    sources=(
        SourceCheck(source="matmul", applied=1, ratio=2.1, ratio_low=2.05, ratio_high=2.15),
        SourceCheck(source="model", applied=2),
        SourceCheck(source="dump", applied=0, note="the spec has no entry for it"),
    ),
    untunable=tuple(Untunable(f"dispatch_{number}", "model", "it has dynamic dimensions") for number in range(8)),
)
NOTHING = msgspec.structs.replace(SUMMARY, dispatches=(), sources=(), untunable=())


def rows(text: str, name: str) -> list[list[str]]:
    """The cells of the table rows of that name, in both tables."""
    lines = text.splitlines()
    return [re.split(r"  +", line.removeprefix(name).strip()) for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "-"),
        (0.05, "0.05 us"),
        (1.0, "1 us"),
        (12.345, "12.3 us"),
        (99.4, "99.4 us"),
        (123.4, "123 us"),
        (999.4, "999 us"),
        (1000.0, "1 ms"),
        (3210.4, "3.21 ms"),
        (123_456, "123 ms"),
        (999_000, "999 ms"),
        (1e6, "1 s"),
        (61_234_567, "61.2 s"),
    ],
)
def test_a_time_has_three_digits_and_a_unit(microseconds: float | None, text: str) -> None:
    assert format_us(microseconds) == text


def test_the_table_shows_times_that_belong_to_the_speedup(tmp_path: Path) -> None:
    """A loaded machine gave medians of 7.05 and 2.92 ms beside 2.05x: the best is the default by the speedup."""
    unsteady = msgspec.structs.replace(WON, baseline_us=7050.0, best_us=2920.0, speedup=2.05)
    summary = msgspec.structs.replace(SUMMARY, dispatches=(unsteady, LOST))
    text = render(summary, width=120, spec=tmp_path / "spec.mlir", snapshots=())
    assert "llvm-cpu on AMD EPYC" in text
    assert rows(text, WON.name)[0] == ["3", "7.05 ms", "3.44 ms", "2.05x (2.35 to 2.45)"]


@pytest.mark.parametrize(
    ("best", "changes", "cell"),
    [
        (BestFinalist(id="a", ratio=1.27, ratio_low=0.78, ratio_high=2.07), {}, "1.27x, too noisy (0.78 to 2.07)"),
        (BestFinalist(id="a", ratio=1.01, ratio_low=0.98, ratio_high=1.04), {}, "1.01x, no gain (0.98 to 1.04)"),
        (
            BestFinalist(id="a", ratio=1.03, ratio_low=1.01, ratio_high=1.05),
            {},
            "1.03x, too small a gain (1.01 to 1.05)",
        ),
        (
            BestFinalist(id="a", ratio=1.15, ratio_low=0.004, ratio_high=329.0, rounds=2),
            {},
            "1.15x, undecided after 2 rounds",
        ),
        (None, {}, "its finalists failed"),
        (None, {"finalists": 0}, "none faster"),
        (None, {"finalists": 0, "tried": 0}, "none tried"),
    ],
)
def test_without_a_winner_one_cell_says_why(
    tmp_path: Path, best: BestFinalist | None, changes: dict[str, int], cell: str
) -> None:
    row = msgspec.structs.replace(LOST, best=best, **changes)
    summary = msgspec.structs.replace(SUMMARY, dispatches=(WON, row))
    text = render(summary, width=120, spec=tmp_path / "spec.mlir", snapshots=())
    assert rows(text, LOST.name)[0] == ["1", "3.21 ms", cell]
    said = f"{LOST.name}: {LOST.reason}" in " ".join(text.split())
    assert said == (best is None), "the reason stands below the table unless the cell has its figures"


def test_a_default_that_failed_has_no_time(tmp_path: Path) -> None:
    row = msgspec.structs.replace(LOST, baseline_us=None, reason="the default config failed: run_failed: SIGSEGV")
    text = render(msgspec.structs.replace(SUMMARY, dispatches=(row,)), width=80, spec=tmp_path / "no", snapshots=())
    assert rows(text, LOST.name)[0] == ["-", "its default failed"]
    left_out = msgspec.structs.replace(row, reason="its candidates were not all tried", finalists=0, tried=0)
    text = render(msgspec.structs.replace(SUMMARY, dispatches=(left_out,)), width=80, spec=Path("no"), snapshots=())
    assert rows(text, LOST.name)[0] == ["-", "none tried"]


def test_finals_that_were_cut_are_provisional_and_told_once(tmp_path: Path) -> None:
    cut = "provisional: its final was cut after 2 rounds (--tune-time)"
    best = BestFinalist(id="a", ratio=1.2, ratio_low=0.9, ratio_high=1.6)
    rows = (
        msgspec.structs.replace(WON, reason=f"{cut}; it is faster at 3 sizes"),
        msgspec.structs.replace(LOST, reason=f"{cut}; none is faster", best=best),
    )
    text = render(msgspec.structs.replace(SUMMARY, dispatches=rows), width=200, spec=tmp_path / "no", snapshots=())
    assert "provisional (2): all dispatches: its final was cut after 2 rounds (--tune-time)\n" in text
    assert f"{WON.name}: it is faster at 3 sizes\n" in text
    assert "none is faster" not in text


def test_the_funnel_shows_the_dispatches_that_lost_candidates(tmp_path: Path) -> None:
    lines = render(SUMMARY, width=80, spec=tmp_path / "spec.mlir", snapshots=()).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("dispatch") and "tried" in line)
    assert lines[start + 2 : start + 4] == [
        WON.name,
        "                   12,345        60    58       46      46  45      44         4",
    ]
    assert lines[start + 4 : start + 9] == [
        "    12 compile_failed:",
        "        7x more than … bytes of stack, as one function needs for its vectors (b)",
        "        3x 'vector.contract' op failed to derive a layout (c)",
        "        2x others",
        "    1 run_failed: SIGSEGV (e)",
    ]
    assert lines[start + 9] == "", "a dispatch without losses is not shown"


def test_the_whole_funnel_is_shown_on_request(tmp_path: Path) -> None:
    text = render(SUMMARY, width=100, spec=tmp_path / "spec.mlir", snapshots=(), everything=True)
    assert "    2 not tried: early\n" in text
    assert "    40 measured, not in the final: 30x slow; 10x slower\n" in text
    assert rows(text, LOST.name)[1][0] == "12,345"


def test_without_losses_there_is_no_funnel(tmp_path: Path) -> None:
    row = msgspec.structs.replace(WON, losses=(WON.losses[0], WON.losses[3]))
    text = render(msgspec.structs.replace(SUMMARY, dispatches=(row,)), width=100, spec=tmp_path / "no", snapshots=())
    assert "generated" not in text


def test_a_name_too_long_for_its_column_gets_a_line_of_its_own(tmp_path: Path) -> None:
    name = "conv_2d_nhwc_hwcf_" * 5
    summary = msgspec.structs.replace(SUMMARY, dispatches=(msgspec.structs.replace(WON, name=name), LOST))
    lines = render(summary, width=100, spec=tmp_path / "spec.mlir", snapshots=()).splitlines()
    at = [number for number, line in enumerate(lines) if line == name]
    assert [lines[number + 1].split()[0] for number in at] == ["3", "12,345"]


def test_sources_and_what_cannot_be_tuned_are_told(tmp_path: Path) -> None:
    text = render(SUMMARY, width=200, spec=tmp_path / "spec.mlir", snapshots=())
    assert "matmul as a whole: 2.10x (2.05 to 2.15).\n" in text
    assert "model: the spec applies to 2 of its dispatches\n" in text
    assert "dump: the spec has no entry for it\n" in text
    row = msgspec.structs.replace(LOST, sources=("dump",))
    in_table = msgspec.structs.replace(SUMMARY, dispatches=(WON, row))
    assert "no entry for it" not in render(in_table, width=200, spec=tmp_path / "spec.mlir", snapshots=())
    first = ", ".join(f"dispatch_{number}" for number in range(6))
    assert f"not tuned (8): {first}, …: it has dynamic dimensions\n" in text


def test_a_machine_that_changed_its_speed_is_told(tmp_path: Path) -> None:
    unsteady = msgspec.structs.replace(SUMMARY, run=msgspec.structs.replace(SUMMARY.run, unsteady=7))
    nowhere = tmp_path / "none"
    assert "unsteady" not in render(SUMMARY, width=120, spec=nowhere, snapshots=())
    told = " ".join(render(unsteady, width=120, spec=nowhere, snapshots=()).split())
    assert "it changed its speed while 7 candidates or finals were measured. Stop other programs" in told


def test_shares_are_shown_where_a_model_was_profiled(tmp_path: Path) -> None:
    cold = [Share(dispatch=f"cold_{number}", calls=1, time_us=1.0, share=0.01) for number in range(2)]
    hot = Share(dispatch=WON.name, calls=3, time_us=98.0, share=0.97)
    profile = Profile(source="model", function="main", model_us=100.0, shares=(hot, *cold), measured="")
    summary = msgspec.structs.replace(
        SUMMARY,
        dispatches=(msgspec.structs.replace(WON, share=0.97), LOST),
        profiles=(profile,),
        left_out=tuple(cold),
        untunable=(Untunable("odd", "model", "it is odd", 0.01),),
        unprofiled={"other": "it has two functions"},
    )
    text = render(summary, width=160, spec=tmp_path / "spec.mlir", snapshots=())
    assert rows(text, WON.name)[0][:2] == ["3", "97.0%"]
    assert rows(text, LOST.name)[0][:2] == ["1", "-"]
    assert "left out of model (2, 2.0% of the time): cold_0 1.0%, cold_1 1.0%; a larger --tune-coverage takes " in text
    assert "not tuned (1, 1.0% of the time): odd 1.0%: it is odd\n" in text
    assert "other: all of it was tuned, since nobody can tell where its time goes: it has two functions\n" in text


def test_failed_steps_of_the_compiler_are_named_once_for_all_their_dispatches(tmp_path: Path) -> None:
    steps = {"batch_0": "the step failed", "batch_1": "the step failed", "dot": "another one failed"}
    text = render(
        msgspec.structs.replace(SUMMARY, failed_steps=steps), width=160, spec=tmp_path / "spec.mlir", snapshots=()
    )
    assert "\nbatch_0, batch_1: constraints made by the tuner: the step failed\n" in text
    assert "\ndot: constraints made by the tuner: another one failed\n" in text


def test_what_did_not_pay_in_the_whole_is_named(tmp_path: Path) -> None:
    whole = SourceCheck(
        source="model", applied=1, ratio=1.5, ratio_low=1.4, ratio_high=1.6, default_us=3000.0, tuned_us=2000.0
    )
    summary = msgspec.structs.replace(
        SUMMARY,
        dispatches=(msgspec.structs.replace(LOST, reason="it does not pay"),),
        sources=(whole,),
        dropped={LOST.name: "it does not pay"},
    )
    text = render(summary, width=160, spec=tmp_path / "spec.mlir", snapshots=())
    assert "model as a whole: 1.50x (1.40 to 1.60), 3 ms to 2 ms.\n" in text
    assert rows(text, LOST.name)[0][1] == "won, and left out of the spec"
    assert f"{LOST.name}: not in the spec: it does not pay\n" in text
    assert "no spec was written: what won was left out, as told above\n" in text


def test_what_was_written_is_named(tmp_path: Path) -> None:
    spec = tmp_path / ("a long directory " * 12) / "spec.mlir"
    spec.parent.mkdir()
    missing = render(SUMMARY, width=80, spec=spec, snapshots=())
    assert "no spec was written: nothing won" in missing
    spec.touch()
    snapshots = (tmp_path / "[a].mlir", tmp_path / "b.mlir")
    written = render(SUMMARY, width=80, spec=spec, snapshots=snapshots)
    assert "no spec" not in written
    assert f"spec: {spec}\n" in written  # In one line, however long, to be copied.
    for snapshot in snapshots:
        assert f"snapshot: {snapshot}\n" in written


def test_what_changed_stands_below_its_snapshot(tmp_path: Path) -> None:
    here, gone, new = (tmp_path / f"{name}.mlir" for name in ("here", "gone", "new"))
    changes = {here: ["one: added (2 us)", "two: removed (3 us)"], gone: ["three: removed (4 us)"], new: ["not yet"]}
    spec = tmp_path / "spec.mlir"
    text = render(SUMMARY, width=200, spec=spec, snapshots=(here,), changes=changes, unwritten=[new])
    lines = text.splitlines()
    start = lines.index(f"snapshot: {gone} is removed: it has no entry left")
    assert lines[start : start + 7] == [
        f"snapshot: {gone} is removed: it has no entry left",
        "    three: removed (4 us)",
        f"snapshot: {here}",
        "    one: added (2 us)",
        "    two: removed (3 us)",
        f"snapshot: {new} is not written",
        "    not yet",
    ]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_narrow_terminal_is_not_overrun(tmp_path: Path, width: int) -> None:
    text = render(SUMMARY, width=width, spec=tmp_path / "spec.mlir", snapshots=())
    assert max(map(len, text.splitlines())) <= width


def test_a_terminal_of_usual_width_shows_every_figure(tmp_path: Path) -> None:
    text = render(SUMMARY, width=80, spec=tmp_path / "spec.mlir", snapshots=())
    for figure in ("3.21 ms", "1.34 ms", "2.40x", "2.35 to 2.45", "12,345"):
        assert figure in text


def test_a_run_that_tuned_nothing_shows_no_table(tmp_path: Path) -> None:
    assert render(NOTHING, width=80, spec=tmp_path / "spec.mlir", snapshots=()) == ""


def test_the_text_is_plain(tmp_path: Path) -> None:
    assert "\x1b" not in render(SUMMARY, width=100, spec=tmp_path / "spec.mlir", snapshots=())


def test_a_reason_for_which_many_candidates_failed_at_run_time_has_a_line_of_its_own() -> None:
    cause = Cause(reason="no reference is kept", count=20, example="abc123")
    loss = Loss(stage="ran", state="run_failed", count=20, causes=(cause,))
    row = msgspec.structs.replace(WON, losses=(*WON.losses, loss))
    summary = msgspec.structs.replace(NOTHING, dispatches=(row,))
    said = (
        "matmul_512x512x512_f32: 20 of the 58 candidates that were tried failed at run time for the same reason, which "
        "may be none of theirs: run_failed: no reference is kept (abc123)"
    )
    assert said in render(summary, width=200, spec=Path("absent"), snapshots=()).splitlines()
    few = msgspec.structs.replace(summary, dispatches=(msgspec.structs.replace(row, tried=60),))
    assert "failed at run time" not in render(few, width=200, spec=Path("absent"), snapshots=())


def test_open_sizes_have_a_row_each() -> None:
    sizes = {
        f"x.0={rows}": SizeRatio(
            ratio=ratio, ratio_low=ratio - 0.1, ratio_high=ratio + 0.1, baseline_us=rows * 10.0, us=rows * 4.0
        )
        for rows, ratio in ((1, 1.25), (512, 2.5))
    }
    opened = [msgspec.structs.replace(row, name=f"matmul_Dx{name}", sizes=sizes) for name, row in ((8, WON), (9, LOST))]
    text = render(
        msgspec.structs.replace(SUMMARY, dispatches=(*opened, WON)), width=100, spec=Path("no.mlir"), snapshots=()
    )
    lines = [line for line in text.splitlines() if "x.0=" in line]
    assert lines == [
        "    x.0=1, weight 1: 10 us to 8 us, 1.25x (1.15 to 1.35)",
        "    x.0=512, weight 1: 5.12 ms to 2.05 ms, 2.50x (2.40 to 2.60)",
        "    x.0=1, weight 1: 10 us by default",
        "    x.0=512, weight 1: 5.12 ms by default",
    ]


def test_dispatches_of_forms_that_were_not_chosen_are_not_counted(tmp_path: Path) -> None:
    """A model of one dispatch was tuned in three forms, and a single op beside it."""
    sources = {"net": LOST, "net-O3": WON, "net-mine": LOST, "op": LOST}
    rows = tuple(msgspec.structs.replace(row, name=name, sources=(name,)) for name, row in sources.items())
    forms = [Form(name="default"), *(Form(name=name, flags=("--iree-opt-level=O3",)) for name in ("O3", "mine"))]
    record = FormRecord(model="net", target="llvm-cpu", device="", iree="", ratio=1.1, ratio_low=0.01, ratio_high=99.0)
    summary = msgspec.structs.replace(
        SUMMARY,
        dispatches=rows,
        sources=(),
        forms=(record,),
        tried_forms=tuple(FormResult(model="net", form=form, state="measured") for form in forms),
    )
    text = render(summary, width=100, spec=tmp_path / "spec.mlir", snapshots=())
    assert "0 of 2 dispatches are faster.\n" in text
    assert "net in the form default as a whole: 1.10x: unproven, since its few rounds differ too much.\n" in text
    other = msgspec.structs.replace(record, form=forms[1])
    assert "1 of 2 dispatches is faster" in render(
        msgspec.structs.replace(summary, forms=(other,)), width=100, spec=tmp_path / "spec.mlir", snapshots=()
    )


def test_the_run_ends_with_the_answer_and_the_config_knob_by_knob(tmp_path: Path) -> None:
    knobs = {f"vector_parallel_{number}": 8 * number for number in range(1, 5)}
    won = msgspec.structs.replace(
        WON,
        knobs=knobs,
        default_knobs={"vector_parallel_1": 16},
        pipelines=("DoubleTilingExpert", "DoubleTilingExpert"),
    )
    text = render(
        msgspec.structs.replace(SUMMARY, dispatches=(won, LOST), sources=()),
        width=80,
        spec=tmp_path / "spec.mlir",
        snapshots=(),
        next_steps=[("to use it", "shark-tune compile m.mlir")],
    )
    assert text.splitlines()[-10:] == [
        "1 of 2 dispatches is faster, matmul_512x512x512_f32 by the most: 2.40x.",
        "matmul_512x512x512_f32: 3f9a1c beside the default",
        "             vector_parallel_1  vector_parallel_2  vector_parallel_3",
        "    default                 16                  0                  0",
        "    3f9a1c                   8                 16                 24",
        "             vector_parallel_4",
        "    default                  0",
        "    3f9a1c                  32",
        "to use it:",
        "    shark-tune compile m.mlir",
    ]


def test_a_config_of_another_pipeline_stands_alone(tmp_path: Path) -> None:
    won = msgspec.structs.replace(WON, knobs={"tile": 8}, pipelines=("DoubleTilingExpert", "RegisterTiling"))
    text = render(msgspec.structs.replace(SUMMARY, dispatches=(won,)), width=80, spec=tmp_path / "no", snapshots=())
    assert "3f9a1c (RegisterTiling) in place of DoubleTilingExpert\n             tile\n    3f9a1c      8\n" in text


def test_the_best_config_has_its_speed_in_absolute_terms() -> None:
    rates = Rates(gflops=211.4, gb_per_s=0.5, of_limit=0.957)
    assert describe_rates(rates) == "211 GFLOP/s, 0.5 GB/s, 96% of what the device reached in microbenchmarks"
    assert describe_rates(Rates(gflops=None, gb_per_s=12.3)) == "12.3 GB/s"
    won = msgspec.structs.replace(WON, knobs={"tile": 8}, rates=rates)
    summary = msgspec.structs.replace(SUMMARY, dispatches=(won,))
    assert list(config_lines(summary, 80, everything=False))[1].strip() == describe_rates(rates)


def test_a_gain_that_the_whole_model_does_not_show_is_unproven(tmp_path: Path) -> None:
    check = SourceCheck(source="net", applied=1, ratio=1.01, ratio_low=0.98, ratio_high=1.04)
    inside = msgspec.structs.replace(WON, name="inside", sources=("net",))
    also_alone = msgspec.structs.replace(WON, name="also_alone", sources=("net", "an op"))
    summary = msgspec.structs.replace(SUMMARY, dispatches=(inside, also_alone, LOST), sources=(check,))
    text = render(summary, width=100, spec=tmp_path / "no", snapshots=())
    assert "1 of 3 dispatches is faster, also_alone by the most: 2.40x.\n" in text
    assert "1 more is faster alone and unproven in net: inside.\n" in text
    assert "net as a whole: 1.01x (0.98 to 1.04): unproven, since the interval holds 1.\n" in text
    surely = msgspec.structs.replace(check, ratio_low=1.001)
    assert not msgspec.structs.replace(summary, sources=(surely,)).unproven
