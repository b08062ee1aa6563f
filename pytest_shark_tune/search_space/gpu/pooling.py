"""Search spaces of poolings on GPUs."""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.gpu.direct import direct_space, step_choices, window_problem
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import refuse_elements

__all__ = ["VERSION", "gpu_pooling_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""


def gpu_pooling_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of a pooling. Its knobs are those of `direct_space`, with positions in ``root.loops``.

    Raises:
        NoSpace: An element type is not covered.
    """
    refuse_elements(root)
    return (direct_space(window_problem(root), step_choices(root), target),)
