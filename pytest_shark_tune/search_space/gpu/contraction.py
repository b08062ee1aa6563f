"""Search spaces of contractions on GPUs for which the compiler states no constraints."""

from __future__ import annotations

import math
from typing import Final

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.mlir import affine_map, shared_context
from pytest_shark_tune.dispatch.reasons import NothingToTile
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.gpu.mma import mma_spaces
from pytest_shark_tune.search_space.gpu.padding import padded_spaces
from pytest_shark_tune.search_space.gpu.reduction import reduction_space
from pytest_shark_tune.search_space.gpu.simt import simt_space
from pytest_shark_tune.search_space.gpu.tiling import GPU_ELEMENTS, Problem, indexing_loops
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import refuse_elements

__all__ = ["VERSION", "contraction_problem", "gpu_contraction_spaces"]

VERSION: Final = 2
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_FEW = 4
"""The most vectors of which the compiler computes each sum by all threads of a workgroup."""


def gpu_contraction_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a contraction with static, positive sizes, with matrix instructions if any fits.

    Otherwise there is one under TileAndFuse. A product with a vector, or with a few of them, has that of
    `reduction_space` as well if the reduction is the innermost loop of the matrix. A dot product has only that.

    Raises:
        NoSpace: An element type is not covered, or there is no parallel loop or no reduction.
    """
    if spaces := [space for space in mma_spaces(root, target) if space]:
        return padded_spaces(spaces, root)
    refuse_elements(root, GPU_ELEMENTS)
    shared = reduction_space(root, target) if _reads_along_reduction(root) else ()
    if not (root.m or root.n or root.batch):
        return shared
    return (
        *shared,
        simt_space(contraction_problem(root), target, igemm=False),
    )


def _reads_along_reduction(root: RootOp) -> bool:
    rows, columns = (math.prod(root.loops[dim] for dim in dims) for dims in (root.m, root.n))
    if min(rows, columns) > _FEW or not root.k:
        return False
    matrix = max(range(2), key=lambda index: math.prod(root.inputs[index].shape))
    with shared_context():
        return indexing_loops(affine_map(root.maps[matrix]))[-1:] == root.k[-1:]


def contraction_problem(root: RootOp) -> Problem:
    """Return the loops of a contraction. The innermost loops of rows and of columns are tiled.

    Raises:
        NoSpace: There is no parallel loop or no reduction.
    """
    tiled = sorted({*root.m[-1:], *root.n[-1:]}) or list(root.batch[-1:])
    if not tiled or not root.k:
        raise NothingToTile(f"{root.op} has no {'reduction' if tiled else 'parallel dimension'} to tile")
    with shared_context():
        loops = [indexing_loops(affine_map(text)) for text in root.maps]
    elements = [ELEMENT_BYTES[tensor.element] for tensor in (*root.inputs, *root.outputs)]
    spans = tuple(zip(loops, elements, strict=True))
    reductions = tuple(
        index for index, kind in enumerate(root.iterators) if kind == "reduction" and index != root.k[-1]
    )
    return Problem(
        sizes=root.loops,
        reductions=(*reductions, root.k[-1]),
        tiled=tuple(tiled),
        operands=spans[:2],
        result=spans[-1],
    )
