"""A user's requests to every space: options as knobs (``--tune-knob``) and conditions (``--tune-restrict``)."""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from pytest_shark_tune.dispatch.reasons import AskedTooMuch
from pytest_shark_tune.search_space.expression import variables
from pytest_shark_tune.search_space.pipeline_options import open_option
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.where import parse_condition

__all__ = ["SpaceRequest", "narrowed", "opened"]


class SpaceRequest(msgspec.Struct, frozen=True):
    """The values of ``--tune-restrict`` and ``--tune-knob``."""

    where: tuple[str, ...] = ()
    """Conditions that every member must fulfil."""
    knobs: dict[str, tuple[int, ...]] = {}
    """The values to try of each pipeline option that becomes a knob."""


def opened(spaces: Sequence[SearchSpace], request: SpaceRequest, backend: str) -> tuple[SearchSpace, ...]:
    """Return the spaces of one dispatch with the options in ``request`` as knobs.

    Raises:
        NoSpace: No space of the dispatch has such an option.
    """
    result = tuple(spaces)
    for name, values in request.knobs.items():
        result = open_option(result, name, values, backend)
    return result


def narrowed(spaces: Sequence[SearchSpace], request: SpaceRequest, known: Set[str]) -> tuple[SearchSpace, ...]:
    """Restrict the spaces of one dispatch to the conditions in ``request``, and drop spaces that become empty.

    A condition applies to the spaces that have all of its knobs.

    Args:
        spaces: The spaces of the dispatch.
        request: The request.
        known: The knobs of all dispatches together. A condition on a knob that only other dispatches have is ignored.

    Raises:
        NoSpace: A condition names a knob that no dispatch has, or all spaces become empty.
    """
    result = tuple(spaces)
    for text in request.where:
        names = variables(parse_condition(text))
        if unknown := sorted(names - known):
            have = ", ".join(sorted({name for space in spaces for name in space.names}))
            raise AskedTooMuch(f"--tune-restrict: {unknown[0]} is a knob of no space; here there are {have}")
        result = tuple(space.where(text) if names <= set(space.names) else space for space in result)
    left = tuple(space for space in result if space)
    if not left:
        pipelines = " and ".join(space.pipeline for space in spaces)
        raise AskedTooMuch(f"--tune-restrict: {' and '.join(request.where)} leaves no config of {pipelines}")
    return left
