"""Search spaces on llvm-cpu that keep a tile of results in registers, under the pipeline RegisterTiling.

``DoubleTilingExpert`` computes a convolution element by element if the results lie along an image dimension. This
pipeline (`dispatch.text_pipelines`) vectorizes it. Figures given as seen were taken with IREE 3.13 on two AVX-512
cores.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

from iree.compiler import ir, passmanager

from pytest_shark_tune.dispatch.mlir import affine_map, loops_in
from pytest_shark_tune.dispatch.text_pipelines import REGISTER_TILING, pass_text
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.cpu.tiling import (
    Axis,
    Tiles,
    lane_count,
    registers,
    require_even_tiling,
    require_workgroups,
    tiled_space,
)
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.space import NoSpace, SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, fast_or_any, powers

__all__ = ["VERSION", "register_tiling_space"]

VERSION: Final = 1
"""The number of this space. Raise it if it has other members, or other knobs: plans are then made anew."""

_MOST_VECTORS = 4
"""The most native vectors along a row. A row of 80 f32, or of 20, was split into scalars and took 20 times as long."""

_LONGEST = 16
"""The most elements of a tile along any other loop."""

_FEWEST_SUMS = 2
"""The fewest native vectors of sums in flight, where there are as many results: one alone waits for itself."""


def register_tiling_space(root: RootOp, target: TargetFacts) -> SearchSpace:
    """Return the space of an op whose results lie along a loop that all operands read with stride one.

    The knobs are these, where ``i`` is a position in ``root.loops``. A dimension without a choice has no knob.

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements of a parallel dimension in the tile that stays in registers.

    Reductions are tiled to one. Tiles divide what they tile: a partial tile would be copied to memory that is allocated
    at run time, and the loader of embedded executables refuses a binary that calls ``malloc``.

    Raises:
        NoSpace: An operand is read in another way, the loop is too short or has no suitable divisor, or this
            compiler lacks a pass.
    """
    if problem := _unknown_pass(pass_text(REGISTER_TILING)):
        raise NoSpace(f"this compiler has no pipeline {REGISTER_TILING}: {problem}")
    lane, single = _lane_of(root)
    lanes = lane_count(root, target)
    axes = [_axis(root, index, lane, lanes, is_single=index in single) for index in range(len(root.loops))]
    parallel = [axis for axis in axes if axis.distribution]

    def build(fast: bool) -> SearchSpace:
        def constrain(body: Body, tiles: Tiles) -> None:
            require_even_tiling(body, tiles, axes)
            sums = body.product([tiles.vector[axis.index] for axis in parallel])
            body.limit(sums, registers(target) * lanes, "the product of the vector tiles")
            if fast:
                largest = math.prod(max(axis.vector) for axis in parallel)
                body.least(sums, min(_FEWEST_SUMS * lanes, largest), "the product of the vector tiles")
                require_workgroups(body, root, target, axes, tiles.distribution)

        return tiled_space(root, REGISTER_TILING, axes, constrain, peels=False)

    return fast_or_any(build)


def _axis(root: RootOp, index: int, lane: int, lanes: int, *, is_single: bool) -> Axis:
    size = root.loops[index]
    if root.iterators[index] != "parallel":
        return Axis(index, size, (1,))
    if index == lane:
        return Axis(index, size, _lane_tiles(root, size, lanes), divisors(size))
    if is_single:
        return Axis(index, size, (1,), divisors(size))
    return Axis(index, size, tuple(tile for tile in divisors(size) if tile <= _LONGEST), divisors(size))


def _lane_tiles(root: RootOp, size: int, lanes: int) -> tuple[int, ...]:
    """Return the divisors from half a native vector to a whole one, and the powers of two of whole ones that divide."""
    whole = [lanes * power for power in powers(_MOST_VECTORS)]
    least = min(size, lanes) // 2
    tiles = tuple(tile for tile in divisors(size) if least <= tile and (tile <= lanes or tile in whole))
    if not tiles or max(tiles) == 1:
        raise NoSpace(f"{REGISTER_TILING} has no vector for the {size} results of {root.op} that lie side by side")
    return tiles


def _lane_of(root: RootOp) -> tuple[int, frozenset[int]]:
    """Return the loop that the results lie along, and the parallel loops that are tiled to one.

    Those are the loops of a batch, those that an operand reads with a stride, since the vectorizer takes no strided
    access, and those that come after the results' own loop, since their vectors would have to be transposed: a tile
    of two of them took three times as long.

    Raises:
        NoSpace: There is no such loop, or an operand does not read it innermost with stride one.
    """
    with ir.Context():
        maps = [affine_map(text).results for text in root.maps]
        strided = {loop for results in maps for result in results for loop in _scaled(result)}
        *inputs, output = ([loops_in(result) for result in results] for results in maps)
    lane = output[-1][-1] if output and output[-1] else -1
    if lane < 0 or lane in strided or any(lane in loops for operand in inputs for loops in operand[:-1]):
        raise NoSpace(f"{REGISTER_TILING} needs operands that are read along the results, and {root.op} has others")
    after = {index for index, kind in enumerate(root.iterators) if kind == "parallel" and index > lane}
    return lane, frozenset(strided | after | set(root.batch))


def _scaled(expression: ir.AffineExpr) -> tuple[int, ...]:
    """Return the loops that have a factor in an index."""
    if isinstance(expression, ir.AffineMulExpr):
        return loops_in(expression)
    if isinstance(expression, ir.AffineBinaryExpr):
        return (*_scaled(expression.lhs), *_scaled(expression.rhs))
    return ()


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
