"""Search spaces of convolutions on SPIR-V."""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.gpu.convolution import convolution_problem, step_choices
from pytest_shark_tune.search_space.gpu.tiling import GPU_ELEMENTS, tile_choices
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.spirv.tiling import distributed_space
from pytest_shark_tune.search_space.tiles import refuse_elements

__all__ = ["VERSION", "spirv_convolution_spaces"]

VERSION: Final = 1
"""The number of this space. Raise it where it has other members, or other knobs: plans are then made anew."""


def spirv_convolution_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """The spaces of a convolution: ``BaseDistribute``, and ``BaseVectorize``, where the reduction goes in steps.

    The knobs are told by `distributed_space`.

    Raises:
        NoSpace: an element type is not covered.
    """
    refuse_elements(root, GPU_ELEMENTS)
    problem = convolution_problem(root)
    choices = tile_choices(problem, step_choices(root))
    return (
        distributed_space("BaseDistribute", problem, target, choices, steps=False),
        distributed_space("BaseVectorize", problem, target, choices, steps=True),
    )
