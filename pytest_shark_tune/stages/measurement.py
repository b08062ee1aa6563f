"""Moved to `pytest_shark_tune.measurement.timing` and `pytest_shark_tune.measurement.rounds`."""

from pytest_shark_tune.measurement import rounds, timing
from pytest_shark_tune.stages import redirect

redirect(__name__, timing, rounds)
