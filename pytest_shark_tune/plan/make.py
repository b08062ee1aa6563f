"""The plan of a suite's test: its sources, their dispatches and the candidates, made once and read by all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.extraction import (
    EXTRACTION_VERSION,
)
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.types import Dispatch, Untunable
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.extract import extract
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.spaces import NO_SPACE, search_spaces
from pytest_shark_tune.plan.types import KernelTask, Plan, Task
from pytest_shark_tune.plan.wanted import Wanted, outside_candidates, wanted_knobs
from pytest_shark_tune.search_space import (
    SPACE_VERSIONS,
    SearchSpace,
    SpaceRequest,
    SpaceTooLarge,
    narrowed,
    opened,
)
from pytest_shark_tune.search_space.candidate import (
    CANDIDATE_VERSION,
    Candidate,
    default_candidate,
    kernel_candidates,
    kernel_default,
    make_candidates,
)
from pytest_shark_tune.search_space.config_reader import read_config, read_knobs
from pytest_shark_tune.search_space.registry import providers
from pytest_shark_tune.system.cache import content_key

__all__ = ["PLAN_VERSION", "POOL", "Wanted", "make_plan", "plan_key"]

PLAN_VERSION: Final = 1
"""The form of a plan in the cache.

Raise it where a field of `Plan`, or of what is in it, is added, removed or means something else.
"""

POOL = 4096
"""The most candidates of a dispatch that a search chooses from: each is a test that is collected."""
_POOLS = 8 * POOL
"""About as many in all: every process of a run holds them. Where dispatches are many, each has its share of them."""
_LEAST_POOL = POOL // 4


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
    tell: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Extract the dispatches of ``sources`` and draw up to ``count`` candidates for each, and for each kernel.

    What is drawn is what a search chooses from: the whole space where it is no larger. Of more than eight dispatches
    fewer are drawn for each, though a quarter of `POOL` at least.

    ``request`` is what the user asks of every space. Dispatches are measured on data rotated through ``rotate_bytes``
    of memory. ``wanted`` configs are among what is drawn. ``tell`` is told what is under way.

    Raises:
        InputError: the compiler rejects a source.
    """
    extracted = extract(sources, compiler, processors, tell)
    untunable = list(extracted.untunable)
    found: list[tuple[Dispatch, tuple[SearchSpace, ...]]] = []
    for dispatch in extracted.dispatches:
        tell(f"finding the configs of {dispatch.name}")
        try:
            spaces = opened(search_spaces(dispatch, compiler), request, compiler.target.backend)
            found.append((rotated_dispatch(dispatch, rotate_bytes), spaces))
        except NO_SPACE as reason:
            untunable += _all_untunable(dispatch, reason)
    count = min(count, max(_LEAST_POOL, _POOLS // max(1, len(found) + len(kernels))))
    offered = [*(space for _, spaces in found for space in spaces), *(kernel.space for kernel in kernels)]
    known = {name for space in offered for name in space.names}
    tasks, kernel_tasks = [], []
    for dispatch, spaces in found:
        tell(f"drawing candidates for {dispatch.name}")
        try:
            own = [each for each in wanted if each.key == dispatch.key]
            tasks.append(_task(dispatch, narrowed(spaces, request, known), count, seed, own))
        except NO_SPACE as reason:
            untunable += _all_untunable(dispatch, reason)
    for kernel in kernels:
        try:
            (space,) = narrowed([kernel.space], request, known)
            kernel_tasks.append(_kernel_task(kernel, space, count, seed))
        except NO_SPACE as reason:
            untunable.append(Untunable(kernel.name, kernel.name, str(reason)))
    return Plan(sources=extracted.sources, tasks=tuple(tasks), untunable=tuple(untunable), kernels=tuple(kernel_tasks))


def _all_untunable(dispatch: Dispatch, reason: Exception) -> list[Untunable]:
    return [Untunable(member.symbol, member.source, str(reason)) for member in dispatch.members]


def plan_key(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    kernels: Sequence[CustomTask] = (),
    request: SpaceRequest = SpaceRequest(),  # noqa: B008 - it is frozen
    **settings: int | str,
) -> str:
    """The content key of the plan that ``make_plan`` makes: all that it depends on, our versions included."""
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


def _task(dispatch: Dispatch, spaces: Sequence[SearchSpace], count: int, seed: int, wanted: Sequence[Wanted]) -> Task:
    """Draw from each space in turn, an even share each, what one space lacks going to the next."""
    candidates: list[Candidate] = []
    for position, space in enumerate(spaces):
        share = -(-(count - len(candidates)) // (len(spaces) - position))
        taken = {each.id for each in candidates}
        knob_sets = _drawn(space, share, seed, wanted_knobs(space, wanted))
        candidates += make_candidates(dispatch.name, dispatch.root, space, knob_sets, taken=taken, position=position)
    outside = outside_candidates(dispatch, candidates, wanted, position=len(spaces))
    return Task(
        dispatch=dispatch,
        default=default_candidate(dispatch),
        candidates=(*candidates, *outside),
        space_size=_size(spaces),
        near=_default_knobs(dispatch, spaces),
    )


def _default_knobs(dispatch: Dispatch, spaces: Sequence[SearchSpace]) -> dict[int, dict[str, int]]:
    """What each space of the default's pipeline reads in the default; nothing of a config in a form of its own."""
    try:
        config = read_config(dispatch.default_info) if dispatch.default_info else None
        return {
            position: knobs
            for position, space in enumerate(spaces)
            if config is not None and space.pipeline == config.pipeline and space.knob_dictionary
            if (knobs := _in_use(space, read_knobs(space, config).knobs))
        }
    except InputError:
        return {}


def _in_use(space: SearchSpace, knobs: Mapping[str, int]) -> dict[str, int]:
    """``knobs`` without those that say 'off' where the space knows no off: a tile of 0 is no small tile."""
    domains = {knob.name: knob.domain for knob in space.knobs}
    return {name: value for name, value in knobs.items() if value or 0 in domains[name]}


def _drawn(space: SearchSpace, count: int, seed: int, wanted: Sequence[dict[str, int]]) -> Sequence[Mapping[str, int]]:
    """Up to ``count`` members of a space, those of ``wanted`` that are members among them."""
    drawn = space.sample(count, seed)
    held = [knobs for knobs, is_member in zip(wanted, space.holds(wanted), strict=True) if is_member]
    missing = [knobs for place, knobs in enumerate(held) if knobs not in drawn and knobs not in held[:place]]
    return [*missing, *drawn][:count] if missing else drawn


def _kernel_task(kernel: CustomTask, space: SearchSpace, count: int, seed: int) -> KernelTask:
    # One more is drawn, since the default may be among them.
    others = [knobs for knobs in space.sample(count + 1, seed) if knobs != kernel.default][:count]
    return KernelTask(
        name=kernel.name,
        weight=kernel.weight,
        default=kernel_default(kernel.name, space, kernel.default),
        candidates=kernel_candidates(kernel.name, space, others),
        space_size=_size([space]),
    )


def _size(spaces: Sequence[SearchSpace]) -> int | None:
    try:
        return sum(len(space) for space in spaces)
    except SpaceTooLarge:
        return None
