"""Search spaces on llvm-cpu that keep a tile of results in registers, under pipelines that are written as text.

``DoubleTilingExpert`` computes a convolution element by element if the results lie along an image dimension. These
pipelines (`dispatch.text_pipelines`) vectorize it. Measurements quoted here were taken with IREE 3.13 on two
AVX-512 cores.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

from iree.compiler import ir, passmanager

from pytest_shark_tune.dispatch.reasons import DimensionNotCovered, KindNotCovered, NothingFits
from pytest_shark_tune.dispatch.text_pipelines import PEELED_REGISTER_TILING, REGISTER_TILING, pass_text
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu import tiling
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers

__all__ = ["VERSION", "register_tiling_space"]

VERSION: Final = 2
"""The number of this space. Raise it if it has other members, or other knobs: plans are then made anew."""

_MOST_VECTORS = 4
"""The most native vectors along a row. A row of 80 f32, or of 20, was split into scalars and took 20 times as long."""

_FEWEST_SUMS = 2
"""The fewest native vectors of sums in flight, if there are enough results. A single one is limited by its latency."""


def register_tiling_space(root: RootOp, target: TargetFacts) -> SearchSpace:
    """Return the space of an op whose results lie along a loop that all operands read with stride one.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements of a parallel dimension in the tile that stays in registers.

    Reductions are tiled to one. Tiles divide what they tile: a partial tile would be copied to memory that is allocated
    at run time, and the loader of embedded executables refuses a binary that calls ``malloc``. If no vector length
    divides a row, the pipeline peels the loop along it, and a workgroup has whole rows.

    Raises:
        NoSpace: An operand is read in another way, the loop is too short, or this compiler lacks a pass.
    """
    lane, single = _lane_of(root)
    lanes = tiling.lane_count(root, target)
    vectors = _even_vectors(root.loops[lane], lanes)
    pipeline = REGISTER_TILING if vectors else PEELED_REGISTER_TILING
    if problem := _unknown_pass(pass_text(pipeline)):
        raise KindNotCovered(f"this compiler has no pipeline {pipeline}: {problem}")
    rows = divisors(root.loops[lane]) if vectors else (root.loops[lane],)
    along = tiling.Axis(lane, root.loops[lane], vectors or _peeled_vectors(root, lane, lanes), rows)
    others = [_axis(root, index, is_single=index in single) for index in range(len(root.loops)) if index != lane]
    axes = sorted([along, *others], key=lambda axis: axis.index)
    parallel = [axis for axis in axes if axis.distribution]
    fewest = min(_FEWEST_SUMS * lanes, math.prod(max(axis.vector) for axis in parallel))

    def build(fast: bool) -> SearchSpace:
        def constrain(body: Body, tiles: tiling.Tiles) -> None:
            tiling.require_even_tiling(body, tiles, axes if vectors else others)
            sums, words = [tiles.vector[axis.index] for axis in parallel], "the product of the parallel vector tiles"
            tiling.require_registers(body, root, target, sums, words, fewest=fewest if fast else None)
            if fast:
                tiling.require_workgroups(body, root, target, axes, tiles.distribution)

        return tiling.tiled_space(root, pipeline, axes, constrain, peels=False)

    return fast_or_any(build)


def _axis(root: RootOp, index: int, *, is_single: bool) -> tiling.Axis:
    size = root.loops[index]
    if root.iterators[index] != "parallel":
        return tiling.Axis(index, size, (1,))
    return tiling.Axis(index, size, (1,) if is_single else tiling.row_tiles(size), divisors(size))


def _even_vectors(size: int, lanes: int) -> tuple[int, ...]:
    """Return the divisors from half a native vector to a whole one, and the powers of two of whole ones that divide."""
    whole = [lanes * power for power in powers(_MOST_VECTORS)]
    least = min(size, lanes) // 2
    tiles = tuple(tile for tile in divisors(size) if least <= tile and (tile <= lanes or tile in whole))
    return tiles if max(tiles, default=1) > 1 else ()


def _peeled_vectors(root: RootOp, lane: int, lanes: int) -> tuple[int, ...]:
    """Return half a native vector, a whole one and two, as far as they are shorter than a row."""
    size = root.loops[lane]
    tiles = tuple(tile for tile in (lanes // 2, lanes, 2 * lanes) if 1 < tile < size)
    if not tiles:
        raise NothingFits(f"the {size} results in a row of {root.op} are too few for a vector")
    return tiles


def _lane_of(root: RootOp) -> tuple[int, frozenset[int]]:
    """Return the loop that the results lie along, and the parallel loops that are tiled to one.

    Those are the loops of a batch, those that the image is read along with a stride, since the vectorizer takes no
    strided access, and those that come after the results' own loop, since their vectors would have to be transposed: a
    tile of two of them took three times as long.

    Raises:
        NoSpace: There is no such loop, or an operand does not read it innermost with stride one.
    """
    *inputs, output = tiling.operand_dims(root)
    lane = output[-1][-1] if output and output[-1] else -1
    strided = {index for index, stride in zip(root.output_image, root.strides, strict=True) if stride != 1}
    if lane < 0 or lane in strided or any(lane in loops for operand in inputs for loops in operand[:-1]):
        raise DimensionNotCovered(
            f"{REGISTER_TILING} reads every operand with stride one along the results, and {root.op} does not"
        )
    after = {index for index, kind in enumerate(root.iterators) if kind == "parallel" and index > lane}
    return lane, frozenset(strided | after | set(root.batch))


@cache
def _unknown_pass(text: str) -> str:
    """Return the compiler's message if it does not know a pass or an option of a pipeline; else nothing."""
    with ir.Context() as context:
        context.enable_multithreading(False)
        try:
            passmanager.PassManager.parse(f"func.func({text})")
        except ValueError as error:
            return str(error)
    return ""
