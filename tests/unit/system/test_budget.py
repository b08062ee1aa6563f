from __future__ import annotations

import math
import time

import pytest

from pytest_shark_tune.system.budget import TimeBudget


def test_without_a_limit_there_is_always_time() -> None:
    budget = TimeBudget.starting_now(None)
    assert budget.left_s == budget.for_forms_s == budget.for_finals_s(None) == math.inf


def test_phases_end_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = TimeBudget(total_s=100.0, began_s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1030.0)
    assert budget.left_s == pytest.approx(70.0)
    assert budget.for_forms_s == pytest.approx(-5.0)
    assert budget.for_trying_s(None) == pytest.approx(35.0), "half of what is left, if that is more"
    assert budget.for_finals_s(None) == pytest.approx(50.0)
    assert budget.for_trying_s(0.0) > budget.for_trying_s(None)
    assert budget.for_finals_s(0.0) < budget.left_s


def test_what_whole_models_do_not_need_goes_to_the_search_and_the_finals(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = TimeBudget(total_s=100.0, began_s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    for models_s, finals_s in ((40.0, 80.0), (20.0, 80.0), (10.0, 90.0), (1.0, 95.0)):
        assert budget.for_finals_s(models_s) == pytest.approx(finals_s)
        assert budget.for_trying_s(models_s) == pytest.approx(finals_s * 0.75)
