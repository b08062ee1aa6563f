"""Workers in other directories than their controller's, as on other hosts: over loopback, with two execnet gateways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import MakeSuite, Suite

SUITE = """
import os
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=64, n=64, k=64, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    assert os.path.basename(os.getcwd()) in ("A", "B")
"""
# Stands for a host that does not see the directory.
ELSEWHERE = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure_node(node):
    node.workerinput["shark_tune_run_directory"] = "/nowhere"
"""


def gateways(suite: Suite, tmp_path: Path) -> list[str]:
    """Options that start a worker in each of two directories that hold a copy of the suite."""
    options = ["--dist=load", "-o", "testpaths=suite"]
    for name in ("A", "B"):
        (tmp_path / name / "suite").mkdir(parents=True)
        for file in ("pytest.ini", "suite/test_suite.py"):
            (tmp_path / name / file).write_bytes((suite.directory / file).read_bytes())
        options += ["--tx", f"popen//chdir={tmp_path / name}"]
    return options


@pytest.mark.slow
def test_workers_in_other_directories_tune_the_controllers_suite(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"suite/test_suite.py": SUITE})
    # The controller's own paths are relative: they mean the same directories for all.
    options = ["--tune-trials=3", "--tune-cache=../shared", "-k", "not spec"]
    outcome = suite.tune(*gateways(suite, tmp_path), *options, out="out")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["created: 2/2 workers", "*5 passed*"])
    assert len(outcome.records) == 4
    # The final was held by a worker, from the records of both.
    row = outcome.dispatch("matmul_64x64x64_f32")
    assert "no final" not in row["reason"]
    assert not list(suite.directory.parent.glob("shared/runs/*")), "what only the run needed is gone"
    assert not any((tmp_path / name / "out").exists() for name in ("A", "B"))


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_shared_directory_says_so(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"suite/test_suite.py": SUITE, "conftest.py": ELSEWHERE})
    outcome = suite.tune(*gateways(suite, tmp_path), out="out")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    outcome.lines.fnmatch_lines(["*gw?: --tune-cache: there is no /nowhere on *directory that all workers share*"])
