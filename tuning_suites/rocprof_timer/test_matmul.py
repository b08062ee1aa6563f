"""A dispatch that a profiler times: run `pytest tuning_suites/rocprof_timer --tune`."""

import pytest

from pytest_shark_tune import ops


@pytest.mark.tune(ops.matmul(m=64, n=64, k=64, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    """One test per pair of a dispatch and a candidate; the fixtures are the stages."""
