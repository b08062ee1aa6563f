"""Two stages: candidates are timed alone, and the best of each dispatch compete in the whole model."""

import pytest


@pytest.fixture
def measurement(candidate, tune_dispatch, artifact):
    """The stage that times: in a final the winner is the one that makes the model fastest."""
    if candidate.role == "final":
        return tune_dispatch.compare_in_model()
    return tune_dispatch.measure(artifact)
