"""Search spaces of matmul-like contractions on llvm-cpu, under the pipeline DoubleTilingExpert.

Measurements quoted here were taken with IREE 3.13 on two AVX-512 cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Final

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.cpu.mmt4d import MMT4D_OPS, mmt4d_space
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers, refuse_elements

__all__ = ["VERSION", "cpu_contraction_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_PIPELINE = "DoubleTilingExpert"

_ROW_TILES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
_DEPTH_TILES = (1, 2, 4, 8, 16)
_STRIDED_DEPTH_TILES = (4, 8, 16, 32)
_LONE_DEPTH_TILES = (4, 8, 16, 32, 64)

_FEWEST_ACCUMULATORS = 6
"""Vectors of sums in flight. The best 512x512x512 f32 matmul with four or five of them took 1.3 times the best time."""

_RAGGED_SHARE = 64
"""The remainder of whole vectors in the last workgroup may be at most this part (1/64) of a dimension."""


def cpu_contraction_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of a contraction with static, positive sizes. Products of packed tiles have their own.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements in the vector tile, of a parallel dimension (``vector_common_parallel``) or of the
      innermost reduction (``vector_reduction``);
    - ``peel``: 1 if a tile has a remainder, so that loops are peeled; 0 if all tiles divide their dimensions.

    There are no knobs for cache tiles. Distribution tiles block for the cache as well, no measured cache tile was
    faster beyond the noise, and a cache tile of the reduction often makes vectors that the compiler refuses.

    Raises:
        NoSpace: An element type is not covered.
    """
    if root.op in MMT4D_OPS:
        return (mmt4d_space(root, target),)
    refuse_elements(root)
    return (fast_or_any(lambda fast: _contraction_space(root, target, fast=fast)),)


def _contraction_space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space; with ``fast``, without configs that compile but cannot be fast."""
    loops, lane, depth = _tiled_loops(root, target)
    others = [tiling.Axis(index, root.loops[index], (1,)) for index in root.k if index != depth]

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        vector = {index: tile for index, tile in tiles.vector.items() if index in loops}
        tiling.require_tiling(body, vector, tiles.distribution)
        _assert_compiles(body, root, target, vector)
        if fast:
            parallel = {index: vector[index] for index in tiles.distribution}
            _assert_whole_vectors(body, loops, lane, vector, tiles.distribution)
            _assert_registers(body, root, target, loops, lane, parallel)
            tiling.require_workgroups(body, root, target, loops.values(), tiles.distribution)

    return tiling.tiled_space(root, _PIPELINE, [*loops.values(), *others], constrain, peels=True)


def _tiled_loops(root: RootOp, target: TargetFacts) -> tuple[dict[int, tiling.Axis], int, int]:
    """Return the parallel and the innermost reduction loops, the loop along vectors, and the innermost reduction."""
    lanes = tiling.lane_count(root, target)
    *inputs, output = (
        [dim for dims in operand if len(dims) == 1 for dim in dims] for operand in tiling.operand_dims(root)
    )
    parallel = [index for index, kind in enumerate(root.iterators) if kind == "parallel"]
    wide = [index for index in output if index in parallel and index not in root.batch and root.loops[index] > 1]
    lane = (wide or parallel or [-1])[-1]
    strided = any(lane in read and read[-1] != lane for read in inputs)
    alone = all(root.loops[index] == 1 for index in parallel if index != lane and index not in root.batch)
    longest = lanes if strided else lanes * 8
    shortest = max(1, lanes // 4) if strided and alone else lanes
    loops: dict[int, tiling.Axis] = {}
    for index in parallel:
        size = root.loops[index]
        if index in root.batch:
            loops[index] = tiling.Axis(index, size, (1,), divisors(size))
            continue
        vector = _lane_tiles(size, shortest, longest) if index == lane else tuple(t for t in _ROW_TILES if t <= size)
        loops[index] = tiling.Axis(index, size, vector, tiling.distribution_tiles(size, vector))
    depth = root.k[-1] if root.k else -1
    if depth >= 0:
        size = root.loops[depth]
        choices = (_LONE_DEPTH_TILES if alone else _STRIDED_DEPTH_TILES) if strided else _DEPTH_TILES
        tiles = tuple(t for t in choices if t <= size) or (size,)
        loops[depth] = tiling.Axis(depth, size, tiles)
    return loops, lane, depth


def _lane_tiles(size: int, shortest: int, longest: int) -> tuple[int, ...]:
    """Return powers of two, since other lengths were at least 1.7 times slower.

    They range from one native vector to eight. Half of ``shortest`` is included if its remainder is smaller. If memory
    runs along another dimension, more than one vector only shuffles more (at least 2.5 times slower). If there is no
    other dimension, a quarter of a vector is often better, since the reduction then fills the vectors.
    """
    half = shortest // 2
    if half and size % half < size % shortest:
        shortest = half
    tiles = tuple(t for t in powers(min(size, longest)) if t >= shortest)
    return tiles or tuple(sorted({powers(size)[-1], size}))


def _assert_compiles(body: Body, root: RootOp, target: TargetFacts, vector: Mapping[int, Any]) -> None:
    """Apply the compiler's limits: on native vectors in the unrolled contraction, and on the stack for spills."""
    room = min(target.max_stack_bytes, tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes)
    widest = tiling.widest_element(root)
    unrolled = body.product([body.number(widest), *vector.values()])
    body.require(
        body.at_most(unrolled, body.number(room - 1)),
        f"the unrolled vector tile takes {{}} bytes and must take less than {room}, or it does not compile",
        unrolled,
    )


def _assert_whole_vectors(
    body: Body, loops: Mapping[int, tiling.Axis], lane: int, vector: Mapping[int, Any], distribution: Mapping[int, Any]
) -> None:
    """Limit the remainders of vector tiles, which are computed in shorter vectors or element by element."""
    for index, loop in loops.items():
        tiling.require_small_rest(body, loop, vector[index])
    others = math.prod(loops[index].size for index in distribution if index != lane)
    if lane not in distribution or others == 1:
        return
    # The compiler does not know the length of ragged vectors in a last workgroup. In the median, such configs were two
    # to nine times slower.
    dim, allowed = body.dims[lane], loops[lane].size // _RAGGED_SHARE
    ragged = body.rest(body.rest(dim, distribution[lane]), vector[lane])
    body.require(
        body.at_most(ragged, body.number(allowed)),
        f"the last workgroup along dim_{lane} ({{}}) must have at most {allowed} elements left over by whole "
        f"vectors, not {{}}",
        dim,
        ragged,
    )


def _assert_registers(
    body: Body,
    root: RootOp,
    target: TargetFacts,
    loops: Mapping[int, tiling.Axis],
    lane: int,
    parallel: Mapping[int, Any],
) -> None:
    """Limit accumulators: at most as many as registers hold, and enough to hide latency and to reuse loaded values."""
    sums, words = list(parallel.values()), "the product of the parallel vector tiles"
    rows = [index for index in parallel if index != lane and len(loops[index].vector) > 1]
    if not rows:
        # The product of a vector and a matrix waits for memory, not for the multipliers.
        tiling.require_registers(body, root, target, sums, words)
        return
    lanes = tiling.lane_count(root, target)
    largest = _largest_product([loops[index].vector for index in parallel], tiling.registers(target) * lanes)
    fewest = min(_FEWEST_ACCUMULATORS * lanes, largest)
    tiling.require_registers(body, root, target, sums, words, fewest=fewest)
    tiles = f"the product of the vector tiles of dimensions {', '.join(map(str, rows))}"
    reason = f", so that what is loaded along dim_{lane} is used twice"
    body.least(body.product([parallel[index] for index in rows]), 2, tiles, reason)


def _largest_product(choices: Iterable[Sequence[int]], limit: int) -> int:
    """Return the largest product of one number per element of ``choices`` that is at most ``limit``."""
    products = reduce(lambda found, more: {a * b for a in found for b in more if a * b <= limit}, choices, {1})
    return max(products, default=1)
