"""The marker ``tune``: the sources that a test names, in one mark or in several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["TuneMarks", "marks_of"]


@dataclass(frozen=True)
class TuneMarks:
    """The marks ``tune`` of one test, taken together.

    ``sources`` is the union of all marks' sources. ``options`` are the keyword arguments that a mark was given, which
    takes none, and ``is_bare`` says that one of the marks names nothing.
    """

    sources: tuple[object, ...]
    options: tuple[str, ...]
    is_bare: bool


def marks_of(test: pytest.Item) -> TuneMarks | None:
    """What the marks ``tune`` of a test, of its class and of its module say together; ``None`` without any.

    The nearest mark comes first. A source that an earlier mark names is not taken twice.
    """
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
