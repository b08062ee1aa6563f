"""Moved to `pytest_shark_tune.measurement.correctness` and `pytest_shark_tune.measurement.acceptance`."""

from pytest_shark_tune.measurement import acceptance, correctness
from pytest_shark_tune.stages import redirect

redirect(__name__, correctness, acceptance)
