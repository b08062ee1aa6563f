"""Two runs that guarded, as JUnit files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import quoteattr

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.report.compare.comparison import Comparison, Row, Verdict
from pytest_shark_tune.report.compare.comparison_markdown import comparison_markdown
from pytest_shark_tune.report.compare.guarded import compare_guarded, read_guarded

FIGURES = {"ratio": 1.5, "ratio_low": 1.45, "ratio_high": 1.55}
KEPT = {"parses": "kept", "allowed": "kept", "applies": "kept", "correct": "kept", "fast": "kept"}


def case(name: str, properties: Mapping[str, object] = MappingProxyType({}), inner: str = "") -> str:
    listed = "".join(f"<property name={quoteattr(key)} value={quoteattr(str(properties[key]))}/>" for key in properties)
    return f"<testcase classname='suite' name={quoteattr(name)}><properties>{listed}</properties>{inner}</testcase>"


def entry(name: str, outcomes: Mapping[str, str], figures: Mapping[str, float] = MappingProxyType({})) -> str:
    return "".join(
        case(
            f"test_dispatch[{name}-{check}]",
            {"entry": name, "promise": check, "outcome": outcome, **(figures if check == "fast" else {})},
        )
        for check, outcome in outcomes.items()
    )


def compare(directory: Path, base: str, head: str) -> Comparison:
    runs = []
    for name, cases in (("base", base), ("head", head)):
        path = directory / f"{name}.xml"
        path.write_text(f"<testsuites><testsuite name='pytest'>{cases}</testsuite></testsuites>", encoding="utf-8")
        runs.append(read_guarded(path))
    return compare_guarded(*runs)


def row(directory: Path, base: str, head: str) -> Row:
    (found,) = compare(directory, base, head).rows
    return found


def test_equal_runs_are_one_line(tmp_path: Path) -> None:
    cases = entry("matmul", KEPT, FIGURES) + case("test_of_another_kind")
    text = comparison_markdown(compare(tmp_path, cases, cases))
    assert "nothing changed" in text
    assert ": 1 entry." in text


def test_a_check_that_broke_is_named(tmp_path: Path) -> None:
    slow = {"ratio": 1.1, "ratio_low": 1.08, "ratio_high": 1.12}
    found = row(tmp_path, entry("matmul", KEPT, FIGURES), entry("matmul", KEPT | {"fast": "broken"}, slow))
    assert found.verdict is Verdict.BROKEN
    assert (found.base, found.head) == ("kept, 1.50x (1.45 to 1.55)", "fast broken, 1.10x (1.08 to 1.12)")
    assert str(found.change) == "0.73x (0.71 to 0.76)"


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (KEPT | {"fast": "broken"}, KEPT, Verdict.MENDED),
        (KEPT, KEPT | {"fast": "undecided"}, Verdict.UNDECIDED),
        (KEPT, KEPT | {"fast": "skipped"}, Verdict.UNCHECKED),
        (KEPT | {"fast": "skipped"}, KEPT, Verdict.CHECKED),
        ({}, KEPT, Verdict.ADDED),
        ({}, KEPT | {"parses": "broken"}, Verdict.BROKEN),
        (KEPT, {}, Verdict.GONE),
    ],
)
def test_an_entry_has_one_verdict(tmp_path: Path, base: dict[str, str], head: dict[str, str], verdict: Verdict) -> None:
    assert row(tmp_path, entry("matmul", base), entry("matmul", head)).verdict is verdict


def test_a_speed_may_change_though_each_check_passed(tmp_path: Path) -> None:
    faster = {"ratio": 2.0, "ratio_low": 1.9, "ratio_high": 2.1}
    found = row(tmp_path, entry("matmul", KEPT, FIGURES), entry("matmul", KEPT, faster))
    assert found.verdict is Verdict.MORE


def test_a_test_that_fails_without_a_verdict_is_broken(tmp_path: Path) -> None:
    found = row(tmp_path, entry("a", KEPT), entry("a", KEPT) + case("suite/test_a.py", inner="<error message='x'/>"))
    assert (found.name, found.base, found.head, found.verdict) == ("suite/test_a.py", "-", "failed", Verdict.BROKEN)


def test_entries_of_several_devices_stay_apart(tmp_path: Path) -> None:
    def of(device: str, outcome: str) -> str:
        given = {"entry": "matmul", "promise": "parses", "outcome": outcome}
        return case(f"test_dispatch[matmul-{device}-parses]", given)

    found = row(tmp_path, of("a", "kept") + of("b", "kept"), of("a", "kept") + of("b", "broken"))
    assert found.name == "matmul-b"


@pytest.mark.parametrize("text", ["", "no XML", "<html></html>", "<testsuites"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"is no file of --junitxml"):
        read_guarded(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_guarded(tmp_path / "base.xml")
