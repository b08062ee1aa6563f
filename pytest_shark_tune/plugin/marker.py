"""The marker ``tune``: the sources of a test, in one mark or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

__all__ = ["GuardMarks", "TuneMarks", "check_stages", "guard_marks_of", "marks_of"]

_OURS = "pytest_shark_tune.plugin.fixtures"
_STAGES = ("artifact", "measurement")
"""The stages that a suite may override. Such a fixture builds on one of these."""
_BASES = {"candidate", "artifact", "measurement", "tune_dispatch", "tune_kernel", "tune_session"}


@dataclass(frozen=True)
class GuardMarks:
    """The nearest mark ``tune_guard`` of a test."""

    sources: tuple[object, ...]
    golden: str
    """The file with golden times; empty without one."""


def guard_marks_of(test: pytest.Item) -> GuardMarks | None:
    """Return the nearest mark ``tune_guard`` of a test; ``None`` without any."""
    mark = test.get_closest_marker("tune_guard")
    return None if mark is None else GuardMarks(mark.args, str(mark.kwargs.get("golden", "")))


@dataclass(frozen=True)
class TuneMarks:
    """The marks ``tune`` of one test, taken together."""

    sources: tuple[object, ...]
    """The sources of all marks, without duplicates."""
    options: tuple[str, ...]
    """The keyword arguments of all marks, although the marker takes none."""
    is_bare: bool
    """Whether one of the marks has no source."""


def marks_of(test: pytest.Item) -> TuneMarks | None:
    """Return the marks ``tune`` of a test, its class and its module; ``None`` without any. The nearest comes first."""
    marks = list(test.iter_markers("tune"))
    if not marks:
        return None
    sources: list[object] = []
    for mark in marks:
        sources += [source for source in mark.args if source not in sources]
    return TuneMarks(
        sources=tuple(sources),
        options=tuple(dict.fromkeys(name for mark in marks for name in mark.kwargs)),
        is_bare=not all(mark.args for mark in marks),
    )


def check_stages(metafunc: pytest.Metafunc) -> None:
    """Refuse a marked test to which fixtures of its project come in place of the stages.

    Raises:
        pytest.fail.Exception: there is such a fixture; the message names it and its file.
    """
    definitions: Mapping[str, Sequence[Any]] = metafunc._arg2fixturedefs
    for name in ("candidate", *_STAGES):
        found = definitions.get(name, ())
        if not found or found[-1].func.__module__ == _OURS:
            continue
        if name == "candidate" or not _BASES & _needed(found[-1].argnames, definitions):
            where = found[-1].func.__code__
            pytest.fail(
                f"{metafunc.definition.name} is marked tune, and {where.co_filename}:{where.co_firstlineno} defines a "
                f"fixture {name}, which is the name of a stage of tuning: rename that fixture"
                + ("" if name == "candidate" else ", or build on tune_dispatch to change the stage (docs/stages.md)"),
                pytrace=False,
            )


def _needed(names: Sequence[str], definitions: Mapping[str, Sequence[Any]]) -> set[str]:
    """The fixtures that are needed for some, those of the fixtures that they need included."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [needed for found in definitions.get(name, ()) for needed in found.argnames]
    return seen
