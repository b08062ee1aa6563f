"""Moved to `pytest_shark_tune.measurement.correctness`."""

from pytest_shark_tune.measurement import correctness
from pytest_shark_tune.stages import redirect

redirect(__name__, correctness)
