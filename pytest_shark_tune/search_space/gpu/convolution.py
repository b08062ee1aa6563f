"""Search spaces of convolutions on GPUs for which the compiler states no constraints."""

from __future__ import annotations

from typing import Final

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, linalg

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.mlir import pattern_op, shared_context
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.gpu.mma import mma_spaces
from pytest_shark_tune.search_space.gpu.padding import padded_spaces
from pytest_shark_tune.search_space.gpu.simt import PIPELINE, simt_space
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import fast_or_any, refuse_elements, tile_knobs, tile_level

__all__ = ["VERSION", "convolution_problem", "gpu_convolution_spaces", "step_choices"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_LONGEST_WINDOW = 7
_LARGEST_STEP = 16


def gpu_convolution_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a convolution, with matrix instructions if any fits.

    Otherwise they are two under TileAndFuse: as a matrix product after im2col if possible, and direct. The knobs of the
    product are those of `simt_space`, where ``i`` is a position among the product's loops. The knobs of the direct form
    are ``wg_i``, ``thr_i``, ``red_i`` and ``wg_size_x`` with positions in ``root.loops``. The direct form does not
    compute in vectors, so it promotes and pads nothing.

    Raises:
        NoSpace: An element type is not covered.
    """
    if spaces := [space for space in mma_spaces(root, target) if space]:
        return padded_spaces(spaces, root)
    refuse_elements(root, tiling.GPU_ELEMENTS)
    product = _im2col_product(root)
    products = () if product is None else (simt_space(product, target, igemm=True),)
    return (*products, fast_or_any(lambda fast: _direct_space(root, target, fast=fast)))


def convolution_problem(root: RootOp) -> tiling.Problem:
    """Return the loops of a convolution. The two innermost image loops and the innermost channel loop are tiled."""
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
    """Return the steps of each reduction loop: 1 or all of a window, or a divisor of the channels."""
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


def _im2col_product(root: RootOp) -> tiling.Problem | None:
    """Return the matrix product that the compiler makes of a convolution by im2col, or ``None`` if it makes none."""
    with shared_context():
        _held, op = pattern_op(root.pattern)
        details = iree_codegen.get_igemm_generic_conv_details(op)
        if details is None:
            return None
        maps = [ir.AffineMapAttr(attribute).value for attribute in details.igemm_contraction_maps]
        sizes = tuple(details.igemm_loop_bounds)
        dims = linalg.infer_contraction_dimensions_from_maps(maps)
        if dims is None or not dims.k:
            return None
        tiled = sorted({*list(dims.m)[-2:], *list(dims.n)[-1:]})
        spans = [tiling.indexing_loops(affine) for affine in maps]
        elements = [ELEMENT_BYTES[tensor.element] for tensor in (*root.inputs[:2], root.outputs[0])]
        operands = tuple(zip(spans, elements, strict=True))
        reductions = tuple(dims.k)
    if not tiled:
        return None
    return tiling.Problem(
        sizes=sizes, reductions=reductions, tiled=tuple(tiled), operands=operands[:2], result=operands[2]
    )


def _direct_space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    problem = convolution_problem(root)
    choices = tiling.tile_choices(problem, step_choices(root))
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
        workgroup = tile_knobs(body, "wg", choices.workgroup)
        thread = tile_knobs(body, "thr", choices.thread)
        reduction = tile_knobs(body, "red", choices.reduction)
        threads = tiling.require_threads(body, target, workgroup, thread, fast=fast)
        body.derived_knob("wg_size_x", body.product(list(threads.values())), "the number of threads")
        tiling.require_work(body, problem, thread, reduction, fast=False)

    return build_space(PIPELINE, problem.sizes, knobs, constrain)
