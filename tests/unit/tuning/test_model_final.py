"""Finalists that are compared in the whole model, of which some fail there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.tuning.model.final import compare_apart

MODELS = {name: Path(name) for name in ("a", "b", "c")}


class Device:
    """Compares models unless one of them is in ``bad``, and does not say which."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.compared: list[list[str]] = []

    def __call__(self, models: Mapping[str, Path]) -> dict[str, Measurement]:
        self.compared.append(list(models))
        if any(name in self.bad for name in models):
            raise CandidateFailed("wrong_result", "1 of 8 figures is wrong")
        return {name: Measurement.of_samples([1.0, 1.0], [2.0, 2.0]) for name in models}


def test_models_that_all_run_are_compared_with_each_other() -> None:
    device = Device()
    measured, failed = compare_apart(device, MODELS)
    assert list(measured) == ["a", "b", "c"]
    assert (device.compared, failed) == ([["a", "b", "c"]], {})


def test_one_that_fails_does_not_cost_the_others_their_figures() -> None:
    measured, failed = compare_apart(Device("b"), MODELS)
    assert list(measured) == ["a", "c"]
    assert {name: failure.state for name, failure in failed.items()} == {"b": "wrong_result"}


def test_where_all_fail_each_is_told_why() -> None:
    measured, failed = compare_apart(Device(*MODELS), MODELS)
    assert measured == {}
    assert list(failed) == ["a", "b", "c"]
