"""Moved to `pytest_shark_tune.measurement.correctness`."""

import sys
import warnings

from pytest_shark_tune.measurement import correctness

warnings.warn(
    "pytest_shark_tune.stages.check is pytest_shark_tune.measurement.correctness now; "
    "the old path goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = correctness
