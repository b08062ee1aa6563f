"""A model, with its dispatches tuned for the time of the whole model: run `pytest tuning_suites/two_stage --tune`."""

import pytest


@pytest.mark.tune("two_layers.mlir")
def test_dispatch(candidate, artifact, measurement):
    """One test per pair of a dispatch and a candidate; the fixtures are the stages."""
