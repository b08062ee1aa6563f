"""Moved to `pytest_shark_tune.measurement.timing`."""

import sys
import warnings

from pytest_shark_tune.measurement import timing

warnings.warn(
    "pytest_shark_tune.stages.measurement is pytest_shark_tune.measurement.timing now; "
    "the old path goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = timing
