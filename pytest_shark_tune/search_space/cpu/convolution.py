"""Search spaces of convolutions and poolings on llvm-cpu.

The layout of an op determines the pipeline. Measurements quoted here were taken with IREE 3.13 on two AVX-512 cores.

- Two image dimensions in one of the layouts in ``_DECOMPOSED``: the pipeline ConvTileAndDecomposeExpert makes a
  one-dimensional convolution, which is vectorized. This requires a vector tile of size one in an image dimension and in
  that dimension's filter loop. All other configs run element by element, 20 to 100 times slower.
- One image dimension: DoubleTilingExpert vectorizes the op directly.
- Everything else whose results lie along a loop that all operands read with stride one (grouped and depthwise with
  channels first): no named pipeline vectorizes the op, and one that is written as text does (`register_tiling`).
- The rest (filters with output channels first, a stride along a row): no pipeline vectorizes the op. Under
  DoubleTilingExpert, tiles still choose the order of loops that LLVM gets.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.reasons import DimensionNotCovered, NoSpace
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.cpu.register_tiling import register_tiling_space
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers, refuse_elements

__all__ = ["VERSION", "cpu_convolution_spaces"]

VERSION: Final = 2
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_DECOMPOSED = {
    ("nhwc", "HWcf", "nhwf"),
    ("nchw", "fcHW", "nfhw"),
    ("nhwd", "HWd", "nhwd"),
    ("nhwn", "HW", "nhwn"),
    ("nnhw", "HW", "nnhw"),
}
"""Layouts of image, filter and result that IREE decomposes.

``H`` and ``W`` are filter loops, ``f`` is an output channel, ``n`` is a batch or the channel of a pooling, and ``d`` is
a channel that image, filter and result share.
"""

_DEEPEST = 32
_SHARE_OF_ROOM = 2
"""Vector tiles of more than half of the compiler's limit reached at most two thirds of the speed of smaller ones."""


def cpu_convolution_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of a convolution or pooling with static, positive sizes.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements in the vector tile, of a parallel dimension (``vector_common_parallel``) or of a
      reduction (``vector_reduction``).

    Loops are never peeled, since the pipelines compute the remainder of a tile element by element in any case. Cache
    tiles are never used, since ConvTileAndDecomposeExpert ignores them.

    Raises:
        NoSpace: An element type is not covered, or the op has no image dimension.
    """
    refuse_elements(root)
    if not root.output_image or len(root.output_image) != len(root.filter_loop):
        raise DimensionNotCovered(
            f"{root.op} has {len(root.output_image)} image and {len(root.filter_loop)} filter dimensions, "
            "and its space is for one of each, or more"
        )
    is_decomposed = len(root.output_image) == 2 and _operand_letters(root) in _DECOMPOSED
    if is_decomposed or len(root.output_image) == 1:
        return (fast_or_any(lambda fast: _vectorized(root, target, fast=fast)),)
    with suppress(NoSpace):
        return (register_tiling_space(root, target),)
    return (fast_or_any(lambda fast: _scalar(root, target, fast=fast)),)


def _operand_letters(root: RootOp) -> tuple[str, ...]:
    """Return one letter for each dimension of image, filter and result, as in ``_DECOMPOSED``."""
    letters = {
        **dict.fromkeys(root.batch, "n"),
        **dict.fromkeys(root.depth, "d"),
        **dict.fromkeys(root.input_channel, "c"),
        **dict.fromkeys(root.output_channel, "f"),
        **dict(zip(root.output_image, "hw", strict=True)),
        **dict(zip(root.filter_loop, "HW", strict=True)),
    }
    # If two loops index an image dimension, the first is a loop of the result.
    return tuple("".join(letters[dims[0]] for dims in operand) for operand in tiling.operand_dims(root))


def _vectorized(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space under a pipeline that vectorizes the op; with ``fast``, without configs that cannot be fast."""
    lanes = tiling.lane_count(root, target)
    lane = tiling.operand_dims(root)[-1][-1][0]
    axes = [_vector_axis(root, index, lane, lanes) for index in range(len(root.loops))]
    decomposed = len(root.output_image) == 2

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        tiling.require_even_tiling(body, tiles, axes)
        if decomposed:
            _require_unit_window(body, root, tiles)
        room = tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes
        widest = tiling.widest_element(root)
        unrolled = list(tiles.vector.values())
        if not fast:
            tiling.require_vector_room(body, unrolled, widest, room, "the unrolled vector tile")
            return
        tiling.require_vector_room(body, unrolled, widest, room // _SHARE_OF_ROOM, "the unrolled vector tile")
        parallel = [axis for axis in axes if axis.distribution]
        # Two vectors of sums, if there are enough.
        fewest = min(2 * lanes, math.prod(max(axis.vector) for axis in parallel) // 2)
        sums = [tiles.vector[axis.index] for axis in parallel]
        tiling.require_registers(body, root, target, sums, "the product of the parallel vector tiles", fewest=fewest)
        tiling.require_workgroups(body, root, target, axes, tiles.distribution)

    pipeline = "ConvTileAndDecomposeExpert" if decomposed else "DoubleTilingExpert"
    return tiling.tiled_space(root, pipeline, axes, constrain, peels=False)


def _vector_axis(root: RootOp, index: int, lane: int, lanes: int) -> tiling.Axis:
    size = root.loops[index]
    if root.iterators[index] != "parallel":
        channels = math.prod(root.loops[position] for position in root.input_channel)
        if index in root.filter_loop:
            # If there are channels, filter tiles of more than one were at least a quarter slower.
            return tiling.Axis(index, size, (1,) if channels >= lanes else tuple(sorted({1, size})))
        return tiling.Axis(index, size, tuple(tile for tile in divisors(size) if tile <= _DEEPEST))
    if index == lane:
        return tiling.Axis(index, size, _lane_tiles(size, lanes), divisors(size))
    if index in root.output_image and lane in root.output_image:
        # Vectors across the rows of an image reached at most a tenth of the speed.
        return tiling.Axis(index, size, (1,), divisors(size))
    if index in root.batch:
        return tiling.Axis(
            index, size, tiling.row_tiles(size) if root.kind == "pooling" and size > 1 else (1,), divisors(size)
        )
    return tiling.Axis(index, size, tiling.row_tiles(size), divisors(size))


def _lane_tiles(size: int, lanes: int) -> tuple[int, ...]:
    """Return powers of two that divide ``size``, from half a native vector to four, or other divisors if none does.

    Other lengths (24, 48, 96) reached at most a third of the speed of a power of two.
    """
    tiles = tuple(tile for tile in powers(min(size, lanes * 4)) if size % tile == 0 and 2 * tile >= lanes)
    return tiles or tuple(tile for tile in divisors(size) if tile <= lanes * 4)


def _require_unit_window(body: Body, root: RootOp, tiles: tiling.Tiles) -> None:
    one = body.number(1)
    either = []
    for image, window in zip(root.output_image, root.filter_loop, strict=True):
        either.append(body.every([body.equal(tiles.vector[image], one), body.equal(tiles.vector[window], one)]))
    (height, width), (window_height, window_width) = root.output_image, root.filter_loop
    body.require(
        body.either(either),
        f"vec_{height} ({{}}) and vec_{window_height} ({{}}), or vec_{width} ({{}}) and vec_{window_width} ({{}}), "
        "must both be 1, or the convolution is not vectorized",
        *(tiles.vector[index] for index in (height, window_height, width, window_width)),
    )


def _scalar(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """Build the space of an op that no pipeline vectorizes: tiles that order and distribute the loops.

    A tile is one, or long: the cost of a loop over a few elements exceeds its benefit.
    """
    lanes = tiling.lane_count(root, target)
    axes = []
    for index, size in enumerate(root.loops):
        if root.iterators[index] != "parallel":
            tiles = (1, size) if index in root.filter_loop else _long_tiles(size, lanes)
            axes.append(tiling.Axis(index, size, tuple(sorted(set(tiles)))))
            continue
        vector = (1,) if index in root.batch else _long_tiles(size, lanes)
        axes.append(tiling.Axis(index, size, vector, _coarse_tiles(size)))

    def constrain(body: Body, tiles: tiling.Tiles) -> None:
        tiling.require_even_tiling(body, tiles, axes)
        parallel = [tiles.vector[axis.index] for axis in axes if axis.distribution]
        # The initial zeros of the result are one vector, regardless of the convolution.
        tiling.require_vector_room(
            body,
            parallel,
            ELEMENT_BYTES[root.outputs[0].element],
            tiling.MOST_NATIVE_VECTORS * target.native_vector_bytes // 8,
            "the vector tile of the result",
        )
        if fast:
            tiling.require_workgroups(body, root, target, axes, tiles.distribution)

    return tiling.tiled_space(root, "DoubleTilingExpert", axes, constrain, peels=False)


def _long_tiles(size: int, lanes: int) -> tuple[int, ...]:
    return tuple(tile for tile in divisors(size) if tile == 1 or lanes // 2 <= tile <= lanes * 4) if size > 1 else (1,)


def _coarse_tiles(size: int) -> tuple[int, ...]:
    """Return divisors of ``size`` that differ by a factor of at least two, to limit the choices of many loops."""
    tiles: list[int] = []
    for tile in reversed(divisors(size)):
        if not tiles or tile * 2 <= tiles[-1]:
            tiles.append(tile)
    return tuple(sorted({1, *tiles}))
