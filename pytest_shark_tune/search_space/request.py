"""What a user asks of every space: options as knobs (``--tune-knob``) and further conditions (``--tune-where``)."""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from pytest_shark_tune.search_space.expression import variables
from pytest_shark_tune.search_space.pipeline_options import open_option
from pytest_shark_tune.search_space.space import NoSpace, SearchSpace
from pytest_shark_tune.search_space.where import parse_condition

__all__ = ["SpaceRequest", "narrowed", "opened"]


class SpaceRequest(msgspec.Struct, frozen=True):
    """``where`` are conditions that all hold; ``knobs`` are pipeline options with the values each is to take."""

    where: tuple[str, ...] = ()
    knobs: dict[str, tuple[int, ...]] = {}


def opened(spaces: Sequence[SearchSpace], request: SpaceRequest, backend: str) -> tuple[SearchSpace, ...]:
    """The spaces of one dispatch with the options that ``request`` names as knobs.

    Raises:
        NoSpace: no space of the dispatch has such an option.
    """
    result = tuple(spaces)
    for name, values in request.knobs.items():
        result = open_option(result, name, values, backend)
    return result


def narrowed(spaces: Sequence[SearchSpace], request: SpaceRequest, known: Set[str]) -> tuple[SearchSpace, ...]:
    """Those of one dispatch's spaces that the conditions of ``request`` leave something of, with the conditions.

    A condition holds for each space that has all the knobs it names. ``known`` are the knobs of all dispatches
    together: a name that only others have leaves this dispatch as it is.

    Raises:
        NoSpace: a condition names a knob that no dispatch has, or nothing is left.
    """
    result = tuple(spaces)
    for text in request.where:
        names = variables(parse_condition(text))
        if unknown := sorted(names - known):
            have = ", ".join(sorted({name for space in spaces for name in space.names}))
            raise NoSpace(f"--tune-where: {unknown[0]} is a knob of no space; here there are {have}")
        result = tuple(space.where(text) if names <= set(space.names) else space for space in result)
    left = tuple(space for space in result if space)
    if not left:
        pipelines = " and ".join(space.pipeline for space in spaces)
        raise NoSpace(f"--tune-where: {' and '.join(request.where)} leaves no config of {pipelines}")
    return left
