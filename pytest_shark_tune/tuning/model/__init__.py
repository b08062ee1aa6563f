"""Whole models: their profiles, their finals, and their runs with a spec."""

from pytest_shark_tune.tuning.model.final import ModelFinal
from pytest_shark_tune.tuning.model.profile import Profiler
from pytest_shark_tune.tuning.model.runner import ModelRunner

__all__ = ["ModelFinal", "ModelRunner", "Profiler"]
