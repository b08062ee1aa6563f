"""A tuning run as Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.report.summary_markdown import summary_markdown
from pytest_shark_tune.results.merge_runs import read_run
from pytest_shark_tune.results.summary import Summary

RUNS = Path(__file__).parents[2] / "golden" / "runs"


@pytest.fixture(scope="module")
def summary() -> Summary:
    return read_run(RUNS / "model_with_forms").summary


def test_a_run_is_a_sentence_a_table_and_its_doubts(summary: Summary) -> None:
    lines = summary_markdown(summary).splitlines()
    assert lines[0].startswith("**shark-tune**: 4 of 7 dispatches are faster, ")
    assert lines[0].endswith(
        "(llvm-cpu on AMD EPYC, AuthenticAMD family 25 model 17 stepping 1, ISA dbbb4769, IREE 3.13.0)"
    )
    assert "- det in the form products+data-tiling as a whole: 2.33x (2.13 to 2.55), 173 ms to 73.2 ms." in lines
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == 4
    assert (
        rows[-1]
        == "| `depthwise_conv_2d_nchw_chw_1x96x80x80_3x3_f32` | 2 | 2.4 ms | 161 us | 14.90x | 2.12 to 104.72 |"
    )
    assert any("changed its speed while 251 candidates" in line for line in lines)
    assert len("\n".join(lines)) < 3000, "it fits a comment on a pull request"


def test_a_run_in_which_nothing_won_has_no_table(summary: Summary) -> None:
    rows = tuple(msgspec.structs.replace(row, winner=None, speedup=None) for row in summary.dispatches)
    text = summary_markdown(msgspec.structs.replace(summary, dispatches=rows, forms=(), sources=()))
    assert text.startswith("**shark-tune**: 0 of 7 dispatches are faster. (")
    assert "|" not in text


def test_names_mark_nothing_up(summary: Summary) -> None:
    evil = "a|b`c<img src=x>\n# head\x1b"
    rows = tuple(msgspec.structs.replace(row, name=evil) for row in summary.dispatches)
    text = summary_markdown(msgspec.structs.replace(summary, dispatches=rows, dropped={}))
    assert "\x1b" not in text
    assert "\n# head" not in text
    assert "| `a\\|b'c<img src=x>\\n# head\\x1b` |" in text
    assert not re.search(r"(?<!\\)<img", text.replace("c<img", "")), "outside of code a sign of HTML is escaped"


def test_a_long_table_is_cut(summary: Summary) -> None:
    won = next(row for row in summary.dispatches if row.winner)
    rows = tuple(msgspec.structs.replace(won, name=f"dispatch_{number}") for number in range(50))
    text = summary_markdown(msgspec.structs.replace(summary, dispatches=rows))
    assert text.count("| `dispatch_") == 20
    assert "30 more are in summary.json." in text
