"""Moved to `pytest_shark_tune.search_space`."""

import sys
import warnings

from pytest_shark_tune import search_space

warnings.warn(
    "pytest_shark_tune.stages.space is pytest_shark_tune.search_space now; the old path goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = search_space
