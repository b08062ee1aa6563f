"""Clients that define a stage of their own in a conftest.py; and candidates that crash or hang."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome

NAME = "matmul_32x32x32_f32"
SUITE = suite_text("ops.matmul(m=32, n=32, k=32)")

OWN_TIMES = """
import pytest
from pytest_shark_tune.measurement.timing import compare
from pytest_shark_tune.plugin.cases import Role

@pytest.fixture
def measurement(candidate, artifact, request):
    if candidate.role not in (Role.DEFAULT, Role.CANDIDATE):
        return request.getfixturevalue("tune_session").finals.hold(candidate.known_task) if candidate.task else None
    assert artifact.vmfb
    return compare(lambda batch: batch * 2e-3, lambda batch: batch * 3e-3)
"""

OWN_ARTIFACTS = """
import pytest
from pytest_shark_tune.errors import CandidateFailed

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config is not None and candidate.knobs:
        raise CandidateFailed("compile_failed", "our kernel compiler has no such tile")
    return artifact
"""

# Stops the child that holds the device as a candidate's result is to be checked, and for one candidate kills it then.
TROUBLE = """
import os
import signal
import threading

import pytest
from pytest_shark_tune.device.client import DeviceChild

tried = []
trouble = []
real_check = DeviceChild.check

def check(self, key, *arguments, **named):
    if key == "candidate" and trouble:
        os.kill(self.pid, signal.SIGSTOP)
        if trouble.pop() == "crash":
            threading.Timer(0.5, os.kill, (self.pid, signal.SIGKILL)).start()
    return real_check(self, key, *arguments, **named)

DeviceChild.check = check

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config is not None and candidate.knobs:
        tried.append(candidate.id)
        if len(tried) in (1, 3):
            trouble.append("crash" if len(tried) == 1 else "hang")
    return artifact
"""


def tuned(make_suite: MakeSuite, conftest: str, *arguments: str) -> Outcome:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": conftest})
    return suite.tune("-v", "-ra", "--tune-trials=3", *arguments)


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_measurement_of_the_clients_own_is_recorded(make_suite: MakeSuite, workers: str) -> None:
    outcome = tuned(make_suite, OWN_TIMES, workers, "-k", "not final")
    assert outcome.status == 0, outcome.text
    assert [each["state"] for each in outcome.records] == ["measured"] * 4
    for record in outcome.records:
        assert record["ratio"] == pytest.approx(1.5, abs=1e-4)
        assert set(record["samples_us"]) == {2000.0}
        assert set(record["baseline_samples_us"]) == {3000.0}
    outcome.lines.fnmatch_lines(
        ["*test_dispatch*1.50x (2 ms)*" if workers == "-n0" else "*1.50x (2 ms) *test_dispatch*"]
    )


def test_an_artifact_of_the_clients_own_is_recorded(make_suite: MakeSuite) -> None:
    outcome = tuned(make_suite, OWN_ARTIFACTS, "-k", "not final and not spec")
    assert outcome.status == 0, outcome.text
    states = {each["id"]: (each["state"], each["reason"]) for each in outcome.records}
    assert states.pop("default") == ("measured", "")
    assert set(states.values()) == {("compile_failed", "our kernel compiler has no such tile")}
    outcome.lines.fnmatch_lines(
        [
            "    3 compile_failed: our kernel compiler has no such tile (*)",
            "SKIPPED [[]3[]]*compile_failed: our kernel compiler has no such tile",
        ]
    )
    assert outcome.dispatch(NAME)["compiled"] == 0


@pytest.mark.slow  # It waits for the watchdog.
def test_candidates_that_crash_and_hang_do_not_end_the_run(make_suite: MakeSuite) -> None:
    outcome = tuned(make_suite, TROUBLE, "-k", "not final and not spec")
    assert outcome.status == 0, outcome.text
    assert [each["state"] for each in outcome.records] == ["measured", "run_failed", "measured", "run_timeout"]
    _, crashed, _, hung = outcome.records
    assert "SIGKILL" in crashed["reason"]
    assert "no answer within" in hung["reason"]
    row = outcome.dispatch(NAME)
    assert (row["applied"], row["ran"], row["measured"]) == (3, 1, 1)
    outcome.lines.fnmatch_lines(
        [
            "*SKIPPED*run_failed: *",
            "*SKIPPED*run_timeout: *",
            f"    1 run_failed: the child process was ended by SIGKILL* ({crashed['id']})",
            f"    1 run_timeout: the child process gave no answer within * ({hung['id']})",
        ]
    )


def test_a_default_that_cannot_be_measured_fails_its_test(make_suite: MakeSuite) -> None:
    conftest = OWN_ARTIFACTS.replace("and candidate.knobs", "and not candidate.knobs")
    outcome = tuned(make_suite, conftest, "-k", "default")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines([f"ERROR test_suite.py::test_dispatch[[]{NAME}-default[]]*"])
    assert "Traceback" not in outcome.text
    assert [each["state"] for each in outcome.records] == ["compile_failed"]
    assert outcome.dispatch(NAME)["reason"].startswith("the default config failed: compile_failed: our kernel")


def test_an_error_in_a_fixture_of_the_clients_own_is_an_error_as_ever(make_suite: MakeSuite) -> None:
    outcome = tuned(make_suite, OWN_ARTIFACTS.replace("raise CandidateFailed", "oops"), "-k", "not final and not spec")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["*NameError: name 'oops' is not defined", "*1 passed*3 errors*"])
    assert [each["id"] for each in outcome.records] == ["default"]
