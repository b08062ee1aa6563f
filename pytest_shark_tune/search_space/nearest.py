"""The member of a space that is nearest to knobs which are none of its."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_shark_tune.search_space.space import SearchSpace, SpaceTooLarge

__all__ = ["nearest_member"]

_DRAWN = 20_000
"""Members that are looked at where there are too many to list."""


def nearest_member(space: SearchSpace, wanted: Mapping[str, int]) -> dict[str, int]:
    """The member in which the fewest of the knobs in ``wanted`` change, and of these the one that changes least.

    How much a knob changes is the logarithm of the ratio, as tiles go in powers of two. Of equally near members it is
    the first. A knob that ``wanted`` lacks may be anything. Of a space too large to list, a sample is looked at, the
    same each time.

    Raises:
        SpaceTooLarge: members can neither be listed nor be drawn.
        ValueError: the space has no member.
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
