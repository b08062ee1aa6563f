"""The plan of a suite's test: its dispatches and their candidates, made once and read by all processes of a run.

A plan takes five steps, each in a module of its own::

    read_sources -> extract_dispatches -> attach_spaces -> draw_candidates -> drop_cold -> Plan

`make_plan` holds the three that need the compiler alone. The sources are read before it, since their contents make the
key of the plan. Cold dispatches are dropped after it, since a device has to tell which ones are cold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.extraction import EXTRACTION_VERSION
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.draw import draw_candidates
from pytest_shark_tune.plan.extract import Extracted, extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.spaces import attach_spaces
from pytest_shark_tune.plan.types import Plan, Task, Wanted
from pytest_shark_tune.search_space import SPACE_VERSIONS, SpaceRequest
from pytest_shark_tune.search_space.candidate import CANDIDATE_VERSION, default_candidate
from pytest_shark_tune.search_space.registry import providers
from pytest_shark_tune.system.cache import content_key

__all__ = ["PLAN_VERSION", "found_dispatches", "make_plan", "plan_key"]

PLAN_VERSION: Final = 7
"""The form of a plan in the cache.

Raise it if a field of `Plan`, or of a type in it, is added, removed or changes its meaning.
"""


def make_plan(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    processors: int,
    count: int,
    seed: int,
    kernels: Sequence[CustomTask] = (),
    request: SpaceRequest = SpaceRequest(),  # noqa: B008 - it is frozen
    rotate_bytes: int = 0,
    wanted: Sequence[Wanted] = (),
    extracted: Extracted | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Extract the dispatches of ``sources`` and draw candidates for each of them, and for each kernel.

    Args:
        sources: The sources, as `read_sources` gives them.
        compiler: The compiler of the target.
        processors: How many compilations run at a time.
        count: The most candidates of a dispatch, see `draw_candidates`.
        seed: The seed of the candidates' sample.
        kernels: Kernels of the client's own.
        request: The user's limits on every space.
        rotate_bytes: The size of the memory through which a measurement rotates a dispatch's data.
        wanted: Configs that are to be among the candidates.
        extracted: The dispatches of ``sources``, if they are known.
        report: Called with messages about the work in hand.

    Raises:
        InputError: the compiler rejects a source.
    """
    extracted = extracted or extract_dispatches(sources, compiler, processors, report)
    attached, without_space = attach_spaces(extracted.dispatches, compiler, request, rotate_bytes, report)
    drawn = draw_candidates(attached, kernels, request=request, count=count, seed=seed, wanted=wanted, report=report)
    tuned = {task.name for task in drawn.tasks}
    others = [dispatch for dispatch in extracted.dispatches if dispatch.name not in tuned]
    return Plan(
        sources=extracted.sources,
        tasks=drawn.tasks,
        untunable=(*extracted.untunable, *without_space, *drawn.untunable),
        kernels=drawn.kernels,
        defaults=tuple(_default_task(dispatch, rotate_bytes) for dispatch in others),
    )


def found_dispatches(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    processors: int,
    rotate_bytes: int = 0,
    extracted: Extracted | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Plan the dispatches of ``sources`` with their defaults and without candidates, so that no space is needed.

    ``rotate_bytes`` and ``extracted`` are as for `make_plan`.

    Raises:
        InputError: the compiler rejects a source.
    """
    extracted = extracted or extract_dispatches(sources, compiler, processors, report)
    tasks = tuple(_default_task(dispatch, rotate_bytes) for dispatch in extracted.dispatches)
    return Plan(sources=extracted.sources, tasks=tasks, untunable=extracted.untunable)


def _default_task(dispatch: Dispatch, rotate_bytes: int) -> Task:
    """A dispatch with its default and without candidates."""
    return Task(
        dispatch=rotated_dispatch(dispatch, rotate_bytes),
        default=default_candidate(dispatch),
        candidates=(),
        space_size=None,
    )


def plan_key(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    kernels: Sequence[CustomTask] = (),
    request: SpaceRequest = SpaceRequest(),  # noqa: B008 - it is frozen
    **settings: int | str,
) -> str:
    """The content key of the plan that `make_plan` makes of the same arguments, the versions of our own code included.

    Args:
        sources: The sources, by their contents.
        compiler: The compiler, by its identity.
        kernels: Kernels of the client's own.
        request: The user's limits on every space.
        settings: The other arguments on which the plan depends.
    """
    registered = [
        (entry.name, entry.value, entry.dist.version if entry.dist else "") for entry in providers() if sources
    ]
    return content_key(
        "plan",
        [PLAN_VERSION, EXTRACTION_VERSION, CANDIDATE_VERSION],
        SPACE_VERSIONS,
        [source.content for source in sources],
        kernels,
        request,
        registered,
        compiler.identity,
        sorted(settings.items()),
    )
