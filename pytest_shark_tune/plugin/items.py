"""The tuning cases of pytest's items, and their entries in the test manifest."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.results.coverage import Collected
from pytest_shark_tune.tuning.manifest import TestEntry, TestManifest

__all__ = ["case_of", "exempt_from_timeouts", "is_ours", "manifest_entry_of", "manifest_of"]


def case_of(item: pytest.Item) -> TuningCase | None:
    """Return the tuning case that ``item`` is parametrized with; ``None`` for a test without the marker."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("candidate") if callspec is not None else None
    return case if isinstance(case, TuningCase) else None


def manifest_entry_of(item: pytest.Item) -> TestEntry | None:
    """Return the entry of ``item`` in the test manifest; ``None`` for a test without the marker."""
    case = case_of(item)
    if case is None:
        return None
    task = case.task
    return TestEntry(
        case.role,
        case.plan_key,
        case.suite,
        dispatch=task.name if task else "",
        candidate=case.config_id,
        is_ours=is_ours(item),
    )


def manifest_of(items: Iterable[pytest.Item], collected: Collected) -> TestManifest:
    """Return the test manifest of the items of a run, of which ``collected`` says how much was collected."""
    entries = {item.nodeid: entry for item in items if (entry := manifest_entry_of(item))}
    return TestManifest(entries, collected)


def exempt_from_timeouts(items: Iterable[pytest.Item]) -> None:
    """Exempt the tests of a tuning run from the default of pytest-timeout: a final may take minutes.

    Compilations and kernels have time-outs of their own. A mark on the test itself holds.
    """
    for item in items:
        if case_of(item) is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(0))


def is_ours(item: pytest.Item) -> bool:
    """Whether no fixture of the suite's own replaces one of our stages."""
    fixtures_of = getattr(item, "_fixtureinfo", None)
    definitions = fixtures_of.name2fixturedefs if fixtures_of is not None else {}
    return all(len(definitions.get(name, ())) <= 1 for name in ("artifact", "measurement"))
