"""What guarding found, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.report import guard_text

WHERE = "llvm-cpu on CPU, IREE 3.13.0 (runtime 3.13.0)"
RECORDED = {"recorded_ratio": 1.5, "recorded_ratio_low": 1.45, "recorded_ratio_high": 1.55}


def result(
    outcome: CheckOutcome,
    reason: str = "",
    *,
    entry: str = "matmul",
    check: EntryCheck = EntryCheck.FAST,
    note: str = "",
    metrics: dict[str, float] | None = None,
    spec: str = "suite/__specs__/llvm-cpu-x.mlir",
    line: int = 7,
) -> guard_text.GuardResult:
    verdict = Verdict(entry=entry, check=check, outcome=outcome, reason=reason, note=note, metrics=metrics or {})
    return guard_text.GuardResult(
        verdict=verdict, spec=spec, file="/home/me/work/suite/test_a.py", line=line, where=WHERE
    )


KEPT = result(CheckOutcome.PASSED, metrics={"ratio": 1.5, **RECORDED})
BROKEN = result(CheckOutcome.FAILED, "a_b is 5% slower\nnow: 1.0\nthen: 1.5", entry="conv")
UNDECIDED = result(CheckOutcome.UNDECIDED, "did not decide\nmore", metrics={"ratio": 0.999})
NOT_NEEDED = result(CheckOutcome.PASSED, note="no longer needed: the default is as fast", entry="pool")
SKIPPED = result(CheckOutcome.SKIPPED, "recorded on A, this is B", entry="conv", check=EntryCheck.CORRECT)
FAILED = guard_text.GuardFailure(
    test="suite/test_a.py::test_a[input]", file="/home/me/work/suite/test_a.py", line=7, reason="there is no file a_b"
)


def test_the_terminal_counts_and_tells_what_is_worth_a_line() -> None:
    lines = list(
        guard_text.terminal_lines([BROKEN, UNDECIDED, NOT_NEEDED, SKIPPED, result(CheckOutcome.PASSED, entry="other")])
    )
    assert lines == [
        "4 entries, checks: 2 kept, 1 broken, 1 undecided, 1 skipped",
        "worth a look:",
        "  pool-fast: no longer needed: the default is as fast",
        "undecided:",
        "  matmul-fast: did not decide",
        "skipped 1: recorded on A, this is B",
        WHERE,
        "spec: suite/__specs__/llvm-cpu-x.mlir",
    ]


def test_entries_of_two_specs_are_two() -> None:
    lines = list(guard_text.terminal_lines([KEPT, result(CheckOutcome.PASSED, spec="other.mlir")]))
    assert lines == ["2 entries, checks: 2 kept", WHERE, "spec: other.mlir", "spec: suite/__specs__/llvm-cpu-x.mlir"]


def test_where_nothing_changed_the_markdown_is_one_line() -> None:
    text = guard_text.markdown([KEPT, SKIPPED])
    assert text == f"**shark-tune guard**: 2 entries, checks: 1 kept, 1 skipped ({WHERE})\n"
    assert guard_text.markdown([]) == "**shark-tune guard**: nothing was guarded.\n"


def test_the_markdown_says_what_changed() -> None:
    moved = result(CheckOutcome.PASSED, entry="dense", metrics={"ratio": 1.61, **RECORDED})
    assert guard_text.markdown([NOT_NEEDED, KEPT, UNDECIDED, BROKEN, moved], ended_early="Ctrl-C").splitlines() == [
        f"**shark-tune guard**: 4 entries, checks: 3 kept, 1 broken, 1 undecided ({WHERE})",
        "",
        "The run ended early, so this is not all: Ctrl-C",
        "",
        "`suite/__specs__/llvm-cpu-x.mlir`",
        "",
        "- **broken** `conv-fast`: a\\_b is 5% slower",
        "",
        "  ```text",
        "  now: 1.0",
        "  then: 1.5",
        "  ```",
        "",
        "- `dense-fast`: 1.61 times the default's speed, recorded 1.50 (1.45 to 1.55)",
        "- **undecided** `matmul-fast`: did not decide",
        "",
        "  ```text",
        "  more",
        "  ```",
        "",
        "- `pool-fast`: no longer needed: the default is as fast",
    ]


def test_a_failure_that_is_no_verdict_is_told_with_and_without_findings() -> None:
    told = "failed without a verdict"
    assert list(guard_text.terminal_lines([KEPT], [FAILED])) == [
        f"1 entry, checks: 1 kept; 1 {told}",
        f"{told}:",
        "  suite/test_a.py::test_a[input]: there is no file a_b",
        WHERE,
        "spec: suite/__specs__/llvm-cpu-x.mlir",
    ]
    assert next(guard_text.terminal_lines([], [FAILED])) == f"nothing was guarded; 1 {told}"
    item = "- **failed** `suite/test_a.py::test_a[input]`: there is no file a\\_b"
    assert guard_text.markdown([KEPT], failures=[FAILED]).splitlines() == [
        f"**shark-tune guard**: 1 entry, checks: 1 kept; 1 {told} ({WHERE})",
        "",
        item,
    ]
    assert guard_text.markdown([], failures=[FAILED]).splitlines() == [
        f"**shark-tune guard**: nothing was guarded; 1 {told}",
        "",
        item,
    ]
    (line,) = guard_text.github_lines([KEPT], Path("/home/me/work"), [FAILED])
    assert line == (
        "::error file=suite/test_a.py,line=7,title=shark-tune%3A suite/test_a.py%3A%3Atest_a[input] failed::"
        "there is no file a_b"
    )


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("there is no file x\ngive another", "there is no file x"),
        ("test_a.py:3: in <module>\n    import none\nE   ImportError: no module\nE   more", "ImportError: no module"),
        ("    def test():\n>       assert x\nE       assert 1 == 2", "assert 1 == 2"),
        ("", "it failed"),
    ],
)
def test_what_a_report_says_first_is_what_went_wrong(text: str, first: str) -> None:
    assert guard_text.said_first(text) == first


@pytest.mark.parametrize("outcome", [CheckOutcome.PASSED, CheckOutcome.SKIPPED])
def test_github_hears_nothing_of_what_is_well(outcome: CheckOutcome) -> None:
    assert list(guard_text.github_lines([result(outcome, "why")], Path("/home/me/work"))) == []


def test_github_is_told_in_its_own_escapes() -> None:
    odd = result(CheckOutcome.FAILED, "5% slower,\r\nnow: 1", entry="a:b,c")
    (line,) = guard_text.github_lines([odd], Path("/home/me/work"))
    assert line == (
        "::error file=suite/test_a.py,line=7,title=shark-tune%3A a%3Ab%2Cc-fast is broken::5%25 slower,%0D%0Anow: 1"
    )
    (line,) = guard_text.github_lines([result(CheckOutcome.UNDECIDED, "why", line=0)], Path("/elsewhere"))
    assert line == "::warning file=/home/me/work/suite/test_a.py,title=shark-tune%3A matmul-fast is undecided::why"
    (line,) = guard_text.github_lines([NOT_NEEDED], Path("/home/me/work"))
    assert line.startswith("::notice file=suite/test_a.py,line=7,title=shark-tune%3A pool-fast is kept::no longer")


@pytest.mark.parametrize(
    ("found", "words"), [(KEPT, "1.50x"), (UNDECIDED, "1.00x undecided"), (SKIPPED, ""), (NOT_NEEDED, "")]
)
def test_a_ratio_stands_beside_its_test(found: guard_text.GuardResult, words: str) -> None:
    assert guard_text.verdict_status(found.verdict) == words
