"""The command ``shark-tune report``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune.cli import main
from tests.pages import Page, assert_self_contained

RUNS = Path(__file__).parents[2] / "golden" / "runs"
ONE, MODEL = RUNS / "one_dispatch", RUNS / "model_with_forms"


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_runs_become_one_page(tmp_path: Path) -> None:
    done = report(ONE, MODEL, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"report: {tmp_path / 'page.html'}\n"
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert page.table("Runs").columns["run"] == [str(ONE), str(MODEL)]


def test_a_run_that_is_named_twice_is_one_run(tmp_path: Path) -> None:
    assert report(ONE, ONE, "-o", tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Runs" not in [title for title, _ in page.figures]


def test_a_page_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")
    assert report(ONE, "-o", path).exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([RUNS / "none"], "is no output directory of pytest --tune"),
        ([RUNS], "is no output directory of pytest --tune"),
        ([ONE, "-o", RUNS], "this is a directory, name a file in it"),
        ([ONE, "-o", RUNS / "none" / "page.html"], "there is no directory"),
        ([], "Missing argument 'DIR...'"),
    ],
)
def test_what_cannot_be_read_or_written_is_a_usage_error(arguments: list[str | Path], message: str) -> None:
    done = report(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_one_run_as_markdown_is_its_summary(tmp_path: Path) -> None:
    assert report(ONE, "-o", tmp_path / "run.md").exit_code == 0
    assert (tmp_path / "run.md").read_text(encoding="utf-8").startswith("**shark-tune**: 1 of 1 dispatch is faster")


def test_two_runs_as_markdown_are_compared(tmp_path: Path) -> None:
    assert report(MODEL, ONE, "-o", tmp_path / "comment.md").exit_code == 0
    lines = (tmp_path / "comment.md").read_text(encoding="utf-8").splitlines()
    assert " changed from `" in lines[0]
    assert len(lines) <= 15
    assert report(ONE, ONE, "-o", tmp_path / "comment.md").exit_code == 0
    assert (tmp_path / "comment.md").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize(
    ("runs", "output", "message"),
    [
        ([ONE, MODEL, ONE], "a.md", "Markdown is of one run, or compares two: 3 are too many"),
        ([ONE, "head.xml"], "a.md", "name two files of --junitxml, those of base and head, or directories only"),
        (["head.xml"], "a.md", "name two files of --junitxml"),
        (["base.xml", "head.xml"], "a.md", "base.xml: No such file or directory"),
        (["base.xml", "head.xml"], "a.html", "compare two of these with -o FILE.md"),
    ],
)
def test_runs_that_cannot_be_compared_are_a_usage_error(
    tmp_path: Path, runs: list[str | Path], output: str, message: str
) -> None:
    done = report(*runs, "-o", tmp_path / output)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_summary_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"run": 1}', encoding="utf-8")
    done = report(tmp_path, "-o", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "is no summary of this version" in done.stderr
    assert not (tmp_path / "page.html").exists()
