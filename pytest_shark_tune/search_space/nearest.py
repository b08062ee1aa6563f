"""Finding the member of a space that is nearest to knobs outside of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_shark_tune.search_space.space import SearchSpace, SpaceTooLarge

__all__ = ["nearest_member"]

_DRAWN = 20_000
"""The number of members to compare if there are too many to list."""


def nearest_member(space: SearchSpace, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the member that changes the fewest knobs of ``wanted``, and of those the one that changes them least.

    The change of a knob is the logarithm of the ratio, since tiles are mostly powers of two. The first of equally near
    members is returned. If the space is too large to list, a fixed sample is compared.

    Args:
        space: The space.
        wanted: The values of some or all knobs.

    Raises:
        SpaceTooLarge: Members can neither be listed nor be drawn.
        ValueError: The space has no member.
    """
    try:
        rows = space.members()
    except SpaceTooLarge:
        drawn = space.sample(_DRAWN, seed=0)
        rows = np.array([[knobs[name] for name in space.names] for knobs in drawn], dtype=np.int64)
    columns = [(position, wanted[name]) for position, name in enumerate(space.names) if name in wanted]
    changed = np.zeros(len(rows), dtype=np.int64)
    distance = np.zeros(len(rows))
    for position, value in columns:
        changed += rows[:, position] != value
        distance += np.abs(np.log2((rows[:, position] + 1.0) / (value + 1.0)))
    order = np.lexsort((distance, changed))
    if not len(order):
        raise ValueError(f"the {space.pipeline} space has no member")
    return dict(zip(space.names, rows[order[0]].tolist(), strict=True))
