"""Commands to begin with: what can be tuned here, and a suite for a model."""

from pytest_shark_tune.commands.start.info import info
from pytest_shark_tune.commands.start.init import init

__all__ = ["info", "init"]
