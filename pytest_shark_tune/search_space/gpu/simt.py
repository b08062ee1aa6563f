"""Search spaces under the pipeline TileAndFuse without matrix instructions: a thread computes a tile by itself.

The compiler states constraints only if a matrix instruction fits. It chooses configs of this form otherwise, as for f32
on CUDA. Their levels are ``workgroup``, ``thread``, ``reduction``, ``promote_operands`` (copy these operands to shared
memory first) and ``padding`` (pad tiles that exceed the problem).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_shark_tune.dispatch.types import TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob, one_of_knob
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import fast_or_any, tile_level

__all__ = ["PIPELINE", "simt_space"]

PIPELINE = "#iree_gpu.pipeline<TileAndFuse>"

_LARGEST_STEP = 64
_PROMOTIONS = ((), (0, 1))


def simt_space(problem: tiling.Problem, target: TargetFacts, *, igemm: bool) -> SearchSpace:
    """Return the space of a contraction.

    The knobs are these, where ``i`` is a position among the loops. A dimension without a choice has no knob.

    - ``wg_i``, ``thr_i``: elements of a parallel dimension in the tile of a workgroup and of a thread;
    - ``red_i``: elements of the innermost reduction in one step;
    - ``promote``: 1 if both operands go through shared memory, else 0;
    - ``wg_size_x``: the threads of a workgroup, which follow from the tiles.

    Args:
        problem: The loops.
        target: The target.
        igemm: Whether the contraction is a convolution after im2col. Its operands always go through shared memory,
            since a thread would otherwise gather its elements one by one and unroll that.
    """
    return fast_or_any(lambda fast: _simt_space(problem, target, igemm=igemm, fast=fast))


def _simt_space(problem: tiling.Problem, target: TargetFacts, *, igemm: bool, fast: bool) -> SearchSpace:
    depth = problem.reductions[-1]
    steps = tuple(step for step in tiling.tile_sizes(problem.sizes[depth], _LARGEST_STEP) if step & (step - 1) == 0)
    choices = tiling.tile_choices(problem, {depth: steps or tiling.tile_sizes(problem.sizes[depth], _LARGEST_STEP)})
    count = len(problem.sizes)
    parallel = [index for index in range(count) if index not in problem.reductions]
    # A reduction without a tile would be unrolled completely.
    padding = tile_level(count, "wg", choices.workgroup, range(count))
    padding[depth] = tile_level(count, "red", choices.reduction)[depth]
    knobs = {
        "workgroup": tile_level(count, "wg", choices.workgroup, parallel),
        "thread": tile_level(count, "thr", choices.thread, parallel),
        "reduction": tile_level(count, "red", choices.reduction, problem.reductions),
        "padding": padding,
        "promote_operands": [0, 1] if igemm else one_of_knob("promote", _PROMOTIONS),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": target.subgroup_sizes[0],
        "gpu_pipeline_options": {
            "prefetch_num_stages": 0,
            "no_reduce_shared_memory_bank_conflicts": True,
            "use_igemm_convolution": igemm,
        },
    }

    def constrain(body: Body) -> None:
        workgroup, thread, reduction = tiling.thread_tiles(body, target, choices, fast=fast)
        tiling.require_work(body, problem, thread, reduction, fast=fast)
        promote = body.number(1) if igemm else body.knob("promote", range(len(_PROMOTIONS)))
        _require_room(body, problem, target, choices, workgroup | reduction, promote)

    return build_space(PIPELINE, problem.sizes, knobs, constrain)


def _require_room(
    body: Body,
    problem: tiling.Problem,
    target: TargetFacts,
    choices: tiling.TileChoices,
    tiles: Mapping[int, Any],
    promote: Any,
) -> None:
    """Require that promoted operands and padded tiles fit in shared memory."""
    inputs = body.total([tiling.tile_bytes(body, tiles, *operand) for operand in problem.operands])
    promoted = body.choose(body.equal(promote, body.number(1)), inputs, body.number(0))
    tried = {**choices.workgroup, **choices.reduction}
    ragged = [index for index in tiles if any(problem.sizes[index] % tile for tile in tried[index])]
    used = [promoted]
    if ragged:
        whole = body.every([body.divides(tiles[index], body.dims[index]) for index in ragged])
        everything = body.total([inputs, tiling.tile_bytes(body, tiles, *problem.result)])
        used = [body.choose(whole, promoted, everything)]
    tiling.require_shared_memory(body, target, body.total(used))
