"""A dispatch with a compile step of our own: run `pytest tuning_suites/compile_step --tune`."""

import pytest

from pytest_shark_tune import ops


@pytest.mark.tune(ops.matmul(m=128, n=128, k=128, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    """One test per pair of a dispatch and a candidate; the fixtures are the stages."""
