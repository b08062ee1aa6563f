"""Old paths of public names go on working for one release."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("stages.check", "measurement.correctness", "tolerance_for"),
        ("stages.check", "measurement.acceptance", "Acceptance"),
        ("stages.measurement", "measurement.timing", "calibrate"),
        ("stages.measurement", "measurement.rounds", "combine_rounds"),
        ("stages.search", "search", "ModelSearch"),
        ("stages.space", "search_space", "SearchSpace"),
    ],
)
def test_an_old_path_warns_and_gives_the_same(old: str, new: str, name: str) -> None:
    sys.modules.pop(f"pytest_shark_tune.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"is .*pytest_shark_tune.{new}\b.* now"):
        importlib.import_module(f"pytest_shark_tune.{old}")
    module = importlib.import_module(f"pytest_shark_tune.{new}")
    assert getattr(sys.modules[f"pytest_shark_tune.{old}"], name) is getattr(module, name)
