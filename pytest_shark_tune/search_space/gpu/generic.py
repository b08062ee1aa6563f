"""Search spaces on GPUs of elementwise ops and transposes, under the pipeline TileAndFuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.fused import FusedOp
from pytest_shark_tune.dispatch.mlir import affine_map, shared_context
from pytest_shark_tune.dispatch.reasons import NothingFits, NothingToTile
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob, one_of_knob
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.gpu.direct import serial_space
from pytest_shark_tune.search_space.gpu.reduction import reduction_space
from pytest_shark_tune.search_space.gpu.simt import PIPELINE
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import fast_or_any, refuse_elements, tile_level

__all__ = ["VERSION", "gpu_fused_spaces", "gpu_generic_spaces"]

VERSION: Final = 2
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_LARGEST_TILE = 512


def gpu_generic_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of a structured op with static, positive sizes.

    A reduction has the space of `reduction_space`, and that of `serial_space` where threads cannot share a sum or
    where the reduced elements do not lie side by side. The knobs of other ops are these, where ``i`` is a position in
    ``root.loops``. A dimension without a choice has no knob.

    - ``wg_i``, ``thr_i``: elements in the tile of a workgroup and of a thread, along the two innermost dimensions of
      the result and the innermost one of each input;
    - ``promote``: 1 if inputs whose innermost dimension is another than the result's go through shared memory, 2 if
      the result does, else 0;
    - ``wg_size_x``: the threads of a workgroup, which follow from the tiles.

    Raises:
        NoSpace: An element type is not covered, or the op has no indexing maps or no loop to tile.
    """
    if not root.maps:
        raise NothingToTile(f"{root.op} has no indexing maps, so its tiles cannot be told apart")
    refuse_elements(root)
    if "reduction" in root.iterators:
        return _reduction_spaces(root, target)
    return (fast_or_any(lambda fast: _space(root, target, fast=fast)),)


def gpu_fused_spaces(root: RootOp, target: TargetFacts, fused: Sequence[FusedOp]) -> tuple[SearchSpace, ...]:
    """Return the space of a reduction in a dispatch whose other ops go over the same elements, as in softmax.

    Args:
        root: The op.
        target: The target.
        fused: The other ops; none if a thread reduces whole rows by default, which takes no other config.

    Raises:
        NoSpace: An element type is not covered, or the threads of a subgroup cannot share a row.
    """
    refuse_elements(root)
    return reduction_space(root, target, fused) if fused else (serial_space(root, target),)


def _reduction_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    with shared_context():
        spans = [tiling.indexing_loops(affine_map(text)) for text in root.maps[: len(root.inputs)]]
    innermost = {span[-1] for span in spans if span}
    try:
        shared = reduction_space(root, target)
    except NothingFits:
        return (serial_space(root, target),)
    lie_apart = all(root.iterators[loop] == "parallel" for loop in innermost)
    return (*shared, serial_space(root, target)) if lie_apart and "parallel" in root.iterators else shared


def _space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    problem, strided = _problem(root)
    choices = tiling.tile_choices(problem, {}, largest=_LARGEST_TILE)
    count = len(root.loops)
    knobs: dict[str, object] = {
        "workgroup": tile_level(count, "wg", choices.workgroup, range(count)),
        "thread": tile_level(count, "thr", choices.thread, range(count)),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": target.subgroup_sizes[0],
    }
    if strided:
        knobs["promote_operands"] = one_of_knob("promote", ((), strided, (len(root.inputs),)))

    def constrain(body: Body) -> None:
        workgroup, thread, reduction = tiling.thread_tiles(body, target, choices, fast=fast)
        tiling.require_work(body, problem, thread, reduction, fast=False)
        if strided:
            promote = body.knob("promote", range(3))
            copied: Any = body.total([tiling.tile_bytes(body, workgroup, *problem.operands[each]) for each in strided])
            written = tiling.tile_bytes(body, workgroup, *problem.result)
            taken = body.choose(body.equal(promote, body.number(1)), copied, written)
            # A part of a tile of the result cannot be copied back.
            divide = [body.divides(tile, body.dims[dim]) for dim, tile in workgroup.items()]
            body.require(
                body.either([body.at_most(promote, body.number(1)), body.every(divide)]),
                "promote ({}) must be at most 1, since a tile does not divide its dimension",
                promote,
            )
            tiling.require_shared_memory(
                body, target, body.choose(body.equal(promote, body.number(0)), body.number(0), taken)
            )

    return build_space(PIPELINE, root.loops, knobs, constrain)


def _problem(root: RootOp) -> tuple[tiling.Problem, tuple[int, ...]]:
    """Return the loops, and the positions of the inputs whose innermost loop is another than the result's.

    Raises:
        NoSpace: The result has no dimension of more than one element.
    """
    with shared_context():
        spans = [tiling.indexing_loops(affine_map(text)) for text in root.maps]
    long = [tuple(loop for loop in span if root.loops[loop] > 1) for span in spans]
    inputs, result = long[: len(root.inputs)], long[len(root.inputs)]
    if not result:
        raise NothingToTile(f"{root.op} computes one element, so there is nothing to tile")
    strided = tuple(index for index, span in enumerate(inputs) if span and span[-1] != result[-1])
    tiled = {*result[-2:], *(inputs[index][-1] for index in strided)}
    elements = [ELEMENT_BYTES[tensor.element] for tensor in (*root.inputs, root.outputs[0])]
    operands = tuple(zip(spans, elements, strict=False))
    problem = tiling.Problem(
        sizes=root.loops,
        reductions=(),
        tiled=tuple(sorted(tiled)),
        operands=operands[: len(root.inputs)],
        result=operands[len(root.inputs)],
    )
    return problem, strided
