"""The page: one HTML file with everything in it, which loads nothing and may run nothing but its own script.

The content-security policy in the file allows its style sheet and its script by their hashes. Text from outside is
escaped by the template, and in drawings by `svg`. Without scripts all figures and tables are there; the script sorts
tables.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from pytest_shark_tune import __version__
from pytest_shark_tune.guard.history import HistoryPoint
from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult
from pytest_shark_tune.report.html.dispatch_section import dispatch_section
from pytest_shark_tune.report.html.figures.across import compare_runs
from pytest_shark_tune.report.html.guard_section import guard_section
from pytest_shark_tune.report.html.run_section import run_section
from pytest_shark_tune.report.html.section import Fold, Section
from pytest_shark_tune.report.html.view import views_of
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.system.terminal import escaped

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["MOST_BYTES", "guard_page", "tuning_page"]

MOST_BYTES = 1_500_000
"""The most bytes of a page. If it would be larger, the dispatches that matter least are left out, and it says so."""

_FRAME_BYTES = 60_000
"""The bytes that are kept for everything but sections."""


def tuning_page(runs: Sequence[FinishedRun]) -> str:
    """Return the page of runs that tuned, a section for each with its dispatches below."""
    blocks = _blocks()
    room = MOST_BYTES - _FRAME_BYTES
    overview = _rendered(blocks, Section("Runs compared", figures=compare_runs(runs))) if len(runs) > 1 else None
    room -= _size(overview)
    sections: list[tuple[Markup, list[Markup]]] = []
    for run in runs:
        section = _rendered(blocks, run_section(run))
        room -= _size(section)
        sections.append((section, []))
    left_out = 0
    for position, make in _by_time(runs):
        if room <= 0:
            left_out += 1
            continue
        fold: Markup = blocks.fold(make(), not sections[position][1])
        if _size(fold) > room:
            left_out += 1
            continue
        room -= _size(fold)
        sections[position][1].append(fold)
    return _page("shark-tune report", overview, sections, left_out)


def guard_page(
    results: Iterable[GuardResult],
    failures: Sequence[GuardFailure] = (),
    ended_early: str = "",
    history: Sequence[HistoryPoint] = (),
) -> str:
    """Return the page of a run that guarded.

    Args:
        results: the verdicts.
        failures: the failures without a verdict.
        ended_early: the reason why the run did not check everything; empty if it did.
        history: the history of guarding, if one is kept.
    """
    section = _rendered(_blocks(), guard_section(results, failures, ended_early, history))
    return _page("shark-tune guard", None, [(section, [])], 0)


def _by_time(runs: Sequence[FinishedRun]) -> Iterator[tuple[int, Callable[[], Fold]]]:
    """Yield the dispatches of all runs, in turns, with the position of the run: winners first, then by their time."""
    views = [
        sorted(views_of(run), key=lambda view: (view.row.winner is None, -(view.row.share or 0.0))) for run in runs
    ]
    for turn in range(max(map(len, views), default=0)):
        for position, of_run in enumerate(views):
            if turn < len(of_run):
                yield position, partial(dispatch_section, of_run[turn])


def _page(
    title: str,
    overview: Markup | None,
    sections: Sequence[tuple[Markup, Sequence[Markup]]],
    left_out: int,
) -> str:
    style, script = _resource("style.css"), _resource("script.js")
    page = _environment().from_string(_resource("page.html.j2"))
    return page.render(
        title=title,
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        overview=overview,
        sections=sections,
        left_out=left_out,
    )


def _blocks() -> Any:
    """Return the macros that make sections, by name."""
    return _environment().from_string(_resource("blocks.html.j2")).module


def _environment() -> Environment:
    """Return an environment that escapes everything that is not marked as markup."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.filters["drawing"] = _drawing
    return environment


def _visible(value: Any) -> Any:
    """Make characters visible that are not printed, such as those that turn the direction of text around."""
    return escaped(value) if type(value) is str else value


def _drawing(xml: str) -> Markup:
    """Mark the XML of a drawing as markup: `svg.Drawing` has escaped what is in it."""
    from markupsafe import Markup

    return Markup(xml)  # noqa: S704


def _rendered(blocks: Any, section: Section) -> Markup:
    rendered: Markup = blocks.section(section)
    return rendered


def _size(block: Markup | None) -> int:
    return len(block.encode()) if block is not None else 0


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash of a script or style sheet as a content-security policy has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
