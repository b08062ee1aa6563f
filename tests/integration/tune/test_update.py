"""``--tune`` on a suite that has a snapshot: what holds is kept, the rest is tuned again, and what changed is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.ops import matmul
from pytest_shark_tune.records.snapshot import read_records, write_spec
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.spec.read import read_spec
from tests.models import suite_text
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

# IREE's defaults for prime sizes are many times slower than nearly any other config: there is always a winner.
ONE, TWO = "ops.matmul(m=53, n=59, k=61)", "ops.matmul(m=37, n=41, k=43)"
NAME, OTHER, GONE = "matmul_53x59x61_f32", "matmul_37x41x43_f32", "matmul_47x53x43_f32"
ARGUMENTS = ("-v", "--tune-trials=1")


def source(*ops: str) -> str:
    return suite_text(", ".join(ops))


@dataclass(frozen=True)
class Tuned:
    """A suite of one op that was tuned for the first time, and copies of it."""

    make_suite: MakeSuite
    suite: Suite
    outcome: Outcome

    def copy(self, *ops: str, with_gone: bool = False) -> Suite:
        """A suite of these ops, or of the same, in a directory of its own, with the snapshot.

        With ``with_gone`` the snapshot has an entry, too, for a dispatch that the suite does not have.
        """
        suite = self.make_suite({"test_suite.py": source(*(ops or (ONE,)))})
        suite.habits = self.suite.habits
        shutil.copytree(self.suite.directory / "__specs__", suite.directory / "__specs__")
        if with_gone:
            (record,) = read_records(snapshot(suite))
            write_spec(snapshot(suite), [gone(record), record])
        return suite


def gone(record: WinnerRecord) -> WinnerRecord:
    """The record of a matmul 47x53x43 with the figures of ``record``."""
    assert record.root is not None
    m, n, k = 47, 53, 43
    lhs, rhs, out = (Tensor(shape, "f32") for shape in ((m, k), (k, n), (m, n)))
    root = msgspec.structs.replace(record.root, loops=(m, n, k), inputs=(lhs, rhs), outputs=(out,))
    return msgspec.structs.replace(record, dispatch=GONE, root=root, ops=(RecordedOp(GONE, "matmul"),))


@pytest.fixture(scope="module")
def tuned(make_suite: MakeSuite) -> Tuned:
    suite = make_suite({"test_suite.py": source(ONE)})
    suite.habits = ("--tune-strategy=exhaustive",)
    # Fresh: what other tests found out about the same op would count as tried.
    return Tuned(make_suite, suite, suite.tune(*ARGUMENTS, "--tune-fresh"))


def snapshot(suite: Suite) -> Path:
    (spec,) = (suite.directory / "__specs__").glob("*.mlir")
    return spec


def state(suite: Suite) -> dict[str, tuple[int, bytes]]:
    """The files of a snapshot, each with what changes when it is written."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in snapshot(suite).parent.iterdir()}


def entries(suite: Suite) -> list[str]:
    """The dispatches in a snapshot, of which the spec and the records must tell the same."""
    names = [record.dispatch for record in read_records(snapshot(suite))]
    assert [f"match_{name}" for name in names] == [row.matcher for row in read_spec(snapshot(suite).read_text())]
    return names


def parts_run(outcome: Outcome) -> list[str]:
    """What the tests that ran are for, as their ids say."""
    return [place.partition("[")[2].rstrip("]") for place in outcome.verdicts if "::" in place]


def test_a_first_snapshot_is_new_and_says_how_it_was_made(tuned: Tuned) -> None:
    assert tuned.outcome.status == 0, tuned.outcome.text
    assert entries(tuned.suite) == [NAME]
    tuned.outcome.lines.fnmatch_lines([f"snapshot: {snapshot(tuned.suite)}", "    new snapshot"])
    (record,) = read_records(snapshot(tuned.suite))
    assert record.fingerprint
    assert record.content
    assert record.candidates == 1
    assert [op.source for op in record.ops] == [NAME]


def test_where_nothing_changed_nothing_is_tuned_or_written(tuned: Tuned) -> None:
    suite = tuned.copy()
    before = state(suite)
    again = suite.tune(*ARGUMENTS)
    assert again.status == 0, again.text
    assert parts_run(again) == ["spec"]
    assert state(suite) == before
    again.lines.fnmatch_lines(["shark-tune: 1 dispatch is kept: nothing changed since the snapshot was tuned (*"])
    again.lines.fnmatch_lines([f"{NAME}: kept: nothing changed since it was tuned (IREE *)", "snapshot: *.mlir"])
    assert not [line for line in again.text.splitlines() if line.startswith("    new snapshot")]
    assert read_spec((again.out / "spec.mlir").read_text()) == read_spec(snapshot(suite).read_text())
    row, first = again.dispatch(NAME), tuned.outcome.dispatch(NAME)
    metrics = ("winner", "knobs", "baseline_us", "best_us", "speedup", "speedup_low", "speedup_high")
    assert [row[key] for key in metrics] == [first[key] for key in metrics]
    assert (row["tried"], row["finalists"]) == (0, 0)


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_an_entry_whose_op_is_gone_is_dropped(tuned: Tuned, workers: str) -> None:
    suite = tuned.copy(with_gone=True)
    outcome = suite.tune(*ARGUMENTS, workers)
    assert parts_run(outcome) == ["spec"]
    assert entries(suite) == [NAME]
    removed = f"    {GONE}: removed (contraction 47x53x43 f32*): its dispatch is in the suite no more"
    outcome.lines.fnmatch_lines([f"snapshot: {snapshot(suite)}", removed])


@pytest.mark.slow
@pytest.mark.parametrize(
    "selection", [("test_suite.py::test_dispatch",), ("-k", "spec", "-n2"), ("--deselect", "the first")]
)
def test_no_entry_is_dropped_where_a_part_of_the_suite_was_collected(tuned: Tuned, selection: tuple[str, ...]) -> None:
    suite = tuned.copy(with_gone=True)
    if selection[0] == "--deselect":
        selection = ("--deselect", suite.collect()[0])
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS, *selection)
    assert parts_run(outcome) == ["spec"]
    assert state(suite) == before


SHORTENING = """
import pytest

@pytest.hookimpl({order}=True)
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "test_of_gone" not in item.name]
"""


def two_tests(body: str = "pass") -> str:
    """A file with a test of the suite's op, which does ``body``, and one of the op that only the snapshot knows."""
    second = source("ops.matmul(m=47, n=53, k=43)").partition("@")[2].replace("test_dispatch", "test_of_gone")
    return f"{source(ONE).replace('pass', body)}\n@{second}"


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("order", thinned(["tryfirst", "trylast"], every=2))
def test_a_hook_that_shortens_the_list_of_tests_costs_no_entry(tuned: Tuned, order: str, workers: str) -> None:
    """It leaves out tests without saying so to any plugin, and those that are left are whole."""
    suite = tuned.copy(with_gone=True)
    suite.write("test_suite.py", two_tests())
    suite.write("conftest.py", SHORTENING.format(order=order))
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS, workers)
    assert parts_run(outcome) == ["spec"], outcome.text
    assert state(suite) == before


def test_a_function_that_an_option_leaves_out_costs_no_entry(tuned: Tuned) -> None:
    suite = tuned.copy(with_gone=True)
    suite.write("test_suite.py", two_tests())
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS, "-o", "python_functions=test_dispatch")
    assert parts_run(outcome) == ["spec"], outcome.text
    assert state(suite) == before


def test_a_run_of_what_failed_last_costs_no_entry(tuned: Tuned) -> None:
    suite = tuned.copy(with_gone=True)
    suite.write("test_suite.py", two_tests("assert candidate.role != 'spec'"))
    before = state(suite)
    caching = (*ARGUMENTS, "-p", "cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    first = suite.tune(*caching, "-k", "not test_of_gone")
    assert (first.status, parts_run(first)) == (1, ["spec"]), first.text
    assert state(suite) == before
    suite.write("test_suite.py", two_tests())
    outcome = suite.tune(*caching, "--lf")
    assert (outcome.status, parts_run(outcome)) == (0, ["spec"]), outcome.text
    assert "run-last-failure" in outcome.text
    assert state(suite) == before


@pytest.mark.parametrize(
    "option", thinned(["--setup-plan", "--setup-only", "--collect-only", "--fixtures", "--markers"], every=3)
)
def test_a_run_that_only_shows_what_there_is_writes_nothing(tuned: Tuned, option: str) -> None:
    suite = tuned.copy(with_gone=True)
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS, option)
    assert outcome.status == 0, outcome.text
    assert state(suite) == before
    assert not outcome.out.exists()


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_run_of_some_tests_keeps_the_spec_of_all(tuned: Tuned, workers: str) -> None:
    suite = tuned.copy()
    spec = suite.tune(*ARGUMENTS).out / "spec.mlir"
    before = spec.read_bytes()
    outcome = suite.tune(*ARGUMENTS, "--tune-fresh", "-k", "default", workers)
    assert (outcome.status, parts_run(outcome)) == (0, [f"{NAME}-default"]), outcome.text
    assert spec.read_bytes() == before
    outcome.lines.fnmatch_lines([f"spec: {spec} stays as an earlier run left it", "    this run left out tests, *"])


@pytest.mark.slow
def test_marks_one_above_the_other_are_tuned_together(tuned: Tuned) -> None:
    suite = tuned.copy()
    marks = f"@pytest.mark.tune({TWO}, {ONE})\n@pytest.mark.tune({ONE})\n"
    suite.write("test_suite.py", source(ONE).replace(f"@pytest.mark.tune({ONE})\n", marks))
    named = {each.partition("[")[2].partition("-")[0].rstrip("]") for each in suite.collect()}
    assert named == {NAME, OTHER, "spec"}
    spec = suite.run("-v", "--tune-guard", str(snapshot(suite)), "--collect-only", "-q")
    assert spec.status == 0, spec.text


@pytest.mark.slow
def test_an_op_that_is_new_is_all_that_is_tuned(tuned: Tuned) -> None:
    suite = tuned.copy(TWO, ONE, with_gone=True)
    outcome = suite.tune(*ARGUMENTS, "-n2")
    assert outcome.status == 0, outcome.text
    assert {record["dispatch"] for record in outcome.records} == {OTHER}
    assert not [part for part in parts_run(outcome) if part.startswith(NAME)]
    assert entries(suite) == [NAME, OTHER], "what was there keeps its place"
    outcome.lines.fnmatch_lines(["shark-tune: 1 dispatch is kept: *"])
    outcome.lines.fnmatch_lines([f"    {OTHER}: added (*x)", f"    {GONE}: removed (*"])


@pytest.mark.slow
def test_another_flag_is_a_reason_to_tune_again_and_leaves_other_entries_alone(tuned: Tuned) -> None:
    suite = tuned.copy(with_gone=True)
    other, record = read_records(snapshot(suite))
    flag = "--iree-compile-flag=--iree-opt-level=O1"
    outcome = suite.tune(*ARGUMENTS, flag, "test_suite.py::test_dispatch")
    assert outcome.status == 0, outcome.text
    reason = "flags, driver, the choice of configs or the way of measuring changed"
    outcome.lines.fnmatch_lines([f"shark-tune: retuning {NAME}: {reason}"])
    assert [each["id"] for each in outcome.records] == ["default", record.id]
    assert read_records(snapshot(suite))[0] == other
    anew = read_records(snapshot(suite))[1]
    assert (anew.dispatch, anew.id) == (NAME, record.id)
    assert anew.fingerprint != record.fingerprint
    outcome.lines.fnmatch_lines([f"snapshot: {snapshot(suite)}", "    measured again, with the same configs"])


@pytest.mark.slow
def test_what_won_is_tried_first_and_comes_to_the_final(tuned: Tuned) -> None:
    """A candidate that the search would come to last is made the winner of an older IREE."""
    suite = tuned.copy()
    late = [part.rpartition("-")[2].rstrip("]") for part in suite.collect()][-3]
    measured = suite.tune("-v", "--tune-trials=1", "-k", f"{NAME}-default or {late}", "--tune-fresh", out="late")
    (found,) = [record for record in measured.records if record["id"] == late]
    (record,) = read_records(snapshot(suite))
    forged = {"id": late, "iree": "3.12.0", "knobs": found["knobs"], "compilation_info": ""}
    line = json.loads(snapshot(suite).with_suffix(".jsonl").read_text()) | forged
    snapshot(suite).with_suffix(".jsonl").write_text(json.dumps(line) + "\n")
    outcome = suite.tune("-v", "--tune-trials=6", "--tune-fresh")
    assert [each["id"] for each in outcome.records][1] == late
    assert record.id in {each["id"] for each in outcome.records}
    (tried,) = [each for each in outcome.records if each["id"] == late]
    final = json.loads((outcome.out / "finals.jsonl").read_text())
    assert (late in {each["id"] for each in final["finalists"]}) == ((tried["ratio_high"] or 0) > 1)


@pytest.mark.slow
def test_a_fresh_run_tunes_everything_again(tuned: Tuned) -> None:
    suite = tuned.copy()
    outcome = suite.tune(*ARGUMENTS, "--tune-fresh")
    assert outcome.status == 0, outcome.text
    assert [each["id"] for each in outcome.records] == ["default", read_records(snapshot(tuned.suite))[0].id]
    assert f"{NAME}-final" in parts_run(outcome)
    outcome.lines.no_fnmatch_line("shark-tune: *kept*")


@pytest.mark.slow
def test_what_won_on_another_device_is_tried_first(tuned: Tuned) -> None:
    suite = tuned.copy()
    (record,) = read_records(snapshot(suite))
    for path in list(snapshot(suite).parent.iterdir()):
        path.rename(path.with_name(f"llvm-cpu-other{path.suffix}"))
    outcome = suite.tune("-v", "--tune-trials=2", "-k", "not final and not spec")
    told = "shark-tune: what llvm-cpu-other.mlir, of another device, has for 1 dispatch is tried first"
    outcome.lines.fnmatch_lines([told])
    assert record.id in {each["id"] for each in outcome.records}


@pytest.mark.slow
def test_a_run_that_is_cut_short_changes_no_entry(tuned: Tuned) -> None:
    suite = tuned.copy(ONE, TWO, with_gone=True)
    before = state(suite)
    running = suite.start("--tune", "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(3)
    outcome = running.interrupt(everyone=True)
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.text
    assert state(suite) == before
    assert outcome.dispatch(NAME)["reason"]


@pytest.mark.slow
def test_an_entry_without_a_record_outlives_a_run(tuned: Tuned) -> None:
    suite = tuned.copy()
    (record,) = read_records(snapshot(suite))
    write_spec(snapshot(suite), [record, gone(record)])
    records = snapshot(suite).with_suffix(".jsonl")
    records.write_bytes(records.read_bytes().splitlines(keepends=True)[0])
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS)
    assert (outcome.status, parts_run(outcome)) == (0, ["spec"]), outcome.text
    assert state(suite) == before
    records.write_bytes(records.read_bytes() + b"<<<<<<< ours\n")
    before = state(suite)
    outcome = suite.tune(*ARGUMENTS)
    assert outcome.status == 1, outcome.text
    assert state(suite) == before
    why = f"updated: {records.name}:2 is no record, *"
    outcome.lines.fnmatch_lines([f"shark-tune: {snapshot(suite)} will not be {why}", "snapshot: *", f"    not {why}"])


@pytest.mark.slow
def test_a_winner_in_a_model_that_was_not_measured_whole_is_not_in_the_snapshot(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": source('"model.mlir"'), "model.mlir": matmul(m=53, n=59, k=61).text})
    outcome = suite.tune(*ARGUMENTS, "-k", "not end-to-end")
    assert outcome.status == 0, outcome.text
    assert outcome.dispatch(NAME)["winner"]
    why = "[[]model-end-to-end[]] gave no result, *"
    outcome.lines.fnmatch_lines(["snapshot: *.mlir is not written", f"    not updated with {NAME}: {why}"])
    assert not (suite.directory / "__specs__").exists()


@pytest.mark.slow
def test_suites_that_share_a_dispatch_each_get_its_entry(make_suite: MakeSuite, tuned: Tuned) -> None:
    suite = make_suite({"a/test_a.py": source(ONE), "b/test_b.py": source(ONE)})
    suite.habits = tuned.suite.habits
    assert suite.tune(*ARGUMENTS, "--tune-fresh").status == 0
    specs = sorted(suite.directory.glob("*/__specs__/*.mlir"))
    assert [path.parent.parent.name for path in specs] == ["a", "b"]
    assert specs[0].read_bytes() == specs[1].read_bytes()
    again = suite.tune(*ARGUMENTS)
    assert parts_run(again) == ["spec", "spec"]
