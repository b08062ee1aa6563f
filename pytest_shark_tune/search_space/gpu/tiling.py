"""What the GPU spaces that this package builds share: tiles of workgroups and threads as knobs, and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.types import TargetFacts
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.tiles import powers

__all__ = [
    "GPU_ELEMENTS",
    "Problem",
    "TileChoices",
    "indexing_loops",
    "require_thread_tiles",
    "require_threads",
    "require_work",
    "tile_choices",
    "tile_sizes",
]

GPU_ELEMENTS = ("i8", "i16", "f16", "bf16", "i32", "f32")
"""The element types that the spaces cover."""

_MOST_THREAD_OUTPUTS = 64
"""Sums that a thread keeps: with the operands they must fit in 255 registers."""

_MOST_UNROLLED = 2048
"""Multiply-adds of a thread in one step of the reduction; they are unrolled, and 4,096 take seconds to compile."""

_FEWEST_THREAD_OUTPUTS = 4
"""A thread with fewer sums loads about as much as it computes."""

_LARGEST_TILE = 256
_LARGEST_THREAD_TILE = 16


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A nest of loops as a pipeline sees it: sizes, which of them are reductions, and what each operand spans.

    ``tiled`` are the parallel loops that get knobs, outermost first; all other parallel loops are tiled by 1.
    ``operands`` are, for each input, the loops that index it and its element's size in bytes; ``result`` are the
    result's.
    """

    sizes: tuple[int, ...]
    reductions: tuple[int, ...]
    tiled: tuple[int, ...]
    operands: tuple[tuple[tuple[int, ...], int], ...]
    result: tuple[tuple[int, ...], int]


class TileChoices(msgspec.Struct, frozen=True, kw_only=True):
    """For each loop with knobs, the tiles to try: of a workgroup, of a thread, and of one step of a reduction."""

    workgroup: Mapping[int, tuple[int, ...]]
    thread: Mapping[int, tuple[int, ...]]
    reduction: Mapping[int, tuple[int, ...]]


def indexing_loops(affine: ir.AffineMap) -> tuple[int, ...]:
    """Return the loops that index a dimension alone."""
    return tuple(result.position for result in affine.results if isinstance(result, ir.AffineDimExpr))


def tile_choices(
    problem: Problem, reduction: Mapping[int, tuple[int, ...]], *, largest: int = _LARGEST_TILE
) -> TileChoices:
    """Tiles for the tiled loops of ``problem``, with the reduction's as given."""
    return TileChoices(
        workgroup={index: tile_sizes(problem.sizes[index], largest) for index in problem.tiled},
        thread={index: powers(min(problem.sizes[index], _LARGEST_THREAD_TILE)) for index in problem.tiled},
        reduction=reduction,
    )


def tile_sizes(size: int, largest: int) -> tuple[int, ...]:
    """Powers of two and three times such up to ``largest`` that leave at most a quarter of ``size`` idle at its end.

    Where there is none, those that leave the least.
    """
    room = min(largest, 1 << (size - 1).bit_length())
    tiles = sorted({factor * power for factor in (1, 3) for power in powers(room) if factor * power <= room})
    idle = {tile: -size % tile for tile in tiles}
    allowed = max(size // 4, min(idle.values()))
    return tuple(tile for tile in tiles if idle[tile] <= allowed)


def require_threads(
    body: Body, target: TargetFacts, workgroup: Mapping[int, Any], thread: Mapping[int, Any], *, fast: bool
) -> dict[int, Any]:
    """Ask that threads fill a workgroup's tile within the target's limits; return how many there are by loop.

    With ``fast`` they must also fill whole subgroups.
    """
    threads = {}
    for index, tile in workgroup.items():
        body.require(
            body.divides(thread[index], tile),
            f"wg_{index} ({{}}) must be a multiple of thr_{index} ({{}})",
            tile,
            thread[index],
        )
        threads[index] = body.quotient(tile, thread[index])
    _limit_threads(body, target, threads, fast=fast)
    return threads


def require_thread_tiles(
    body: Body, target: TargetFacts, workgroup: Mapping[int, Any], threads: Mapping[int, Any], *, fast: bool
) -> dict[int, Any]:
    """Do the same as ``require_threads`` where the threads are knobs; return each thread's tile by loop."""
    thread = {}
    for index, tile in workgroup.items():
        body.require(
            body.divides(threads[index], tile),
            f"wg_{index} ({{}}) must be a multiple of the threads along it ({{}})",
            tile,
            threads[index],
        )
        thread[index] = body.quotient(tile, threads[index])
    _limit_threads(body, target, threads, fast=fast)
    return thread


def _limit_threads(body: Body, target: TargetFacts, threads: Mapping[int, Any], *, fast: bool) -> None:
    count = body.product(list(threads.values()))
    body.limit(count, target.max_threads, "the threads of a workgroup")
    if fast:
        subgroup = target.subgroup_sizes[0]
        body.require(
            body.divides(body.number(subgroup), count),
            f"the threads of a workgroup ({{}}) must fill subgroups of {subgroup}",
            count,
        )


def require_work(
    body: Body, problem: Problem, thread: Mapping[int, Any], reduction: Mapping[int, Any], *, fast: bool
) -> None:
    """Limits on what one thread computes: what its registers hold, and what can be unrolled."""
    outputs = body.product(list(thread.values()))
    body.limit(outputs, _MOST_THREAD_OUTPUTS, "the elements that a thread computes")
    body.limit(body.product([outputs, *reduction.values()]), _MOST_UNROLLED, "the multiply-adds that a thread unrolls")
    possible = math.prod(problem.sizes[index] for index in problem.tiled)
    if fast and possible >= 64 * _FEWEST_THREAD_OUTPUTS:
        body.least(outputs, _FEWEST_THREAD_OUTPUTS, "the elements that a thread computes")
