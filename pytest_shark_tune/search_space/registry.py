"""Search spaces of other packages, registered as entry points of the group ``pytest_shark_tune.spaces``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import NoSpace, SearchSpace
from pytest_shark_tune.system.entry_points import describe_entry, load_entry

__all__ = ["GROUP", "SpaceProvider", "provided_spaces", "providers"]

GROUP = "pytest_shark_tune.spaces"

SpaceProvider: TypeAlias = Callable[[RootOp, TargetFacts], Sequence[SearchSpace] | None]
"""Returns the spaces of a root op on a target, or ``None`` for an op that it does not cover."""


def providers() -> tuple[EntryPoint, ...]:
    """Return the registered entry points, sorted by name: the order in which they are asked."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)))


def provided_spaces(
    root: RootOp, target: TargetFacts, entries: Sequence[EntryPoint] | None = None
) -> tuple[SearchSpace, ...] | None:
    """Return the spaces from the first entry point that covers ``root``, or ``None`` if none does.

    Args:
        root: The root op.
        target: The target.
        entries: The entry points to ask, by default all that are registered.

    Raises:
        InputError: An entry point cannot be loaded, raises, or returns something else than spaces. It is named.
        NoSpace: An entry point raises it for the op, or returns only empty spaces.
    """
    for entry in providers() if entries is None else entries:
        spaces = _provided_by(entry, root, target)
        if spaces is not None:
            if not any(spaces):
                raise NoSpace(f"the entry point {entry.name} of {GROUP} offers no config of {root.op}")
            return tuple(space for space in spaces if space)
    return None


def _provided_by(entry: EntryPoint, root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...] | None:
    name, provider = describe_entry(entry), load_entry(entry)
    try:
        given = provider(root, target)
        spaces = None if given is None else tuple(given)
    except NoSpace:
        raise
    except Exception as error:  # Another package may raise anything.
        raise InputError(f"{name} failed for {root.op}: {type(error).__name__}: {error}") from error
    for space in spaces or ():
        if not isinstance(space, SearchSpace):
            raise InputError(f"{name} gave {space!r} for {root.op}, which is no SearchSpace")
    return spaces
