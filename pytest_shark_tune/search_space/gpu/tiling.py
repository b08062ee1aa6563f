"""Tiles of workgroups and threads as knobs, and their limits, for the GPU spaces that this package builds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.types import TargetFacts
from pytest_shark_tune.search_space.emit import Body
from pytest_shark_tune.search_space.tiles import powers, tile_knobs

__all__ = [
    "GPU_ELEMENTS",
    "Problem",
    "ThreadTiles",
    "TileChoices",
    "indexing_loops",
    "require_shared_memory",
    "require_thread_tiles",
    "require_threads",
    "require_work",
    "thread_tiles",
    "tile_bytes",
    "tile_choices",
    "tile_sizes",
]

GPU_ELEMENTS = ("i8", "i16", "f16", "bf16", "i32", "f32")
"""The element types that the spaces cover."""

_MOST_THREAD_OUTPUTS = 64
"""Sums that a thread keeps. With the operands they must fit in 255 registers."""

_MOST_UNROLLED = 2048
"""Multiply-adds of a thread in one step of the reduction. They are unrolled, and 4,096 take seconds to compile."""

_FEWEST_THREAD_OUTPUTS = 4
"""A thread with fewer sums loads about as many values as it computes."""

_LARGEST_TILE = 256
_LARGEST_THREAD_TILE = 16


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A nest of loops as a pipeline sees it."""

    sizes: tuple[int, ...]
    """The trip count of each loop."""
    reductions: tuple[int, ...]
    """The loops that are reductions."""
    tiled: tuple[int, ...]
    """The parallel loops that get knobs, outermost first; all other parallel loops are tiled by 1."""
    operands: tuple[tuple[tuple[int, ...], int], ...]
    """The loops that index each input, and the size of its elements in bytes."""
    result: tuple[tuple[int, ...], int]
    """The same for the result."""


class TileChoices(msgspec.Struct, frozen=True, kw_only=True):
    """The tiles to try for each loop with knobs: of a workgroup, of a thread, and of one step of a reduction."""

    workgroup: Mapping[int, tuple[int, ...]]
    thread: Mapping[int, tuple[int, ...]]
    reduction: Mapping[int, tuple[int, ...]]


def indexing_loops(affine: ir.AffineMap) -> tuple[int, ...]:
    """Return the loops that index a dimension alone."""
    return tuple(result.position for result in affine.results if isinstance(result, ir.AffineDimExpr))


def tile_choices(
    problem: Problem, reduction: Mapping[int, tuple[int, ...]], *, largest: int = _LARGEST_TILE
) -> TileChoices:
    """Return tiles for the tiled loops of ``problem``; those of reductions are given."""
    return TileChoices(
        workgroup={index: tile_sizes(problem.sizes[index], largest) for index in problem.tiled},
        thread={index: powers(min(problem.sizes[index], _LARGEST_THREAD_TILE)) for index in problem.tiled},
        reduction=reduction,
    )


def tile_sizes(size: int, largest: int) -> tuple[int, ...]:
    """Return tiles up to ``largest``: powers of two, and three times such.

    They leave at most a quarter of ``size`` idle at its end. If no tile does, those that leave the least are returned.
    """
    room = min(largest, 1 << (size - 1).bit_length())
    tiles = sorted({factor * power for factor in (1, 3) for power in powers(room) if factor * power <= room})
    idle = {tile: -size % tile for tile in tiles}
    allowed = max(size // 4, min(idle.values()))
    return tuple(tile for tile in tiles if idle[tile] <= allowed)


class ThreadTiles(NamedTuple):
    """The tiles of `TileChoices` as values of a constraints op, by loop."""

    workgroup: dict[int, Any]
    thread: dict[int, Any]
    reduction: dict[int, Any]


def thread_tiles(body: Body, target: TargetFacts, choices: TileChoices, *, fast: bool) -> ThreadTiles:
    """Return tiles whose threads all lie along x, as the derived knob ``wg_size_x``; see `require_threads`."""
    tiles = ThreadTiles(
        workgroup=tile_knobs(body, "wg", choices.workgroup),
        thread=tile_knobs(body, "thr", choices.thread),
        reduction=tile_knobs(body, "red", choices.reduction),
    )
    threads = require_threads(body, target, tiles.workgroup, tiles.thread, fast=fast)
    body.derived_knob("wg_size_x", body.product(list(threads.values())), "the number of threads")
    return tiles


def require_threads(
    body: Body, target: TargetFacts, workgroup: Mapping[int, Any], thread: Mapping[int, Any], *, fast: bool
) -> dict[int, Any]:
    """Require that threads fill a workgroup's tile within the target's limits, and with ``fast`` whole subgroups.

    Returns:
        The number of threads along each loop.
    """
    threads = {}
    for index, tile in workgroup.items():
        body.multiple(tile, thread[index], f"wg_{index}", f"thr_{index}")
        threads[index] = body.quotient(tile, thread[index])
    _limit_threads(body, target, threads, fast=fast)
    return threads


def require_thread_tiles(
    body: Body, target: TargetFacts, workgroup: Mapping[int, Any], threads: Mapping[int, Any], *, fast: bool
) -> dict[int, Any]:
    """Do the same as ``require_threads`` if the threads are knobs, and return the tile of a thread by loop."""
    thread = {}
    for index, tile in workgroup.items():
        body.multiple(tile, threads[index], f"wg_{index}", "the threads along it")
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


def require_shared_memory(body: Body, target: TargetFacts, taken: Any) -> None:
    """Require that the target has ``taken`` bytes of shared memory for tiles."""
    body.limit(taken, target.shared_memory_bytes, "the bytes of shared memory that tiles take")


def tile_bytes(body: Body, tiles: Mapping[int, Any], loops: tuple[int, ...], element_bytes: int) -> Any:
    """Return the size of a tile of a tensor that ``loops`` index."""
    return body.product([body.number(element_bytes), *(tiles[index] for index in loops if index in tiles)])


def require_work(
    body: Body, problem: Problem, thread: Mapping[int, Any], reduction: Mapping[int, Any], *, fast: bool
) -> None:
    """Limit the work of a thread to the capacity of its registers, and to a size that can be unrolled."""
    outputs = body.product(list(thread.values()))
    body.limit(outputs, _MOST_THREAD_OUTPUTS, "the elements that a thread computes")
    body.limit(body.product([outputs, *reduction.values()]), _MOST_UNROLLED, "the multiply-adds that a thread unrolls")
    possible = math.prod(problem.sizes[index] for index in problem.tiled)
    if fast and possible >= 64 * _FEWEST_THREAD_OUTPUTS:
        body.least(outputs, _FEWEST_THREAD_OUTPUTS, "the elements that a thread computes")
