"""Candidates drawn from the search spaces of dispatches and kernels, for a search to choose from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pytest_shark_tune.dispatch.reasons import CannotTune
from pytest_shark_tune.dispatch.types import Dispatch, Untunable
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.candidates import packed
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.spaces import NO_SPACE, DispatchSpaces, untunable_members
from pytest_shark_tune.plan.types import POOL, KernelTask, Task, Wanted
from pytest_shark_tune.search_space import SearchSpace, SpaceRequest, SpaceTooLarge, narrowed
from pytest_shark_tune.search_space.candidate import (
    Candidate,
    default_candidate,
    kernel_candidates,
    kernel_default,
    make_candidates,
    outside_candidate,
)
from pytest_shark_tune.search_space.config_reader import knobs_of, read_config, read_knobs
from pytest_shark_tune.system.steps import Stage, Step

__all__ = ["Drawn", "draw_candidates"]

_POOLS = 8 * POOL
"""About the most candidates of a plan, since every process of a run holds them. Many dispatches share them evenly."""
_LEAST_POOL = POOL // 4


class Drawn(NamedTuple):
    """Dispatches and kernels with the candidates to try."""

    tasks: tuple[Task, ...]
    kernels: tuple[KernelTask, ...]
    untunable: tuple[Untunable, ...]
    """Dispatches and kernels whose spaces have no member that the user's request allows."""


def draw_candidates(
    attached: Sequence[DispatchSpaces],
    kernels: Sequence[CustomTask],
    *,
    request: SpaceRequest,
    count: int,
    seed: int,
    wanted: Sequence[Wanted] = (),
    report: Callable[[str], None] = lambda message: None,
) -> Drawn:
    """Draw up to ``count`` candidates for each dispatch and kernel, or the whole space if it is no larger.

    A plan with more than eight dispatches and kernels draws fewer for each, but at least a quarter of `POOL`.

    Args:
        attached: The dispatches with their spaces.
        kernels: Kernels of the client's own.
        request: The user's limits on the spaces.
        count: The most candidates of a dispatch or kernel.
        seed: The seed of the sample.
        wanted: Configs that are among the candidates if a space has them, or if they parse.
        report: Called with a message about the dispatch in hand.
    """
    count = min(count, max(_LEAST_POOL, _POOLS // max(1, len(attached) + len(kernels))))
    offered = [*(space for found in attached for space in found.spaces), *(kernel.space for kernel in kernels)]
    known = {name for space in offered for name in space.names}
    tasks: list[Task] = []
    kernel_tasks: list[KernelTask] = []
    untunable: list[Untunable] = []
    for number, found in enumerate(attached):
        dispatch = found.dispatch
        report(Step(f"drawing candidates for {dispatch.name}", Stage.EXTRACT, number, len(attached)))
        try:
            own = [config for config in wanted if config.key == dispatch.key]
            narrow = found._replace(spaces=narrowed(found.spaces, request, known))
            tasks.append(_task(narrow, count, seed, own))
        except NO_SPACE as reason:
            untunable += untunable_members(dispatch, reason)
    for kernel in kernels:
        try:
            (space,) = narrowed([kernel.space], request, known)
            kernel_tasks.append(_kernel_task(kernel, space, count, seed))
        except CannotTune as reason:
            untunable.append(Untunable.of(kernel.name, kernel.name, reason))
    return Drawn(tuple(tasks), tuple(kernel_tasks), tuple(untunable))


def _task(found: DispatchSpaces, count: int, seed: int, wanted: Sequence[Wanted]) -> Task:
    """Draw an even share from each space in turn. A space that has fewer members leaves the rest to the next."""
    dispatch, spaces, failed_step = found
    candidates: list[Candidate] = []
    for position, space in enumerate(spaces):
        share = -(-(count - len(candidates)) // (len(spaces) - position))
        taken = {candidate.id for candidate in candidates}
        knob_sets = _sample(space, share, seed, _wanted_knobs(space, wanted))
        candidates += make_candidates(dispatch.name, dispatch.root, space, knob_sets, taken=taken, position=position)
    outside = _outside_candidates(dispatch, candidates, wanted, position=len(spaces))
    return Task(
        dispatch=dispatch,
        default=default_candidate(dispatch),
        candidates=packed(dispatch.name, [*candidates, *outside]),
        space_size=_size(spaces),
        near=_default_knobs(dispatch, spaces),
        failed_step=failed_step,
    )


def _default_knobs(dispatch: Dispatch, spaces: Sequence[SearchSpace]) -> dict[int, dict[str, int]]:
    """The knobs of the default config in each space of its pipeline; empty if no reader knows the config's form."""
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
    """``knobs`` without zeros that mean "off" where the space knows no off: a tile of 0 is not a small tile."""
    domains = {knob.name: knob.domain for knob in space.knobs}
    return {name: value for name, value in knobs.items() if value or 0 in domains[name]}


def _sample(space: SearchSpace, count: int, seed: int, wanted: Sequence[dict[str, int]]) -> Sequence[Mapping[str, int]]:
    """Up to ``count`` members of a space. They include the members among ``wanted``."""
    sample = space.sample(count, seed)
    held = [knobs for knobs, is_member in zip(wanted, space.holds(wanted), strict=True) if is_member]
    missing = [knobs for place, knobs in enumerate(held) if knobs not in sample and knobs not in held[:place]]
    return [*missing, *sample][:count] if missing else sample


def _wanted_knobs(space: SearchSpace, wanted: Iterable[Wanted]) -> list[dict[str, int]]:
    """The knobs of the ``wanted`` configs that may be members of a space."""
    found: list[dict[str, int]] = []
    for config in wanted:
        if not config.compilation_info:
            found += [config.knobs] if config.pipeline == space.pipeline else []
            continue
        try:
            knobs = knobs_of(space, config.compilation_info)
        except InputError:  # Another release may have written it.
            continue
        found += [knobs] if isinstance(knobs, dict) else []
    return found


def _outside_candidates(
    dispatch: Dispatch, candidates: Collection[Candidate], wanted: Iterable[Wanted], *, position: int
) -> Sequence[Candidate]:
    """Candidates for the ``wanted`` configs that no space has. ``position`` comes after those of the spaces."""
    known = {candidate.compilation_info for candidate in candidates}
    taken = {candidate.id for candidate in candidates}
    outside: list[Candidate] = []
    for info in (config.compilation_info for config in wanted):
        if not info or info in known:
            continue
        try:
            candidate = outside_candidate(dispatch.name, dispatch.root, info, taken=taken, position=position)
        except InputError:
            continue
        if candidate.compilation_info not in known:
            outside.append(candidate)
            known.add(candidate.compilation_info)
            taken.add(candidate.id)
    return outside


def _kernel_task(kernel: CustomTask, space: SearchSpace, count: int, seed: int) -> KernelTask:
    # One more is drawn, since the default may be among them.
    others = [knobs for knobs in space.sample(count + 1, seed) if knobs != kernel.default][:count]
    return KernelTask(
        name=kernel.name,
        weight=kernel.weight,
        default=kernel_default(kernel.name, space, kernel.default),
        candidates=packed(kernel.name, kernel_candidates(kernel.name, space, others)),
        space_size=_size([space]),
    )


def _size(spaces: Sequence[SearchSpace]) -> int | None:
    try:
        return sum(len(space) for space in spaces)
    except SpaceTooLarge:
        return None
