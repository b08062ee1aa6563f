"""Commands that time models."""

from pytest_shark_tune.commands.timing.bisect import bisect_model
from pytest_shark_tune.commands.timing.profile import profile_model

__all__ = ["bisect_model", "profile_model"]
