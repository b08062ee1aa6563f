"""Moved to `pytest_shark_tune.measurement.timing`."""

from pytest_shark_tune.measurement import timing
from pytest_shark_tune.stages import redirect

redirect(__name__, timing)
