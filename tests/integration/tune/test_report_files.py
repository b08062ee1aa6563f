"""The reports of a run that tunes: a page of HTML, Markdown, the summary of a workflow's step, JUnit's properties."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from tests.models import suite_text
from tests.pages import Page, assert_self_contained

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

NAME = "matmul_53x59x61_f32"
SUITE = suite_text("ops.matmul(m=53, n=59, k=61)")
MODEL = """
func.func @main(%a: tensor<53x61xf32>, %b: tensor<61x59xf32>, %c: tensor<59x16xf32>) -> tensor<53x16xf32> {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<53x59xf32>
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<53x59xf32>) -> tensor<53x59xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<53x61xf32>, tensor<61x59xf32>)
      outs(%f0 : tensor<53x59xf32>) -> tensor<53x59xf32>
  %e1 = tensor.empty() : tensor<53x16xf32>
  %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<53x16xf32>) -> tensor<53x16xf32>
  %1 = linalg.matmul ins(%0, %c : tensor<53x59xf32>, tensor<59x16xf32>)
      outs(%f1 : tensor<53x16xf32>) -> tensor<53x16xf32>
  return %1 : tensor<53x16xf32>
}
"""
REPORTS = ("--tune-report-html=page.html", "--tune-report-md=report.md", "--junitxml=junit.xml")


def read(suite: Suite, name: str) -> str:
    return (suite.directory / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_run_writes_what_it_came_to(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: str
) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    step = tmp_path / "step.md"
    step.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    outcome = suite.tune("--tune-trials=12", workers, *REPORTS)
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines_random(["report: */report.md", "report: */page.html"])

    page = Page(read(suite, "page.html"))
    assert_self_contained(page)
    row = outcome.dispatch(NAME)
    speedups = page.table("Speedups of dispatches").columns
    assert speedups["dispatch"] == [NAME]
    assert speedups["winner"] == [row["winner"] or "none"]
    tried = [record for record in outcome.records if record["id"] != "default"]
    assert len(tried) == 12
    candidates = page.table("Parallel coordinates").columns
    assert sorted(candidates["id"]) == sorted(record["id"] for record in tried)
    trials = dict(zip(candidates["trial"], candidates["id"], strict=True))
    assert [trials[str(number)] for number in range(1, 13)] == [record["id"] for record in tried]
    assert page.table("Funnel of candidates").columns["tried"] == ["12"]
    assert {"Final", "Best so far", "Slices"} <= {title for title, _ in page.figures}

    report = read(suite, "report.md")
    assert report.startswith(f"**shark-tune**: {int(row['winner'] is not None)} of 1 dispatch ")
    assert step.read_text(encoding="utf-8") == f"before\n{report}\n"

    cases = {case.get("name") or "": case for case in ET.parse(suite.directory / "junit.xml").iter("testcase")}
    properties = {
        name: {each.get("name"): each.get("value") for each in case.iter("property")} for name, case in cases.items()
    }
    assert properties[f"test_dispatch[{NAME}-final]"]["winner"] == (row["winner"] or "none")
    for record in tried:
        (own,) = [found for found in properties.values() if found.get("candidate") == record["id"]]
        assert (own["dispatch"], own["state"]) == (NAME, record["state"])
        if record["state"] == "measured":
            assert float(own["ratio"] or 0) == pytest.approx(record["ratio"])
            assert float(own["tuned_us"] or 0) > 0

    done = CliRunner().invoke(main, ["report", str(outcome.out), "-o", str(tmp_path / "again.html")])
    assert (done.exit_code, done.stdout) == (0, f"report: {tmp_path / 'again.html'}\n")
    again = Page((tmp_path / "again.html").read_text(encoding="utf-8"))
    assert [(title, table.rows) for title, table in again.figures] == [
        (title, table.rows) for title, table in page.figures
    ]


@pytest.mark.slow
def test_a_model_has_a_waterfall_and_the_limits_of_the_device(make_suite: MakeSuite) -> None:
    suite = make_suite({"model.mlir": MODEL})
    suite.habits = ("--tune-fresh", "--tune-strategy=exhaustive", "--tune-coverage=0.99")
    outcome = suite.tune("model.mlir", "--tune-trials=6", "--tune-report-html=page.html")
    assert outcome.status == 0, outcome.text
    page = Page(read(suite, "page.html"))
    assert_self_contained(page)
    (profile,) = outcome.summary["profiles"]
    columns = page.table("Dispatches of model and the device's limits").columns
    assert columns["dispatch"] == [share["dispatch"] for share in profile["shares"]]
    assert all(columns["limit us"])
    if any(row["winner"] for row in outcome.summary["dispatches"]) and not outcome.summary["dropped"]:
        (check,) = outcome.summary["sources"]
        steps = page.table("Where the time of model went").columns
        assert (steps["step"][0], steps["step"][-1]) == ("by default", "with the spec, measured")
        assert float(steps["time then us"][-1].replace(",", "")) == pytest.approx(check["tuned_us"], abs=0.001)


@pytest.mark.slow
def test_a_report_that_cannot_be_written_fails_the_run_and_costs_no_result(make_suite: MakeSuite) -> None:
    gone = """
import os

def pytest_collection_finish():
    os.rename("reports", "gone")
    open("reports", "w").close()
"""
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": gone, "reports/.gitkeep": ""})
    arguments = ("--tune-report-md=reports/r.md", "--tune-report-html=reports/page.html")
    outcome = suite.tune("--tune-trials=1", "-k", "not final", *arguments)
    assert outcome.status == pytest.ExitCode.TESTS_FAILED
    for option, name in (("md", "r.md"), ("html", "page.html")):
        outcome.lines.fnmatch_lines([f"--tune-report-{option}: cannot write */reports/{name}: *"])
    assert [record["id"] for record in outcome.records if record["id"] != "default"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--tune-report-html=none/page.html", "*--tune-report-html: *none/page.html is not a file in an existing*"),
        ("--tune-report-html=.", "*--tune-report-html: *is not a file in an existing directory*"),
        ("--tune-report-md=none/r.md", "*--tune-report-md: *none/r.md is not a file in an existing directory*"),
    ],
)
@pytest.mark.parametrize("mode", ["--tune", "--tune-seed=0"])
def test_a_file_without_a_directory_is_a_usage_error(
    make_suite: MakeSuite, argument: str, message: str, mode: str
) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    outcome = suite.run(mode, argument)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    outcome.lines.fnmatch_lines([message])


def test_a_run_that_measures_nothing_has_nothing_to_report(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    outcome = suite.tune("--tune-stop-after=compile", "--tune-report-html=page.html")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    outcome.lines.fnmatch_lines(["*--tune-report-html: with --tune-stop-after nothing is measured*"])


@pytest.mark.slow
def test_paths_in_an_ini_file_are_relative_to_it(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "reports/.gitkeep": ""})
    ini = "[pytest]\ntune_form = none\ntune_report_md = reports/r.md\ntune_report_html = reports/page.html\n"
    suite.write("pytest.ini", ini)
    outcome = suite.tune("--tune-trials=1", "-k", "not final")
    assert outcome.status == 0, outcome.text
    assert read(suite, "reports/r.md").startswith("**shark-tune**")
    assert_self_contained(Page(read(suite, "reports/page.html")))
