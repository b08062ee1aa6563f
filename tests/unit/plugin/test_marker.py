"""Fixtures of a project that have the names of the stages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_shark_tune.plugin import fixtures
from pytest_shark_tune.plugin.marker import check_stages


def theirs(*argnames: str) -> Any:
    return SimpleNamespace(func=lambda: None, argnames=argnames)


def ours(name: str, *argnames: str) -> Any:
    wrapped = SimpleNamespace(__module__=fixtures.__name__, __name__=name)
    return SimpleNamespace(func=wrapped, argnames=argnames)


def marked_test(**overrides: Any) -> Any:
    found = {"candidate": [ours("candidate")], "artifact": [ours("artifact", "tune_dispatch")]}
    for name, definition in overrides.items():
        found.setdefault(name, []).append(definition)
    return SimpleNamespace(definition=SimpleNamespace(name="test_dispatch"), _arg2fixturedefs=found)


def test_the_stages_and_suites_that_change_them_are_fine() -> None:
    check_stages(marked_test())
    check_stages(marked_test(artifact=theirs("candidate", "artifact")))
    check_stages(marked_test(artifact=theirs("compiled"), compiled=theirs("tune_kernel")))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("candidate", "rename that fixture"), ("artifact", "or build on tune_dispatch"), ("measurement", "rename")],
)
def test_a_fixture_of_that_name_by_chance_is_named(name: str, remedy: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"test_marker.py:\d+ defines a fixture {name}, .*{remedy}"):
        check_stages(marked_test(**{name: theirs("tmp_path")}))
