"""What a run with ``-v`` shows behind a test that passed."""

from __future__ import annotations

import pytest

from pytest_shark_tune.plugin.tune.reports import result_status
from pytest_shark_tune.results.result import TestResult
from tests.factories import make_record


@pytest.mark.parametrize(
    ("samples_us", "status"), [((9.0, 7.0, 8.0), "1.20x (8 us)"), ((), "1.20x (-)")], ids=["ours", "a client's"]
)
def test_a_measured_candidate_is_shown_with_its_time_if_it_has_one(samples_us: tuple[float, ...], status: str) -> None:
    record = make_record("aaaaaa", ratio=1.2, samples_us=samples_us)
    assert result_status(TestResult(plan="plan", suite="", record=record)) == status
