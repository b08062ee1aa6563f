"""Search spaces of contractions on SPIR-V: plain vectors, shared memory, cooperative matrices."""

from __future__ import annotations

from typing import Final

from pytest_shark_tune.dispatch.types import Intrinsic, RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.gpu.contraction import contraction_problem
from pytest_shark_tune.search_space.gpu.tiling import (
    GPU_ELEMENTS,
    Problem,
    require_shared_memory,
    require_thread_tiles,
    require_work,
    tile_bytes,
    tile_choices,
)
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.spirv.tiling import (
    distributed_space,
    require_workgroup,
    spirv_pipeline,
    workgroup_knobs,
)
from pytest_shark_tune.search_space.tiles import fast_or_any, powers, refuse_elements, tile_knobs, tile_level

__all__ = ["VERSION", "spirv_contraction_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_LARGEST_STEP = 32
_DEPTHS = (1, 2)
_MOST_SUBGROUPS = 8
_MOST_FRAGMENTS = 16
"""Fragments of sums that a subgroup keeps in registers."""


def spirv_contraction_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a contraction, one for each pipeline.

    These are ``BaseVectorize``, ``MatmulPromoteVectorize`` if all tiles fit, and ``CooperativeMatrixVectorize`` if the
    target has a matrix instruction for the element types. The knobs of the first are those of `distributed_space`. The
    others also have ``wg_i`` and ``red_i``, ``depth``, the steps of the reduction in flight, and ``sg_i``, the elements
    in a subgroup's tile.

    Raises:
        NoSpace: An element type is not covered, or there is no parallel loop or no reduction.
    """
    refuse_elements(root, GPU_ELEMENTS)
    problem = contraction_problem(root)
    depth = problem.reductions[-1]
    size = problem.sizes[depth]
    steps = tuple(step for step in powers(min(size, _LARGEST_STEP)) if size % step == 0)
    spaces = [distributed_space("BaseVectorize", problem, target, tile_choices(problem, {depth: steps}), steps=True)]
    if len(problem.tiled) == 2 and len(problem.reductions) == 1:
        if all(problem.sizes[index] % 2 == 0 for index in problem.tiled):
            spaces.append(_promoted(problem, target, steps))
        kinds = (*(tensor.element for tensor in root.inputs[:2]), root.outputs[0].element)
        spaces += [
            _cooperative(problem, target, intrinsic)
            for intrinsic in target.intrinsics
            if intrinsic.elements == kinds
            and all(problem.sizes[i] % n == 0 for i, n in zip((*problem.tiled, depth), intrinsic.shape, strict=True))
        ]
    return tuple(spaces)


def _promoted(problem: Problem, target: TargetFacts, steps: tuple[int, ...]) -> SearchSpace:
    """Build the space in which both operands go through shared memory; steps of at least 4 are loaded in vectors."""
    (depth,) = problem.reductions
    wide = tuple(step for step in steps if step >= 4)
    choices = tile_choices(problem, {depth: wide or steps[-1:]})
    divisors = {
        index: tuple(tile for tile in tiles if problem.sizes[index] % tile == 0)
        for index, tiles in choices.workgroup.items()
    }
    count = len(problem.sizes)
    level = tile_level(count, "wg", divisors, [index for index in range(count) if index != depth])
    level[depth] = tile_level(count, "red", choices.reduction)[depth]
    knobs = {
        "tile_sizes": [level],
        "workgroup_size": workgroup_knobs(problem),
        "pipeline_depth": knob("depth"),
        "store_stage": 0,
    }

    def space(fast: bool) -> SearchSpace:
        def constrain(body: Body) -> None:
            workgroup = tile_knobs(body, "wg", divisors)
            reduction = tile_knobs(body, "red", choices.reduction)
            column, row = problem.tiled[1], problem.tiled[0]
            most = target.max_workgroup_sizes
            threads = {
                index: body.knob(f"wg_size_{axis}", powers(min(length, max(divisors[index])))[first:])
                # With one thread along x, the compiler maps rows to it and finds too few (seen with IREE 3.13).
                for axis, length, index, first in zip("xy", most, (column, row), (1, 0), strict=False)
            }
            thread = require_thread_tiles(body, target, workgroup, threads, fast=fast)
            require_work(body, problem, thread, reduction, fast=fast)
            tiles = workgroup | reduction
            # There is one buffer more than steps in flight, since a stage reads the stores of the previous stage.
            buffers = body.total([body.knob("depth", _DEPTHS), body.number(1)])
            operands = body.total([tile_bytes(body, tiles, *operand) for operand in problem.operands])
            require_shared_memory(body, target, body.product([buffers, operands]))

        return build_space(spirv_pipeline("MatmulPromoteVectorize"), problem.sizes, knobs, constrain)

    return fast_or_any(space)


def _cooperative(problem: Problem, target: TargetFacts, intrinsic: Intrinsic) -> SearchSpace:
    """Build the space in which a subgroup computes fragments of the size of the target's matrix instruction."""
    (depth,) = problem.reductions
    row, column = problem.tiled
    m, n, k = intrinsic.shape
    sizes = problem.sizes
    subgroup = target.subgroup_sizes[0]

    def tiles(index: int, part: int, most: int) -> tuple[int, ...]:
        return tuple(part * power for power in powers(most) if sizes[index] % (part * power) == 0)

    workgroup = {row: tiles(row, m, 16), column: tiles(column, n, 16)}
    fragments = {row: tiles(row, m, 4), column: tiles(column, n, 4)}
    steps = {depth: tiles(depth, k, 4)}
    count = len(sizes)
    parallel = [index for index in range(count) if index != depth]
    native = tile_level(count, "native", {row: (m,), column: (n,), depth: (k,)}, parallel)
    knobs = {
        "tile_sizes": [
            tile_level(count, "wg", workgroup, parallel)[: max(parallel) + 1],
            tile_level(count, "sg", fragments, parallel)[: max(parallel) + 1],
            tile_level(count, "red", steps),
            native,
        ],
        "workgroup_size": workgroup_knobs(problem),
        "subgroup_size": subgroup,
        "pipeline_depth": 1,
        "store_stage": 0,
    }

    def constrain(body: Body) -> None:
        outer = tile_knobs(body, "wg", workgroup)
        inner = tile_knobs(body, "sg", fragments)
        reduction = tile_knobs(body, "red", steps)
        for index in (row, column):
            body.multiple(outer[index], inner[index], f"wg_{index}", f"sg_{index}")
        counts = {index: body.quotient(outer[index], inner[index]) for index in (row, column)}
        body.limit(body.product(list(counts.values())), _MOST_SUBGROUPS, "the subgroups of a workgroup")
        held = body.quotient(body.product(list(inner.values())), body.number(m * n))
        body.limit(held, _MOST_FRAGMENTS, "the fragments that a subgroup computes")
        threads = {row: counts[row], column: body.product([counts[column], body.number(subgroup)])}
        body.limit(body.product(list(threads.values())), target.max_threads, "the threads of a workgroup")
        require_workgroup(body, problem, target, threads)
        operands = [tile_bytes(body, outer | reduction, *operand) for operand in (*problem.operands, problem.result)]
        require_shared_memory(body, target, body.total(operands))

    return build_space(spirv_pipeline("CooperativeMatrixVectorize"), sizes, knobs, constrain)
