"""Search spaces of attention on llvm-cpu, under the pipeline LinalgExtTileAndVectorize.

The compiler converts attention to its online form before it reads configs. The default config of that form holds only
tiles, without a decomposition config as on GPUs. Measurements quoted here were taken with IREE 3.13 on two AVX-512
cores.
"""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.reasons import DefaultIsWrong, DimensionNotCovered
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, refuse_elements

__all__ = ["VERSION", "cpu_attention_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_PIPELINE = "LinalgExtTileAndVectorize"

_FLOATS = ("f16", "bf16", "f32", "f64")
_BOOLEANS = ("i1", "i8")
"""A mask of booleans is stored in bytes."""
_BEFORE_MASK = 4
"""The inputs before the mask: query, key, value and scale."""
_ROW_TILES = (1, 2, 4, 6, 8, 12, 16)
_KEY_TILES = (1, 2, 4, 8, 16, 32, 64)
_FEWEST_KEYS = 4
_MOST_LANES = 8
_WIDEST_KEY = 128
_SUM_BYTES = 4
"""Scores and sums are f32 for all inputs except f64."""


def cpu_attention_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of an attention with static, positive sizes.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a batch, query or value dimension in a workgroup's tile;
    - ``vec_i``: elements in the vector tile of the queries and of the values' width (``vector_common_parallel``), and
      keys in one step (``vector_reduction``).

    The width of a key (k1) is never tiled: softmax would be applied to parts of the scores, and results were wrong.

    Raises:
        NoSpace: An element type is not covered, or keys are so wide that the compiler's own default tiles them.
    """
    refuse_elements(root, _FLOATS, [*root.inputs[:_BEFORE_MASK], *root.outputs])
    refuse_elements(root, (*_FLOATS, *_BOOLEANS), root.inputs[_BEFORE_MASK:])
    for name in ("m", "n", "k1", "k2"):
        if len(getattr(root, name)) != 1:
            raise DimensionNotCovered(
                f"{root.op} has {len(getattr(root, name))} dimensions of class {name}; its space is for one"
            )
    if root.loops[root.k1[0]] > _WIDEST_KEY:
        raise DefaultIsWrong(
            f"keys of {root.loops[root.k1[0]]} elements are wider than {_WIDEST_KEY}: the compiler's default tiles "
            "their width, which gives a wrong result, so there is nothing right to compare with"
        )
    return (fast_or_any(lambda fast: _attention_space(root, target, fast=fast)),)


def _attention_space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space; with ``fast``, without configs that compile but cannot be fast."""
    (m,), (n,), (k1,), (k2,) = root.m, root.n, root.k1, root.k2
    sum_bytes = 8 if root.outputs[0].element == "f64" else _SUM_BYTES
    lanes = max(1, target.native_vector_bytes // sum_bytes)
    rows = tuple(tile for tile in _ROW_TILES if tile <= root.loops[m])
    keys = tuple(tile for tile in _KEY_TILES if tile <= root.loops[k2])
    if fast:
        # With one row or a few keys at a time, each value is loaded for a single use. At best this was half as fast.
        rows = rows[1:] or rows
        keys = tuple(tile for tile in keys if tile >= _FEWEST_KEYS) or keys
    batches = [tiling.Axis(index, root.loops[index], (1,), divisors(root.loops[index])) for index in root.batch]
    row_axis = tiling.Axis(m, root.loops[m], rows, tiling.distribution_tiles(root.loops[m], rows))
    key_axis = tiling.Axis(k2, root.loops[k2], keys)
    # Distributing the width of a value would compute all scores again for each part.
    width_axis = tiling.Axis(n, root.loops[n], _width_tiles(root.loops[n], lanes, fast=fast), (root.loops[n],))
    axes = [*batches, row_axis, width_axis, key_axis]

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        row, key, width = tiles.vector[m], tiles.vector[k2], tiles.vector[n]
        tiling.require_whole_vectors(body, m, row, tiles.distribution[m])
        room = tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes
        scores, values = [row, key, body.dims[k1]], [row, key, width]
        tiling.require_vector_room(body, scores, sum_bytes, room, "the unrolled product of queries and keys")
        tiling.require_vector_room(body, values, sum_bytes, room, "the unrolled product of scores and values")
        if fast:
            for axis in (row_axis, key_axis):
                tiling.require_small_rest(body, axis, tiles.vector[axis.index])
            tiling.require_workgroups(body, root, target, axes, tiles.distribution)

    return tiling.tiled_space(root, _PIPELINE, axes, constrain, peels=False)


def _width_tiles(size: int, lanes: int, *, fast: bool) -> tuple[int, ...]:
    """Return parts of a value's width: whole vectors, or all of it if that is at most eight native vectors.

    With ``fast`` these are the two longest, since scores are weighted again for every part.
    """
    tiles = tuple(tile for tile in divisors(size) if tile <= lanes * _MOST_LANES and tile % lanes == 0)
    if size <= lanes * _MOST_LANES:
        tiles = tuple(sorted({*tiles, size}))
    tiles = tiles or tuple(tile for tile in divisors(size) if tile <= lanes * _MOST_LANES)
    return tiles[-2:] if fast else tiles
