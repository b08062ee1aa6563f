"""Search spaces on llvm-cpu of products of packed tiles (``linalg.mmt4d``), under the pipeline Mmt4dTilingExpert.

Data tiling turns products into these ops: a matrix is stored as small tiles one after the other, and the tiles have the
size of the vectors that the compiler chose for the target. What was tried is described by IREE 3.13.
"""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.reasons import KindNotCovered
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers, refuse_elements

__all__ = ["MMT4D_OPS", "VERSION", "mmt4d_space"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

MMT4D_OPS = ("linalg.mmt4d", "linalg.batch_mmt4d")

_PIPELINE = "Mmt4dTilingExpert"
_PACKED_LOOPS = 6
"""The rows of tiles, the columns of tiles, the tiles of a sum, and the same three inside a tile."""
_MOST_TILES = 4
"""The most packed tiles in a vector tile along rows, columns and the sum."""


def mmt4d_space(root: RootOp, target: TargetFacts) -> SearchSpace:
    """Return the space of a product of packed tiles with static, positive sizes.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: packed tiles of a row or column, or batches, in a workgroup's tile;
    - ``vec_i``: packed tiles in the vector tile, along rows, columns and the sum.

    A packed tile is never divided. If an unpacking is fused with the product, it gets whole tiles, and the compiler
    refused every config that divided them ("large vector sizes").

    Raises:
        NoSpace: An element type is not covered.
    """
    refuse_elements(root)
    if len(root.loops) - len(root.batch) != _PACKED_LOOPS:
        raise KindNotCovered(
            f"{root.op} has {len(root.loops)} loops, and its space is for {_PACKED_LOOPS} besides batches"
        )
    return fast_or_any(lambda fast: _space(root, target, fast=fast))


def _space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space; with ``fast``, without configs that compile but cannot be fast."""
    first = len(root.batch)
    rows, columns, depth, *inner = range(first, first + _PACKED_LOOPS)
    axes = []
    for index, size in enumerate(root.loops):
        tiles = powers(min(size, _MOST_TILES)) if index in (rows, columns, depth) else (size,)
        if index in root.batch:
            axes.append(tiling.Axis(index, size, (1,), divisors(size)))
        elif index in (rows, columns):
            axes.append(tiling.Axis(index, size, tiles, tiling.distribution_tiles(size, tiles)))
        else:
            axes.append(tiling.Axis(index, size, tiles, (size,) if root.iterators[index] == "parallel" else ()))
    packed = tiling.lane_count(root, target) * tiling.registers(target)
    of_tile = [root.loops[index] for index in inner[:2]]
    room = min(target.max_stack_bytes, tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes)

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        for index in (rows, columns):
            tiling.require_whole_vectors(body, index, tiles.vector[index], tiles.distribution[index])
        widest = tiling.widest_element(root)
        unrolled = [tile for index, tile in tiles.vector.items() if index not in root.batch]
        tiling.require_vector_room(body, unrolled, widest, room, "the unrolled product of packed tiles")
        if fast:
            sums = body.product([tile for index, tile in tiles.vector.items() if root.iterators[index] == "parallel"])
            most = max(packed, of_tile[0] * of_tile[1])
            body.limit(sums, most, "the sums of a vector tile", ", which fills the vector registers")
            for axis in axes:
                if axis.index in (rows, columns):
                    tiling.require_small_rest(body, axis, tiles.vector[axis.index])
            tiling.require_workgroups(body, root, target, axes, tiles.distribution)

    return tiling.tiled_space(root, _PIPELINE, axes, constrain, peels=False)
