"""The plugin's fixtures as a stranger meets them: in the list of pytest, and in tests that are not marked."""

from __future__ import annotations

import pytest

from pytest_shark_tune.plugin import fixtures

_UNMARKED = """
def test_dispatch(tuned):
    pass

def test_candidate(candidate):
    pass
"""


def test_each_fixture_has_one_line_in_the_list_of_pytest(pytester: pytest.Pytester) -> None:
    listed = pytester.runpytest_inprocess("--fixtures").stdout.str().partition("pytest_shark_tune.plugin.fixtures")[2]
    lines = listed.partition("\n\n\n")[0].splitlines()[1:]
    names = [line.split()[0] for line in lines if line and line[0].isalpha() and " -- " in line]
    assert sorted(names) == sorted(name for name in fixtures.__all__ if name.islower())
    texts = [line for line in lines if line.startswith("    ")]
    assert len(texts) == len(names), "a docstring begins with a paragraph of more than one line"
    assert all(text.endswith(".") and len(text) <= 100 for text in texts)


def test_a_test_without_the_marker_is_told_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_UNMARKED)
    said = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    said.assert_outcomes(errors=2)
    said.stdout.fnmatch_lines([fixtures._NO_SESSION, fixtures._NOT_MARKED])
