"""A model whose dispatches are tuned for what they do to it: run `pytest tuning_suites/two_stage --tune`."""

import pytest


@pytest.mark.tune("two_layers.mlir")
def test_dispatch(candidate, artifact, measurement):
    """One test per pair of a dispatch and a candidate; the fixtures are the stages."""
