"""The page in a real browser: it runs, draws and fits as its markup alone cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.guard.history import HistoryPoint
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.report.html.page import guard_page
from tests.browser import Browser, browser

pytestmark = pytest.mark.slow

RUNS = Path(__file__).parents[2] / "golden" / "runs"
ONE, MODEL = RUNS / "one_dispatch", RUNS / "model_with_forms"

OPEN = "document.querySelectorAll('details').forEach(fold => { fold.open = true; })"
SIZES = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
COUNTS = "['svg', 'table', 'figure'].map(name => document.querySelectorAll(name).length)"
NOT_DRAWN = """
Array.from(document.querySelectorAll("figure svg")).filter(drawing => {
  const marks = Array.from(drawing.querySelectorAll("rect, circle, path, line:not(.grid):not(.axis):not(.one)"));
  return !marks.some(mark => {
    const box = mark.getBoundingClientRect();
    const style = getComputedStyle(mark);
    const isInked = color => color !== "none" && color !== "rgba(0, 0, 0, 0)";
    return (box.width > 0 || box.height > 0) && (isInked(style.fill) || isInked(style.stroke));
  });
}).map(drawing => drawing.getAttribute("aria-label"))
"""
CUT = """
Array.from(document.querySelectorAll("figure svg")).flatMap(drawing => {
  const frame = drawing.getBoundingClientRect();
  return Array.from(drawing.querySelectorAll("text")).filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 ||
      box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})
"""
CROSSING = """
Array.from(document.querySelectorAll("figure svg")).flatMap(drawing => {
  const texts = Array.from(drawing.querySelectorAll("text.name:not(.tick), text.value, text.sign"));
  const boxes = texts.map(text => text.getBoundingClientRect());
  return boxes.flatMap((one, at) => boxes.slice(at + 1).map((other, next) => [one, other, at + 1 + next])
    .filter(([one, other]) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
      Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 4)
    .map(([, , next]) => texts[at].textContent + " | " + texts[next].textContent));
})
"""
OVERLAPPING = """
Array.from(document.querySelectorAll(".figures")).flatMap(figures => {
  const boxes = Array.from(figures.children).map(figure => figure.getBoundingClientRect());
  return boxes.flatMap((one, at) => boxes.slice(at + 1).filter(other =>
    Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
    Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1
  )).map(box => [box.left, box.top]);
})
"""


def tuned(path: Path, *runs: Path) -> None:
    done = CliRunner().invoke(main, ["report", *map(str, runs), "-o", str(path)])
    assert done.exit_code == 0, done.output


def guarded(path: Path) -> None:
    names = ["matmul_512x512x512_f32", "depthwise_conv_2d_nchw_chw_1x32x160x160_3x3_s2x2_f32"]
    metrics = {"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "baseline_us": 10.0}
    recorded = {"recorded_ratio": 1.7, "recorded_ratio_low": 1.65, "recorded_ratio_high": 1.75}
    results = [
        GuardResult(
            verdict=Verdict(entry=name, check=check, outcome=outcome, metrics=metrics | recorded),
            spec="specs/a.mlir",
            file="test_a.py",
            line=3,
            where="llvm-cpu on some CPU",
        )
        for name in names
        for check, outcome in zip(EntryCheck, [*CheckOutcome] * 3, strict=False)
    ]
    history = [
        HistoryPoint(
            run=str(day),
            time=f"2026-01-{day:02}T05:00:00Z",
            entry=name,
            config="c",
            outcome="kept",
            us=50.0 + day % 3,
            default_us=100.0,
            ratio=2.0 - day % 3 / 50,
            ratio_low=1.9,
            ratio_high=2.1,
            rounds=6,
            target="llvm-cpu",
            device="some CPU",
            processors=2,
            machine="m",
            iree="3.13.0",
            runtime="3.13.0",
        )
        for name in names
        for day in range(1, 20)
    ]
    path.write_text(guard_page(results, history=history), encoding="utf-8")


PAGES: dict[str, Callable[[Path], None]] = {
    "model": lambda path: tuned(path, MODEL),
    "dispatch": lambda path: tuned(path, ONE),
    "several": lambda path: tuned(path, ONE, MODEL),
    "guard": guarded,
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_draws_and_fits(
    chromium: Browser, tmp_path: Path, name: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    path = tmp_path / "page.html"
    PAGES[name](path)
    chromium.open(path, width=width, scheme=scheme)
    assert chromium.evaluate("document.querySelectorAll('table.sortable').length") > 0, "the script ran"
    chromium.evaluate(OPEN)
    chromium.wait()
    assert chromium.messages == []
    assert chromium.evaluate(NOT_DRAWN) == []
    assert chromium.evaluate(CUT) == []
    assert chromium.evaluate(CROSSING) == []
    assert chromium.evaluate(OVERLAPPING) == []
    content, window = chromium.evaluate(SIZES)
    assert content <= window
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(14, 17, 22)" if scheme == "dark" else "rgb(246, 247, 249)")


def test_without_scripts_all_figures_and_tables_are_there(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    tuned(path, MODEL)
    chromium.open(path, width=1400)
    counts = chromium.evaluate(COUNTS)
    assert min(counts) > 0
    chromium.open(path, width=1400, script=False)
    assert chromium.evaluate(COUNTS) == counts
    assert chromium.evaluate("document.querySelectorAll('table.sortable').length") == 0
    assert chromium.evaluate(NOT_DRAWN) == []


def test_a_click_on_a_heading_sorts_the_table(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    tuned(path, ONE)
    chromium.open(path, width=1400)
    table = "Array.from(document.querySelectorAll('.dispatch table')[0].rows)"
    column = f"{table}.slice(1).map(row => row.cells[0].innerText)"
    chromium.evaluate(OPEN)
    before = chromium.evaluate(column)
    for expected in (before, before[::-1]):
        chromium.evaluate("document.querySelectorAll('.dispatch th')[0].click()")
        assert chromium.evaluate(column) == expected
    assert len(before) > 2


def test_a_figure_stays_in_its_lane_when_its_table_opens(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    tuned(path, MODEL)
    chromium.open(path, width=1400)
    lefts = "Array.from(document.querySelectorAll('figure')).map(figure => figure.getBoundingClientRect().left)"
    before = chromium.evaluate(lefts)
    assert len(set(before)) > 3
    chromium.evaluate("document.querySelector('figure details').open = true")
    chromium.wait()
    assert chromium.evaluate(lefts) == before
    assert chromium.evaluate(OVERLAPPING) == []
