"""Ctrl-C, SIGTERM and SIGKILL in the middle of a run: what was measured is kept, and nothing lives on."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.system.directories import make_marked
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Running

NAME = "matmul_53x59x61_f32"
ALL = 40 + 3
"""The tests of a run of 40 candidates: the default, the final and the check of the spec are run, too."""
# IREE's default for prime sizes is many times slower than nearly any other config.
SUITE = suite_text("ops.matmul(m=53, n=59, k=61)")


BROKEN = """
import pytest

@pytest.fixture
def artifact(candidate, artifact):
    assert candidate.role != "candidate"
    return artifact
"""


@pytest.mark.parametrize(
    ("workers", "everyone"),
    [
        pytest.param("-n0", False, id="n0"),
        pytest.param("-n2", True, id="n2-all", marks=pytest.mark.slow),
        pytest.param("-n2", False, id="n2-controller", marks=pytest.mark.slow),
    ],
)
def test_what_was_measured_is_kept(make_suite: MakeSuite, workers: str, everyone: bool) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.write(".tune/spec.mlir", "// of a run long ago\n")
    running = suite.start("--tune", workers, "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(3)
    outcome = running.interrupt(everyone=everyone)
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.text
    check_end(running, outcome, "Ctrl-C")
    assert not (suite.directory / "__specs__").exists(), "a snapshot holds what was verified only"


def check_end(running: Running, outcome: Outcome, why: str) -> None:
    """The run ended in good order, before all was tried, and has said why."""
    assert running.survivors() == []
    assert running.litter() == []
    assert "Traceback" not in outcome.text
    assert "INTERNALERROR" not in outcome.text
    outcome.lines.fnmatch_lines([f"the run ended early: {why}; * of its tests were not run to their end"])
    assert 3 <= len(outcome.records) < 41
    # A test whose record is written may not have ended yet, with two workers two of them.
    left = ALL - len(outcome.records)
    assert left <= outcome.unfinished <= left + 2
    assert outcome.summary["run"]["complete"] is False
    row = outcome.dispatch(NAME)
    assert row["measured"] == sum(bool(each["samples_us"]) and each["id"] != "default" for each in outcome.records)
    assert (row["winner"] is None) == (not (outcome.out / "spec.mlir").exists())
    if row["winner"] is not None:
        assert row["reason"].startswith("provisional: ")
        assert [each.matcher for each in read_spec((outcome.out / "spec.mlir").read_text())] == [f"match_{NAME}"]


# Presses Ctrl-C again, each time at a point where the first one is being dealt with.
AGAIN = """
import os
import signal
import sys

def press():
    os.kill(os.getpid(), signal.SIGINT)

def pytest_keyboard_interrupt(excinfo):
    if "handled" in {moments}:
        press()

def hear(event, arguments):
    # The spec is put in its place, or an old one goes.
    if event in ("os.rename", "os.remove") and str(arguments[event == "os.rename"]).endswith("/spec.mlir"):
        press()

if "derived" in {moments} and "PYTEST_XDIST_WORKER" not in os.environ:
    sys.addaudithook(hear)
"""


@pytest.mark.parametrize(
    ("workers", "moment"),
    [
        ("-n0", "derived"),
        pytest.param("-n0", "handled", marks=pytest.mark.slow),
        pytest.param("-n2", "derived", marks=pytest.mark.slow),
    ],
)
def test_a_second_interrupt_breaks_nothing_off(make_suite: MakeSuite, workers: str, moment: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": AGAIN.format(moments=[moment])})
    running = suite.start("--tune", workers, "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(3)
    outcome = running.interrupt(everyone=False)
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.text
    check_end(running, outcome, "Ctrl-C")
    outcome.lines.fnmatch_lines(["shark-tune: the run is ending and writes its results; another interrupt ends it *"])


@pytest.mark.slow
def test_a_third_interrupt_ends_the_run_at_once(make_suite: MakeSuite) -> None:
    conftest = AGAIN.format(moments=["handled", "derived"])
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": conftest})
    suite.write(".tune/spec.mlir", "// of a run long ago\n")
    running = suite.start("--tune", "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(2)
    outcome = running.interrupt(everyone=False)
    assert outcome.status == -signal.SIGINT
    assert running.survivors() == []
    assert running.litter() == []
    assert (outcome.out / "spec.mlir").read_text() == "// of a run long ago\n"


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        ("-n0", signal.SIGTERM),
        *(
            pytest.param(workers, number, marks=pytest.mark.slow)
            for workers, number in (("-n2", signal.SIGTERM), ("-n0", signal.SIGHUP), ("-n2", signal.SIGHUP))
        ),
    ],
)
def test_termination_ends_a_run_as_an_interrupt_does(
    make_suite: MakeSuite, workers: str, number: signal.Signals
) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    running = suite.start("--tune", workers, "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(3)
    running.process.send_signal(number)
    outcome = running.finish()
    assert outcome.status == 128 + number, outcome.text
    check_end(running, outcome, number.name)


# Ends the worker that tries the first candidate, as a system that runs out of memory does.
ENDED = """
import os
import signal
import pytest

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config == candidate.known_task.candidates[0]:
        os.kill(os.getpid(), signal.SIGTERM)
    return artifact
"""


@pytest.mark.slow
def test_a_worker_that_is_terminated_is_replaced(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": ENDED})
    running = suite.start("--tune", "-n2", "--tune-trials=4", "-k", "not final and not spec")
    outcome = running.finish()
    assert outcome.status == 0, outcome.text
    assert len({each["id"] for each in outcome.records}) == 5
    (lost,) = [each["reason"] for each in outcome.records if each["state"] == "run_failed"]
    assert lost.endswith("that ran it crashed (SIGTERM)")
    assert running.litter() == []


# For the second candidate the compiler never ends.
STUCK = """
import pytest
from pytest_shark_tune.system import process

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config == candidate.known_task.candidates[1]:
        process.run(["sleep", "1000"], timeout_s=1000)
    return artifact
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_that_is_killed_leaves_nothing_running(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": STUCK})
    running = suite.start("--tune", workers, "--tune-trials=40", "--tune-jobs=1")
    running.wait_for_records(2)
    running.process.kill()
    # xdist gives a worker that lost its controller 15 seconds.
    assert running.survivors(within_s=20) == []
    running.finish()
    assert running.litter() == []
    assert [json.loads(line)["schema"] for line in (running.out / "records.jsonl").read_bytes().splitlines()[:2]] == [
        1,
        1,
    ]


@pytest.mark.slow
def test_what_a_killed_run_left_is_removed_by_the_next(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": "def test_nothing():\n    pass\n"})
    running = suite.start("--tune", "--collect-only")
    running.finish()
    stale, fresh = (make_marked("shark-tune-", running.temporary) for _ in range(2))
    os.utime(stale, (0, 0))
    assert suite.start("--tune", "--collect-only").finish().status == 0
    assert not stale.exists()
    assert fresh.exists(), "its process may have yet to lock it"


def test_the_first_failure_stops_the_run_with_x(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": f"def test_failing():\n    assert False\n\n{SUITE}"})
    outcome = suite.tune("-x", "--tune-trials=2")
    assert outcome.status == 1
    assert not outcome.out.exists()


@pytest.mark.slow
def test_a_run_cut_short_by_maxfail_is_not_complete(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": BROKEN})
    outcome = suite.tune("-x", "--tune-trials=2")
    assert outcome.status == 1
    assert outcome.summary["run"]["complete"] is False
