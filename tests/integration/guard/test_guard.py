"""`pytest SUITE` where a spec lies beside the suite, and `--tune-guard`: what the user sees, and the exit status."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.identity import cpu_name, device_slug
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.records.snapshot import read_records, snapshot_path, write_spec
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.report.compare.guarded import compare_guarded, read_guarded
from pytest_shark_tune.search_space.candidate import applied_candidate
from tests.factories import make_winner
from tests.models import suite_text
from tests.pages import Page, assert_self_contained

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

SOURCE = ops.matmul(m=64, n=64, k=64)
NAME = "matmul_64x64x64_f32"
SUITE = suite_text("ops.matmul(m=64, n=64, k=64)")
CONFIG = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [32, 16, 0], "
    "vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
# Times of the client's own, so that what a run comes to does not hang on this machine's mood.
OWN_TIMES = """
import msgspec
import pytest
from pytest_shark_tune.measurement.timing import compare

@pytest.fixture
def measurement(candidate, artifact):
    if candidate.config is None:
        return None
    measured = compare(lambda batch: batch * 2e-3, lambda batch: batch * 2e-3 * {ratio})
    return msgspec.structs.replace(measured, ratio_low=measured.ratio / {spread}, ratio_high=measured.ratio * {spread})
"""
FAST, SLOW, UNSURE = (
    OWN_TIMES.format(ratio=ratio, spread=spread) for ratio, spread in ((1.5, 1.01), (1.05, 1.01), (1.5, 1.5))
)
WRONG = """
import pytest
from pytest_shark_tune import ops

@pytest.fixture
def artifact(candidate, artifact, tune_session, tmp_path):
    if candidate.config is None:
        return artifact
    (other,) = tune_session.guard_plan([ops.matmul(m=64, n=64, k=64, transpose_b=True)], tmp_path, SPEC).plan.tasks
    return tune_session.builder.artifact(other, other.default)
"""
BROKEN_COMPILER = """
import pytest
from pytest_shark_tune import CandidateFailed

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config is not None:
        raise CandidateFailed("compile_failed", "our compiler has no such tile")
"""


def record_of(source: ops.OpSource) -> WinnerRecord:
    """The record of an entry for the op's dispatch, as tuning on this device would write it."""
    (dispatch,) = extract_dispatches(
        [read_source(source, Path())], Compiler(Target.parse("llvm-cpu")), 1, lambda message: None
    ).dispatches
    candidate = applied_candidate(dispatch.name, CONFIG, identifier="c0ffee", knobs={})
    return make_winner(
        candidate.id,
        dispatch=dispatch.name,
        config=candidate.config,
        ratio=1.5,
        ratio_low=1.45,
        ratio_high=1.55,
        device=cpu_name(),
        iree=compiler_version(),
        root=dispatch.root,
        compilation_info=candidate.compilation_info,
        ops=tuple(RecordedOp(member.source, member.symbol) for member in dispatch.members),
    )


@pytest.fixture(scope="module")
def winner() -> WinnerRecord:
    """The record of an entry for the suite's dispatch."""
    return record_of(SOURCE)


def guarded(make_suite: MakeSuite, winner: WinnerRecord, files: dict[str, str], slug: str = "") -> Suite:
    """A suite with a snapshot of this device, or of that of another ``slug``."""
    suite = make_suite({"test_suite.py": SUITE, **files})
    suite.habits = ()
    write_spec(snapshot_path(suite.directory, "llvm-cpu", slug or device_slug("local-task")), [winner])
    return suite


def ids(suite: Suite, *arguments: str) -> list[str]:
    """What stands between the brackets of the tests that are collected."""
    outcome = suite.run("--collect-only", "-q", *arguments)
    return [line.partition("::")[2] for line in outcome.text.splitlines() if "::" in line]


@pytest.mark.parametrize("workers", ["-pno:xdist", pytest.param("-n2", marks=pytest.mark.slow)])
def test_each_promise_is_a_test_of_its_own(
    make_suite: MakeSuite, winner: WinnerRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: str
) -> None:
    suite = guarded(make_suite, winner, {"conftest.py": FAST})
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    outcome = suite.run("-v", "--tune-report-md=report.md", "--tune-report-html=page.html", workers)
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines_random(
        [
            f"*test_suite.py::test_dispatch[[]{NAME}-{check}[]]*"
            for check in ("parses", "allowed", "applies", "correct", "fast")
        ]
    )
    outcome.lines.fnmatch_lines(
        ["*= shark-tune guard =*", "1 entry, checks: 5 kept", "llvm-cpu on *, IREE 3.*", "spec: __specs__/*.mlir"]
    )
    assert "1.50x" in outcome.text
    report = (suite.directory / "report.md").read_text(encoding="utf-8")
    assert report.startswith("**shark-tune guard**: 1 entry, checks: 5 kept")
    assert len(report.splitlines()) == 1
    assert (tmp_path / "step.md").read_text(encoding="utf-8") == f"{report}\n"
    page = Page((suite.directory / "page.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert page.table("Checks").columns["check"] == ["parses", "allowed", "applies", "correct", "fast"]
    assert page.table("Checks").columns["outcome"] == ["kept"] * 5
    speeds = page.table("Speeds of guarded entries").columns
    assert (speeds["ratio"], speeds["recorded interval"]) == (["1.50x"], ["1.45 to 1.55"])
    assert not outcome.out.exists()


def test_a_run_that_guards_nothing_leaves_the_step_summary_alone(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    suite = make_suite({"test_suite.py": "def test_nothing(): pass\n"})
    assert suite.run().status == 0
    assert not (tmp_path / "step.md").exists()


def test_a_slower_entry_fails_with_its_figures(
    make_suite: MakeSuite, winner: WinnerRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = guarded(make_suite, winner, {"conftest.py": SLOW})
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(suite.directory))
    outcome = suite.run("-pno:xdist", "-k", "fast", "--tune-report-md=report.md", "--junitxml=junit.xml")
    assert outcome.status == 1
    told = f"{NAME} of */__specs__/llvm-cpu-*.mlir: it is slower than recorded: it should reach 1.392 times*"
    options = "--tune-device=local-sync --tune-cache=*"
    outcome.lines.fnmatch_lines(
        [
            told,
            "now: 1.050 *",
            "recorded: 1.500 (1.450 to 1.550)*",
            f"reproduce with: pytest 'test_suite.py::test_dispatch[[]{NAME}-fast[]]' {options}",
            "1 entry, checks: 1 broken",
            f"::error file=test_suite.py,line=*,title=shark-tune%3A {NAME}-fast is broken::{told}%0Anow*",
            f"FAILED test_suite.py::test_dispatch[[]{NAME}-fast[]]*",
            "*1 failed, 4 deselected*",
        ]
    )
    assert "Traceback" not in outcome.text
    assert f"- **broken** `{NAME}-fast`: " in (suite.directory / "report.md").read_text(encoding="utf-8")
    (case,) = ET.parse(suite.directory / "junit.xml").iter("testcase")
    properties = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert properties["outcome"] == "broken"
    assert float(properties["ratio"] or 0) == pytest.approx(1.05, abs=1e-3)
    assert properties["recorded_ratio_low"] == "1.45"
    run = read_guarded(suite.directory / "junit.xml")
    (entry,) = run.entries.values()
    assert (entry.name, entry.outcomes) == (NAME, {"fast": "broken"})
    assert compare_guarded(run, run).rows == []


@pytest.mark.slow
def test_an_undecided_entry_passes_with_a_warning_unless_strict(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    suite = guarded(make_suite, winner, {"conftest.py": UNSURE})
    lenient = suite.run("-k", "fast", "-v", "-Wdefault::pytest_shark_tune.UndecidedWarning", "--tune-report-md=r.md")
    assert lenient.status == 0, lenient.text
    lenient.lines.fnmatch_lines(
        [
            "*1.50x undecided*",
            "*UndecidedWarning: *",
            "1 entry, checks: 1 undecided",
            "undecided:",
            f"  {NAME}-fast: *",
        ]
    )
    assert f"- **undecided** `{NAME}-fast`: " in (suite.directory / "r.md").read_text(encoding="utf-8")
    strict = suite.run("-k", "fast", "--tune-strict")
    assert strict.status == 1
    strict.lines.fnmatch_lines(["(--tune-strict)", "*1 failed, 4 deselected*"])
    as_error = suite.run("-k", "fast")  # Ours run with -W error.
    assert as_error.status == 1
    as_error.lines.fnmatch_lines(["*UndecidedWarning: *", "*1 failed, 4 deselected*"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_wrong_result_of_an_overridden_stage_is_named(
    make_suite: MakeSuite, winner: WinnerRecord, workers: str
) -> None:
    suite = guarded(make_suite, winner, {})
    (spec,) = (suite.directory / "__specs__").glob("*.mlir")
    suite.write("conftest.py", WRONG.replace("SPEC", f"__import__('pathlib').Path({str(spec)!r})"))
    outcome = suite.run("-rs", workers)
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(
        [
            f"{NAME} of *: on {NAME}: wrong_result: *",
            "1 entry, checks: 3 kept, 1 broken, 1 skipped",
            f"SKIPPED *see [[]{NAME}-correct[]]",
            "*1 failed, 3 passed, 1 skipped*",
        ]
    )


@pytest.mark.slow
def test_what_an_overridden_stage_cannot_compile_fails_in_words(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    outcome = guarded(make_suite, winner, {"conftest.py": BROKEN_COMPILER}).run("-rsf")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(
        [
            f"{NAME} of *: compile_failed: our compiler has no such tile",
            f"SKIPPED *see [[]{NAME}-correct[]]: compile_failed: our compiler has no such tile",
            f"FAILED test_suite.py::test_dispatch[[]{NAME}-correct[]]*",
            "*1 failed, 3 passed, 1 skipped*",
        ]
    )
    assert "Traceback" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("times", ["", OWN_TIMES.format(ratio=0.5, spread=1.01)], ids=["ours", "their-own"])
def test_snapshots_of_other_devices_are_looked_at_without_times(
    make_suite: MakeSuite, winner: WinnerRecord, times: str
) -> None:
    other = msgspec.structs.replace(winner, device="A64FX")
    suite = guarded(make_suite, other, {"conftest.py": times}, slug="a64fx")
    outcome = suite.run("-rs", "-k", "fast or parses")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["skipped 1: recorded on A64FX, this is *", "*1 passed, 1 skipped*"])
    assert ids(suite)[0] == f"test_dispatch[{NAME}-parses]"
    write_spec(snapshot_path(suite.directory, "llvm-cpu", "cortex-x4"), [other])
    assert [each for each in ids(suite) if "parses" in each] == [
        f"test_dispatch[{NAME}-a64fx-parses]",
        f"test_dispatch[{NAME}-cortex-x4-parses]",
    ]
    write_spec(snapshot_path(suite.directory, "llvm-cpu", device_slug("local-task")), [winner])
    assert ids(suite)[0] == f"test_dispatch[{NAME}-parses]"
    assert len(ids(suite)) == 5


@pytest.mark.slow
def test_an_entry_is_shown_by_the_tests_that_it_is_for(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    suite = guarded(make_suite, winner, {"test_other.py": SUITE.replace("m=64", "m=32")})
    (spec,) = (suite.directory / "__specs__").glob("*.mlir")
    gone = record_of(ops.matmul(m=48, n=64, k=64))
    write_spec(spec, [*read_records(spec), gone])
    whole = suite.run("--collect-only", "-q", "-k", "parses").text
    assert f"test_suite.py::test_dispatch[{NAME}-parses]" in whole
    assert f"test_other.py::test_dispatch[{NAME}-parses]" not in whole
    assert whole.count(gone.dispatch) == 1  # By the first test.
    assert gone.dispatch not in suite.run("--collect-only", "-q", "test_suite.py").text


@pytest.mark.slow
def test_a_named_spec_is_held_against_a_model(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    suite = make_suite({"model.mlir": SOURCE.text})
    suite.habits = ()
    write_spec(suite.directory / "spec.mlir", [winner])
    (suite.directory / "spec.jsonl").unlink()
    outcome = suite.run("model.mlir", "--tune-guard", "spec.mlir", "-k", "not fast")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["1 entry, checks: 4 kept", "spec: spec.mlir"])
    suite.write("other.mlir", ops.matmul(m=32, n=64, k=64).text)
    outcome = suite.run("other.mlir", "--tune-guard", "spec.mlir", "-k", "applies")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["1 entry, checks: 1 broken"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune-guard=none.mlir"], "*--tune-guard: *none.mlir cannot be read: No such file*"),
        (["--tune-guard=test_suite.py", "--tune"], "*--tune-guard: it is for checking specs, and --tune makes one*"),
        (["--tune-strict", "--tune"], "*--tune-strict: it is for checking specs, and --tune makes one*"),
        (["--tune", "--tune-tolerance=4%"], "*--tune-tolerance: it is for checking specs, and --tune makes one*"),
        (["--tune-tolerance=4"], "*--tune-tolerance: '4' is no share*"),
        (["--tune-guard-route=both"], "*--tune-guard-route: unknown route 'both'; there is compile and flag"),
        (["--tune-report-md=none/r.md"], "*--tune-report-md: *none/r.md is not a file in an existing directory*"),
    ],
)
def test_what_cannot_be_met_is_a_usage_error(make_suite: MakeSuite, arguments: list[str], message: str) -> None:
    suite = make_suite({"test_suite.py": "def test_nothing(): pass\n"})
    outcome = suite.run(*arguments)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    outcome.lines.fnmatch_lines([message])


def test_without_a_snapshot_a_run_says_how_to_make_one_and_never_loads_the_compiler(make_suite: MakeSuite) -> None:
    conftest = """
import sys

def pytest_unconfigure():
    loaded = [name for name in sys.modules if name.startswith(("iree.compiler.ir", "iree.compiler._mlir", "sklearn"))]
    print("loaded:", loaded)
"""
    test = """
import pytest

@pytest.mark.tune("model.mlir")
def test_dispatch(candidate, artifact, measurement):
    pass
"""
    suite = make_suite({"conftest.py": conftest, "test_suite.py": test, "model.mlir": "module {}"})
    suite.habits = suite.plugins = ()
    outcome = suite.run("-rs", "-s", "--tune-target=cuda:sm_89")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(
        [
            "SKIPPED *no snapshot for cuda:sm_89 to guard: pytest test_suite.py --tune --tune-target=cuda:sm_89 *",
            "loaded: []",
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-pno:xdist", "-n2"])
def test_an_input_that_cannot_be_read_is_told_and_its_entry_is_nobody_elses(
    make_suite: MakeSuite, winner: WinnerRecord, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """An entry that is for no test is told to be taken out, which would be wrong of one whose model was moved."""
    other = SUITE.replace("ops.matmul(m=64, n=64, k=64)", "'moved.mlir'")
    suite = guarded(make_suite, winner, {"test_other.py": other})
    (spec,) = (suite.directory / "__specs__").glob("*.mlir")
    moved = record_of(ops.matmul(m=48, n=64, k=64))
    write_spec(spec, [*read_records(spec), moved])
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(suite.directory))
    outcome = suite.run("-v", "-k", "input or applies", "--tune-report-md=report.md", workers)
    assert outcome.status == 1, outcome.text
    assert moved.dispatch not in outcome.text
    test, told = "test_other.py::test_dispatch[[]input[]]", "there is no file */moved.mlir"
    outcome.lines.fnmatch_lines(
        [
            "1 entry, checks: 1 kept; 1 failed without a verdict",
            "failed without a verdict:",
            f"  {test}: {told}",
            f"::error file=test_other.py,line=*,title=shark-tune%3A {test.replace(':', '%3A')} failed::{told}",
        ]
    )
    report = pytest.LineMatcher((suite.directory / "report.md").read_text(encoding="utf-8").splitlines())
    report.fnmatch_lines(
        [
            "[*][*]shark-tune guard[*][*]: 1 entry, checks: 1 kept; 1 failed without a verdict (*",
            f"- * `{test}`: {told}",
        ]
    )


@pytest.mark.slow
def test_a_test_that_ends_its_worker_or_fails_by_itself_is_told(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    body = """
    import os

    if candidate.guarded.check == "parses":
        os._exit(3)
    assert candidate.guarded.check != "allowed", "our own check"
"""
    suite = guarded(make_suite, winner, {"test_suite.py": SUITE.replace("    pass\n", body)})
    outcome = suite.run("-k", "parses or allowed or applies", "-n2")
    assert outcome.status == 1, outcome.text
    outcome.lines.fnmatch_lines(
        [
            "1 entry, checks: 1 kept; 2 failed without a verdict",
            "failed without a verdict:",
            f"  test_suite.py::test_dispatch[[]{NAME}-allowed[]]: AssertionError: our own check",
            f"  test_suite.py::test_dispatch[[]{NAME}-parses[]]: worker 'gw*' crashed while running *",
        ]
    )


@pytest.mark.slow
def test_a_file_that_cannot_be_collected_is_told(make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"suite/test_suite.py": "import no_such_module\n", "suite/__specs__/llvm-cpu-x.mlir": "module {}"}
    suite = make_suite({**files, "test_plain.py": "import another_such_module\n"})
    suite.habits = ()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(suite.directory))
    outcome = suite.run("-pno:xdist")
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.text
    told = "ModuleNotFoundError: No module named 'no_such_module'"
    outcome.lines.fnmatch_lines(
        [
            "nothing was guarded; 1 failed without a verdict",
            f"  suite/test_suite.py: {told}",
            f"::error file=suite/test_suite.py,title=shark-tune%3A suite/test_suite.py failed::{told}",
        ]
    )
    assert not [line for line in outcome.text.splitlines() if line.startswith("::error file=test_plain.py")]


@pytest.mark.slow
def test_a_spec_that_is_named_is_held_against_its_own_target(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    suite = make_suite({"model.mlir": SOURCE.text})
    suite.habits = ()
    write_spec(suite.directory / "spec.mlir", [msgspec.structs.replace(winner, target="hip:gfx942")])
    arguments = ("model.mlir", "--tune-guard=spec.mlir", "-k", "input or applies")
    outcome = suite.run(*arguments)
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(
        ["--tune-guard: by its records *spec.mlir is not for llvm-cpu: give --tune-target=hip:gfx942"]
    )
    outcome = suite.run(*arguments, "--tune-target=llvm-cpu")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["1 entry, checks: 1 kept"])


@pytest.mark.slow
def test_a_spec_in_the_ini_file_is_for_runs_that_guard(make_suite: MakeSuite) -> None:
    ini = "[pytest]\ntune_guard = specs/x.mlir\ntune_report_md = specs/report.md\n"
    files = {"pytest.ini": ini, "specs/x.mlir": "module {}", "sub/test_plain.py": "def test_nothing(): pass\n"}
    suite = make_suite(files)
    report = suite.directory / "specs" / "report.md"
    suite.habits, suite.directory = (), suite.directory / "sub"
    outcome = suite.run("--tune-strict")
    assert outcome.status == 0, outcome.text
    assert report.read_text(encoding="utf-8") == "**shark-tune guard**: nothing was guarded.\n"
    outcome = suite.run("--tune-guard=../specs/x.mlir")
    assert outcome.status == 1, outcome.text
    outcome.lines.fnmatch_lines(["--tune-guard: no test that is marked tune, and no model, ran: nothing was guarded"])


def test_a_strict_run_that_finds_no_snapshot_fails(make_suite: MakeSuite) -> None:
    test = SUITE.replace("ops.matmul(m=64, n=64, k=64)", "'model.mlir'")
    suite = make_suite({"test_suite.py": test, "model.mlir": "module {}"})
    suite.habits = ()
    outcome = suite.run("--tune-strict", "--tune-target=cuda:sm_89")
    assert outcome.status == 1, outcome.text
    outcome.lines.fnmatch_lines(
        [
            "--tune-strict: no test that is marked tune has a snapshot for cuda:sm_89: nothing was guarded.*",
            "*1 skipped*",
        ]
    )


def test_a_kernel_has_nothing_to_guard(make_suite: MakeSuite) -> None:
    test = """
import pytest
from pytest_shark_tune import CustomTask, SearchSpace

@pytest.mark.tune(CustomTask(name="kernel", space=SearchSpace.of("Ours", {"a": (1, 2)}), default={"a": 1}))
def test_kernel(candidate, artifact, measurement):
    pass
"""
    suite = make_suite({"test_suite.py": test, "__specs__/llvm-cpu-cortex.mlir": "module {}"})
    suite.habits = ()
    outcome = suite.run("-rs")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["SKIPPED *kernel is a kernel of the suite's own, so no spec has an entry to guard*"])


@pytest.mark.slow
def test_ctrl_c_ends_the_children_and_reports_what_is_known(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    suite = guarded(make_suite, winner, {"conftest.py": HANGING})
    running = suite.start("-v", "--tune-report-md=report.md", "-k", "parses or correct")
    end = time.monotonic() + 120
    while not (suite.directory / "begun").exists():
        assert time.monotonic() < end
        assert running.process.poll() is None
        time.sleep(0.05)
    outcome = running.interrupt(everyone=False)
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    assert running.survivors() == []
    assert running.litter() == []
    report = (suite.directory / "report.md").read_text(encoding="utf-8")
    assert "1 kept" in report
    assert "The run ended early" in report


HANGING = """
import time
from pathlib import Path

import pytest

@pytest.fixture
def measurement(candidate, artifact, tune_session):
    if candidate.config is None:
        return None
    tune_session.runner.measure(candidate.task, candidate.config, artifact)  # From here on a child holds the device.
    Path("begun").touch()
    time.sleep(600)
"""


@pytest.mark.slow
def test_two_models_that_records_cannot_tell_apart_are_refused(make_suite: MakeSuite, winner: WinnerRecord) -> None:
    test = '@pytest.mark.tune("{0}/model.mlir")\ndef test_{0}(candidate, artifact, measurement): pass\n'
    files = {f"{directory}/model.mlir": ops.matmul(m=64, n=64, k=k).text for directory, k in (("a", 64), ("b", 32))}
    files["test_suite.py"] = f"import pytest\n{test.format('a')}{test.format('b')}"
    other = guarded(make_suite, winner, files)
    assert "[input]" not in other.run("--collect-only", "-q").text, "its records tell of neither"
    ours = msgspec.structs.replace(winner, ops=tuple(RecordedOp("model", each.symbol) for each in winner.ops))
    suite = guarded(make_suite, ours, files)
    outcome = suite.run("-k", "input")
    assert outcome.status == 1
    message = "model is the name of two different models here, and records beside *.mlir tell models by their names: *"
    outcome.lines.fnmatch_lines(["*ERROR at setup of test_b[[]input[]]*", message, "*deselected, 1 error in *"])
