"""Search spaces of convolutions on SPIR-V."""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.gpu.direct import step_choices, window_problem
from pytest_shark_tune.search_space.gpu.tiling import GPU_ELEMENTS, tile_choices
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.spirv.tiling import distributed_space
from pytest_shark_tune.search_space.tiles import refuse_elements

__all__ = ["VERSION", "spirv_convolution_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""


def spirv_convolution_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a convolution: ``BaseDistribute``, and ``BaseVectorize`` with steps of the reduction.

    The knobs are those of `distributed_space`.

    Raises:
        NoSpace: An element type is not covered.
    """
    refuse_elements(root, GPU_ELEMENTS)
    problem = window_problem(root)
    choices = tile_choices(problem, step_choices(root))
    return (
        distributed_space("BaseDistribute", problem, target, choices, steps=False),
        distributed_space("BaseVectorize", problem, target, choices, steps=True),
    )
