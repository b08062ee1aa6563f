"""Ctrl-C in the middle of a run: what was measured is kept, and nothing that the run started lives on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.stages.spec import read_spec

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

NAME = "matmul_53x59x61_f32"
# IREE's default for prime sizes is many times slower than nearly any other config.
SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=53, n=59, k=61))
def test_dispatch(candidate, artifact, measurement):
    pass
"""


@pytest.mark.parametrize(
    ("workers", "everyone"), [("-n0", False), ("-n2", True), ("-n2", False)], ids=["n0", "n2-all", "n2-controller"]
)
def test_what_was_measured_is_kept(make_suite: MakeSuite, workers: str, everyone: bool) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.write(".tune/spec.mlir", "// of a run long ago\n")
    running = suite.start("--tune", workers, "--tune-candidates=40", "--tune-jobs=1")
    running.wait_for_records(3)
    outcome = running.interrupt(everyone=everyone)
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.text
    assert running.survivors() == []
    assert running.litter() == []
    assert "Traceback" not in outcome.text
    assert "INTERNALERROR" not in outcome.text

    assert 3 <= len(outcome.records) < 41
    assert outcome.summary["run"]["complete"] is False
    row = outcome.dispatch(NAME)
    assert row["measured"] == sum(bool(each["samples_us"]) and each["id"] != "default" for each in outcome.records)
    assert (row["winner"] is None) == (not (outcome.out / "spec.mlir").exists())
    if row["winner"] is not None:
        assert row["reason"].startswith("provisional: ")
        assert [each.matcher for each in read_spec((outcome.out / "spec.mlir").read_text())] == [f"match_{NAME}"]
    assert not (suite.folder / "__specs__").exists(), "a snapshot holds what was verified only"


def test_the_first_failure_stops_the_run_with_x(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": f"def test_failing():\n    assert False\n\n{SUITE}"})
    outcome = suite.tune("-x", "--tune-candidates=2")
    assert outcome.status == 1
    assert not outcome.out.exists()


def test_a_run_cut_short_by_maxfail_is_not_complete(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": f"{SUITE}\ndef test_failing():\n    assert False\n"})
    outcome = suite.tune("-x", "-k", "default or failing or final", "--tune-candidates=2")
    assert outcome.status == 1
    assert outcome.summary["run"]["complete"] is False
