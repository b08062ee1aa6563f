"""Moved to `pytest_shark_tune.search`."""

from pytest_shark_tune import search
from pytest_shark_tune.stages import redirect

redirect(__name__, search)
