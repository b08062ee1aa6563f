"""Whole models: their forms, their profiles, their finals, and their runs with a spec."""

from pytest_shark_tune.tuning.model.final import ModelFinal
from pytest_shark_tune.tuning.model.form_final import FormFinals
from pytest_shark_tune.tuning.model.form_plans import FormPlanner
from pytest_shark_tune.tuning.model.form_results import FormDatabase
from pytest_shark_tune.tuning.model.forms import FormRace
from pytest_shark_tune.tuning.model.profile import Profiler
from pytest_shark_tune.tuning.model.runner import ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels

__all__ = [
    "FormDatabase",
    "FormFinals",
    "FormPlanner",
    "FormRace",
    "ModelFinal",
    "ModelRunner",
    "Profiler",
    "UntunedModels",
]
