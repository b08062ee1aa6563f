"""Base and head as a comment on a pull request."""

from __future__ import annotations

import pytest

from pytest_shark_tune.report.compare.comparison import Comparison, Ratio, Row, Verdict, speed_verdict
from pytest_shark_tune.report.compare.comparison_markdown import comparison_markdown


def row(name: str, verdict: Verdict, change: Ratio | None = None) -> Row:
    return Row(name, "kept", "broken", change, verdict)


def compared(*rows: Row, count: int = 30, where: str = "", note: str = "") -> Comparison:
    return Comparison("base", "head", ("entry", "entries"), count, rows, where, note)


def test_the_widths_of_a_quotient_add_up_in_squares() -> None:
    change = Ratio(2.0, 2.0 / 1.03, 2.0 * 1.03).over(Ratio(1.0, 1 / 1.04, 1.04))
    assert change.value == 2.0
    assert change.low == pytest.approx(2.0 / 1.05, rel=1e-3)
    assert change.high == pytest.approx(2.0 * 1.05, rel=1e-3)


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        ((2.0, 1.9, 2.1), (1.5, 1.45, 1.55), Verdict.LESS),
        ((1.5, 1.45, 1.55), (2.0, 1.9, 2.1), Verdict.MORE),
        ((2.0, 1.2, 3.0), (1.5, 1.45, 1.55), None),
        ((2.0, 1.9, 2.1), (2.0, 1.9, 2.1), None),
    ],
)
def test_a_speed_changed_if_the_interval_of_the_quotient_excludes_1(
    base: tuple[float, float, float], head: tuple[float, float, float], verdict: Verdict | None
) -> None:
    assert speed_verdict(Ratio(*base), Ratio(*head))[1] is verdict


@pytest.mark.parametrize("value", [None, 0.0, -1.0, float("inf"), float("nan")])
def test_a_ratio_that_cannot_be_is_none(value: float | None) -> None:
    assert Ratio.of(value, 1.0, 1.0) is None
    assert Ratio.of(1.0, 1.0, value) is None


def test_nothing_changed_is_one_line() -> None:
    text = comparison_markdown(compared(where="llvm-cpu on some CPU", note="1 has another config."))
    assert text == (
        "**shark-tune**: nothing changed from `base` to `head`: 30 entries (llvm-cpu on some CPU). "
        "1 has another config.\n"
    )


def test_a_comment_has_15_lines_at_most_and_the_worst_first() -> None:
    change = Ratio(0.8, 0.7, 0.9)
    rows = [row(f"a{number}", Verdict.ADDED) for number in range(20)]
    lines = comparison_markdown(
        compared(*rows, row("z", Verdict.BROKEN), row("y", Verdict.LESS, change), note="Remark.")
    ).splitlines()
    assert len(lines) <= 15
    assert lines[0].endswith("22 of 30 entries changed from `base` to `head`: 1 broken, 1 gains less, 20 new.")
    assert lines[4:6] == [
        "| `z` | kept | broken | - | **broken** |",
        "| `y` | kept | broken | 0.80x (0.70 to 0.90) | **gains less** |",
    ]
    assert lines[-1] == "14 more changed. Remark."


def test_names_mark_nothing_up() -> None:
    text = comparison_markdown(compared(row("a|b`c\n# head\x1b", Verdict.GONE)))
    assert "| `a\\|b'c\\n# head\\x1b` |" in text
