"""The marker ``tune``: the sources of a test, in one mark or in several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["GuardMarks", "TuneMarks", "guard_marks_of", "marks_of"]


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
