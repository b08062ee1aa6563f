"""Lists of tile sizes, and threads along x, y and z, for all search spaces on SPIR-V.

A lowering config is a list of levels (``tile_sizes``), and the pipeline defines their meaning. The compiler's function
makes no such config, so `config_writer` does. The levels here are those of the compiler's own choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_shark_tune.dispatch.types import TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import fast_or_any, tile_knobs, tile_level

__all__ = ["distributed_space", "require_workgroup", "spirv_pipeline", "workgroup_knobs"]

_AXES = ("x", "y", "z")


def spirv_pipeline(name: str) -> str:
    """Return the text of the attribute of the pipeline ``name``."""
    return f"#iree_gpu.spirv_pipeline<{name}>"


def distributed_space(
    pipeline: str, problem: tiling.Problem, target: TargetFacts, choices: tiling.TileChoices, *, steps: bool
) -> SearchSpace:
    """Return the space of a pipeline with the levels workgroup, thread and, with ``steps``, reduction.

    The knobs are these, where ``i`` is a position among the loops. A dimension without a choice has no knob.

    - ``wg_i``, ``thr_i`` and ``red_i``: elements in the tile of a workgroup, of a thread and of a reduction's step;
    - ``wg_size_x``, ``wg_size_y`` and ``wg_size_z``: the threads of a workgroup, which follow from the tiles.
    """
    count = len(problem.sizes)
    parallel = [index for index in range(count) if index not in problem.reductions]
    levels = [
        tile_level(count, "wg", choices.workgroup, parallel)[: max(parallel) + 1],
        tile_level(count, "thr", choices.thread, parallel)[: max(parallel) + 1],
    ]
    if steps:
        levels.append(tile_level(count, "red", choices.reduction, problem.reductions))
    knobs = {"tile_sizes": levels, "workgroup_size": workgroup_knobs(problem)}

    def space(fast: bool) -> SearchSpace:
        def constrain(body: Body) -> None:
            workgroup = tile_knobs(body, "wg", choices.workgroup)
            thread = tile_knobs(body, "thr", choices.thread)
            reduction = tile_knobs(body, "red", choices.reduction) if steps else {}
            threads = tiling.require_threads(body, target, workgroup, thread, fast=fast)
            require_workgroup(body, problem, target, threads)
            tiling.require_work(body, problem, thread, reduction, fast=fast and steps)

        return build_space(spirv_pipeline(pipeline), problem.sizes, knobs, constrain)

    return fast_or_any(space)


def workgroup_knobs(problem: tiling.Problem) -> list[object]:
    """Return the size of a workgroup: the innermost tiled loop runs along x, the next along y, then z."""
    sizes: list[object] = [knob(f"wg_size_{axis}") for axis in _AXES[: len(problem.tiled)]]
    return sizes + [1] * (len(_AXES) - len(sizes))


def require_workgroup(body: Body, problem: tiling.Problem, target: TargetFacts, threads: Mapping[int, Any]) -> None:
    """Derive the knobs of the workgroup's size from the threads along the loops, within the target's limits."""
    innermost: Sequence[int] = problem.tiled[::-1]
    for axis, most, index in zip(_AXES, target.max_workgroup_sizes, innermost, strict=False):
        size = body.derived_knob(f"wg_size_{axis}", threads[index], f"the threads along dim_{index}")
        body.limit(size, most, f"wg_size_{axis}")
