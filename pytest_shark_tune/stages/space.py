"""Moved to `pytest_shark_tune.search_space`."""

from pytest_shark_tune import search_space
from pytest_shark_tune.stages import redirect

redirect(__name__, search_space)
