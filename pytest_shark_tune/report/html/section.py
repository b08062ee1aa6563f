"""Sections of the page: what one run came to, in words and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_shark_tune.report.html.figure import Figure

__all__ = ["Fold", "Section"]


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    """The heading; empty if the page's own one says it."""
    facts: Sequence[tuple[str, str]] = ()
    """The circumstances of a run, as pairs of a name and a value."""
    answers: Sequence[str] = ()
    """Sentences that say what it came to."""
    warnings: Sequence[str] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Fold:
    """A dispatch, which the page shows folded below the section of its run."""

    name: str
    result: str
    """Its speedup, or the lack of one, in a few words."""
    kind: str
    """``good`` for a dispatch that is faster, else ``noise``."""
    figures: Sequence[Figure]
