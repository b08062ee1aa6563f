"""Light items: they hold nothing but their names and cases, and are as pytest's own to everybody who looks."""

from __future__ import annotations

import gc

import pytest

from pytest_shark_tune.plugin.tune.light_items import LightCallSpec, LightFunction

_CONFTEST = """
import pytest
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import NO_PLAN, TuningCase
from pytest_shark_tune.plugin.tune.light_items import LightItems

def pytest_configure(config):
    config.addinivalue_line("markers", "tune: ours")
    config.addinivalue_line("markers", "other: another")
    config.addinivalue_line("markers", "third: another")
    if LIGHT:
        config.pluginmanager.register(LightItems())

@pytest.fixture(scope="SCOPE")
def candidate(request):
    return request.param

def pytest_generate_tests(metafunc):
    if "candidate" in metafunc.fixturenames:
        cases = [TuningCase(role, NO_PLAN) for role in (Role.SPEC, Role.INPUT)]
        metafunc.parametrize("candidate", cases, ids=["one", "two"], indirect=True)
"""
_SUITE = """
import pytest

@pytest.mark.tune
@pytest.mark.other
def test_case(candidate, request):
    assert request.node.callspec.getparam("candidate") is candidate
    request.node.user_properties.append(("name", "value"))

@pytest.mark.tune
@pytest.mark.parametrize("size", [1, 2])
def test_more(candidate, size):
    pass

def test_plain():
    pass
"""


_SHARING = """
import pytest

@pytest.mark.tune
def test_first(candidate):
    pass

@pytest.mark.tune
def test_last(candidate):
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(test_suite=_SUITE)
    return pytester


def prepare(suite: pytest.Pytester, *, light: bool, scope: str = "function") -> None:
    suite.makeconftest(_CONFTEST.replace("LIGHT", str(light)).replace("SCOPE", scope))


def collected(suite: pytest.Pytester, *, light: bool) -> list[pytest.Item]:
    prepare(suite, light=light)
    items, _ = suite.inline_genitems("-p", "no:shark_tune")
    return items


def test_an_item_holds_no_containers_until_somebody_asks(suite: pytest.Pytester) -> None:
    plain, light = collected(suite, light=False), collected(suite, light=True)
    assert [item.nodeid for item in light] == [item.nodeid for item in plain]
    kinds = [LightFunction] * 6 + [pytest.Function]
    assert [type(item) for item in light] == kinds
    assert [repr(item) for item in light] == [repr(item) for item in plain]
    first, second, own = light[0], light[1], plain[0]
    assert isinstance(first, pytest.Function)
    assert isinstance(own, pytest.Function)
    held = {"own_markers", "keywords", "stash", "funcargs", "_request", "extra_keyword_matches", "user_properties"}
    assert not held & first.__dict__.keys()
    assert held <= own.__dict__.keys()
    assert isinstance(vars(first)["callspec"], LightCallSpec)
    assert dict(first.keywords).keys() == dict(own.keywords).keys()
    assert [mark.name for mark in first.iter_markers()] == [mark.name for mark in own.iter_markers()]
    assert (first.funcargs, first.user_properties, first.extra_keyword_matches) == ({}, [], set())
    first.add_marker("third")
    assert "third" in first.keywords
    assert "third" not in second.keywords
    assert second.get_closest_marker("third") is None
    for name in ("params", "indices", "marks", "id"):
        ours, theirs = (getattr(vars(item)["callspec"], name) for item in (second, plain[1]))
        assert repr(ours) == repr(theirs)
    assert not hasattr(first, "nothing")


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [((), 7), (("-k", "one and case"), 1), (("-m", "other"), 2), (("-k", "not tune"), 1), (("-k", "more and 2"), 2)],
)
def test_light_items_are_selected_and_run_as_any_others(
    suite: pytest.Pytester, arguments: tuple[str, ...], passed: int
) -> None:
    for light in (False, True):
        prepare(suite, light=light)
        suite.inline_run("-p", "no:shark_tune", *arguments).assertoutcome(passed=passed)


@pytest.mark.parametrize("scope", ["function", "module"])
def test_tests_that_share_a_parameter_are_side_by_side_as_with_any_others(suite: pytest.Pytester, scope: str) -> None:
    suite.makepyfile(test_suite=_SHARING)
    orders = []
    for light in (False, True):
        prepare(suite, light=light, scope=scope)
        lines = suite.runpytest("--collect-only", "-q", "-p", "no:shark_tune").outlines
        orders.append([line.partition("::")[2] for line in lines if "::" in line])
    plain, light_ones = orders
    assert light_ones == plain
    assert plain[:2] == ["test_first[one]", "test_first[two]" if scope == "function" else "test_last[one]"]


def test_the_garbage_collector_is_as_it_was(suite: pytest.Pytester) -> None:
    frozen = gc.get_freeze_count()
    collected(suite, light=True)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen
