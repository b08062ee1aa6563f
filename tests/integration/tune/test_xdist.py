"""What only happens with workers: a worker that is lost, and what it had held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

SUITE = """
import os
import pytest
from pytest_shark_tune import ops

def test_deadly():
    os._exit(1)

@pytest.mark.tune(ops.matmul(m=16, n=16, k=16))
def test_dispatch(candidate, artifact, measurement):
    pass
"""


def test_a_lost_worker_loses_only_what_it_was_running(make_suite: MakeSuite) -> None:
    outcome = make_suite({"test_suite.py": SUITE}).tune("-n2", "--tune-trials=3", "-k", "not final and not spec")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["FAILED test_suite.py::test_deadly*", "*1 failed, 4 passed*"])
    assert {each["state"] for each in outcome.records} <= {"measured", "duplicate"}
    assert len({each["id"] for each in outcome.records}) == 4
    assert outcome.summary["run"]["complete"] is True


@pytest.mark.slow
def test_auto_means_a_worker_for_each_device(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE.replace("os._exit(1)", "pass")})
    outcome = suite.tune("-nauto", "--tune-trials=1", "-k", "deadly or default")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["created: 1/1 worker", "*2 passed in *"])
