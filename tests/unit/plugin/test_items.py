"""Tests of a run beside plugins of others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import NO_PLAN, TuningCase
from pytest_shark_tune.plugin.items import exempt_from_timeouts


def make_item(*, ours: bool, marker: object = None) -> Any:
    added: list[pytest.MarkDecorator] = []
    params = {"candidate": TuningCase(Role.SPEC, NO_PLAN)} if ours else {"candidate": 1}
    return SimpleNamespace(
        callspec=SimpleNamespace(params=params),
        get_closest_marker=lambda name: marker,
        add_marker=added.append,
        added=added,
    )


def test_our_tests_are_exempt_from_a_default_time_out_and_others_are_not(pytestconfig: pytest.Config) -> None:
    pytestconfig.addinivalue_line("markers", "timeout: as pytest-timeout registers it")
    ours, theirs, marked = make_item(ours=True), make_item(ours=False), make_item(ours=True, marker=object())
    exempt_from_timeouts([ours, theirs, marked])
    assert [(mark.name, mark.args) for mark in ours.added] == [("timeout", (0,))]
    assert theirs.added == marked.added == []
