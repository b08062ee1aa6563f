"""Moved to `pytest_shark_tune.search`."""

import sys
import warnings

from pytest_shark_tune import search

warnings.warn(
    "pytest_shark_tune.stages.search is pytest_shark_tune.search now; the old path goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = search
