"""Search spaces on llvm-cpu of root ops other than contractions, convolutions and attention.

Elementwise ops, transposes and reductions (sums, softmax, normalizations) are structured ops of parallel and reduction
loops, all under the pipeline DoubleTilingExpert. Measurements quoted here were taken with IREE 3.13 on two AVX-512
cores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pytest_shark_tune.dispatch.reasons import DimensionNotCovered, NothingToTile
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers, refuse_elements

__all__ = ["VERSION", "cpu_generic_spaces", "has_long_rows"]

VERSION: Final = 2
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_PIPELINE = "DoubleTilingExpert"

_ROW_TILES = (1, 2, 4, 8, 16)
_CROSS_TILES = (1, 2)
_FEW_LOOPS = 2
_LONGEST_ROW = 256
"""The most native vectors in a row that ops fused with the root turn into one vector.

A softmax over rows of 312 ran. Over rows of 414 it compiled for 20 s and overflowed the stack of IREE's workers.
"""
_WHOLE_ROWS = "a vector tile of whole rows, as ops fused with the root have it,"
"""The limit is a quarter of the compiler's: with three eighths, unrolling a layer norm took more than 40 seconds."""


def cpu_generic_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of a structured op with static, positive sizes, and at least one parallel loop.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements in the vector tile, of a parallel dimension (``vector_common_parallel``) or of the
      innermost reduction (``vector_reduction``);
    - ``peel``: 1 if a tile has a remainder, so that loops are peeled; 0 if all tiles divide their dimensions.

    A config applies to the root op only. Ops fused with it get none, and their own loops are not tiled but become whole
    vectors. So if there is a reduction, rows of a vector tile are kept short enough for that, unless even one row is
    too long. In that case, configs are only for dispatches in which no other op goes over the rows (`has_long_rows`).

    Raises:
        NoSpace: An element type is not covered, or the op has no indexing maps or no parallel loop.
    """
    if not root.maps:
        raise DimensionNotCovered(f"{root.op} has no indexing maps, so its tiles cannot be told apart")
    refuse_elements(root)
    if "parallel" not in root.iterators:
        raise NothingToTile(
            f"{root.op} has no parallel loop, so there is nothing to share out and one way to compute it"
        )
    return (fast_or_any(lambda fast: _generic_space(root, target, fast=fast)),)


def has_long_rows(root: RootOp, target: TargetFacts) -> bool:
    """Return whether the root reduces rows that are too long for other ops of the dispatch to go over them again.

    Those ops get no config, so that each row becomes one vector.
    """
    limit = _LONGEST_ROW * target.native_vector_bytes
    return "reduction" in root.iterators and tiling.widest_element(root) * root.reduction_length > limit


def _generic_space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space; with ``fast``, without configs that compile but cannot be fast."""
    axes = _loop_axes(root, target)
    reductions = [axis for axis in axes if not axis.distribution]
    widest = tiling.widest_element(root)
    room = tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes
    row_bytes = widest * root.reduction_length

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        tiled = {axis.index: tiles.vector[axis.index] for axis in axes if axis.vector != (1,) or axis.distribution}
        tiling.require_tiling(body, tiled, tiles.distribution)
        parallel = [tiles.vector[index] for index in tiles.distribution]
        tiling.require_vector_room(body, list(tiles.vector.values()), widest, room, "the unrolled vector tile")
        least = math.prod(min(axis.vector) for axis in axes if axis.distribution) * row_bytes
        if reductions and least < room:
            tiling.require_vector_room(body, parallel, row_bytes, max(least, room // 4) + 1, _WHOLE_ROWS)
        if fast:
            tiling.require_registers(body, root, target, list(tiles.vector.values()), "the product of the vector tiles")
            tiling.require_workgroups(body, root, target, axes, tiles.distribution)

    return tiling.tiled_space(root, _PIPELINE, axes, constrain, peels=True)


def _loop_axes(root: RootOp, target: TargetFacts) -> list[tiling.Axis]:
    lanes = tiling.lane_count(root, target)
    inputs, output = tiling.operand_dims(root)[: len(root.inputs)], tiling.operand_dims(root)[len(root.inputs)]
    inner = _innermost(root, output)
    read = {_innermost(root, operand) for operand in inputs} - {-1, inner}
    reductions = [index for index, kind in enumerate(root.iterators) if kind == "reduction"]
    along = next((index for index in reversed(reductions) if index in read), -1)
    axes = []
    for index, size in enumerate(root.loops):
        if index in reductions:
            # Vectors run along the innermost of several reduction loops; the others get tiles of one.
            vector = _lane_tiles(size, lanes) if index == along else (1,)
            if index == reductions[-1] and along < 0:
                vector = tuple(tile for tile in _CROSS_TILES if tile <= size)
            axes.append(tiling.Axis(index, size, vector))
        elif index == inner and along < 0:
            vector = _lane_tiles(size, lanes)
            axes.append(tiling.Axis(index, size, vector, _distribution(root, size, vector)))
        elif index == inner or index in read or len(root.loops) <= _FEW_LOOPS:
            vector = tuple(tile for tile in _ROW_TILES if tile <= size)
            axes.append(tiling.Axis(index, size, vector, _distribution(root, size, vector)))
        else:
            axes.append(tiling.Axis(index, size, (1,), _thinned(divisors(size))))
    return axes


def _innermost(root: RootOp, operand: Sequence[tuple[int, ...]]) -> int:
    """Return the loop along memory: the last loop of more than one step, or -1 if there is none."""
    named = [dim for dims in operand for dim in dims if root.loops[dim] > 1]
    return named[-1] if named else -1


def _lane_tiles(size: int, lanes: int) -> tuple[int, ...]:
    """Return powers of two from half a native vector to four, or the loop itself if it is shorter."""
    tiles = tuple(tile for tile in powers(min(size, lanes * 4)) if 2 * tile >= lanes)
    return tiles or (size,)


def _distribution(root: RootOp, size: int, vector: Sequence[int]) -> tuple[int, ...]:
    """Return tiles that hold whole vectors, and fewer of them for more than two loops, since choices multiply."""
    tiles = tiling.distribution_tiles(size, vector)
    return tiles if len(root.loops) <= _FEW_LOOPS else _thinned(tiles)


def _thinned(tiles: Sequence[int]) -> tuple[int, ...]:
    """Return the largest of ``tiles``, tiles of at most half of the previous one, and the smallest."""
    kept: list[int] = []
    for tile in sorted(tiles, reverse=True):
        if not kept or tile * 2 <= kept[-1]:
            kept.append(tile)
    return tuple(sorted({min(tiles), *kept}))
