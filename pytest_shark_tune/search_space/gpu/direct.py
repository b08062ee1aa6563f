"""Search spaces on GPUs under the pipeline TileAndFuse in which each thread computes whole results by itself.

The compiler chooses this form for poolings, for convolutions without a matrix instruction, and for reductions that the
threads of a subgroup cannot share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.mlir import affine_map, shared_context
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.gpu.simt import PIPELINE
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import fast_or_any, tile_level

__all__ = ["direct_space", "serial_space", "step_choices", "window_problem"]

_LONGEST_WINDOW = 7
_LARGEST_STEP = 16


def direct_space(problem: tiling.Problem, steps: Mapping[int, Sequence[int]], target: TargetFacts) -> SearchSpace:
    """Return the space of an op that computes no products of matrices.

    The knobs are ``wg_i``, ``thr_i``, ``red_i`` and ``wg_size_x`` with positions in ``problem.sizes``. Nothing is
    promoted or padded.

    Args:
        problem: The loops.
        steps: The steps to try for each reduction.
        target: The target.
    """
    return fast_or_any(lambda fast: _direct_space(problem, steps, target, fast=fast))


def serial_space(root: RootOp, target: TargetFacts) -> SearchSpace:
    """Return the space of a reduction whose sums are not shared. The two innermost loops of the result are tiled.

    Args:
        root: The op, with static sizes.
        target: The target.
    """
    with shared_context():
        result = tiling.indexing_loops(affine_map(root.maps[len(root.inputs)]))
    tiled = tuple(sorted(loop for loop in result if root.loops[loop] > 1))[-2:] or result[-1:]
    problem = tiling.Problem(
        sizes=root.loops,
        reductions=tuple(index for index, kind in enumerate(root.iterators) if kind == "reduction"),
        tiled=tiled,
        operands=(),
        result=(tiled, ELEMENT_BYTES[root.outputs[0].element]),
    )
    return direct_space(problem, step_choices(root), target)


def window_problem(root: RootOp) -> tiling.Problem:
    """Return the loops of a convolution or pooling. Two image loops and a channel, the innermost ones, are tiled."""
    channels = root.output_channel[-1:] or root.depth[-1:] or root.batch[-1:]
    tiled = sorted({*root.output_image[-2:], *channels})
    return tiling.Problem(
        sizes=root.loops,
        reductions=tuple(index for index, kind in enumerate(root.iterators) if kind == "reduction"),
        tiled=tuple(tiled),
        operands=(),
        result=(tuple(tiled), ELEMENT_BYTES[root.outputs[0].element]),
    )


def step_choices(root: RootOp) -> dict[int, tuple[int, ...]]:
    """Return the steps of each reduction loop: 1 or all of a window, or a divisor of the others."""
    steps: dict[int, tuple[int, ...]] = {}
    for index, kind in enumerate(root.iterators):
        size = root.loops[index]
        if kind != "reduction":
            continue
        if index in root.filter_loop:
            steps[index] = (1, size) if 1 < size <= _LONGEST_WINDOW else (1,)
        else:
            steps[index] = tuple(step for step in range(1, min(size, _LARGEST_STEP) + 1) if size % step == 0)
    return steps


def _direct_space(
    problem: tiling.Problem, steps: Mapping[int, Sequence[int]], target: TargetFacts, *, fast: bool
) -> SearchSpace:
    choices = tiling.tile_choices(problem, {loop: tuple(tried) for loop, tried in steps.items()})
    count = len(problem.sizes)
    parallel = [index for index in range(count) if index not in problem.reductions]
    knobs = {
        "workgroup": tile_level(count, "wg", choices.workgroup, parallel),
        "thread": tile_level(count, "thr", choices.thread, parallel),
        "reduction": tile_level(count, "red", choices.reduction),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": target.subgroup_sizes[0],
    }

    def constrain(body: Body) -> None:
        _, thread, reduction = tiling.thread_tiles(body, target, choices, fast=fast)
        tiling.require_work(body, problem, thread, reduction, fast=False)

    return build_space(PIPELINE, problem.sizes, knobs, constrain)
