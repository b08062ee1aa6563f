"""Search spaces of convolutions on GPUs for which the compiler states no constraints."""

from __future__ import annotations

from typing import Final

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, linalg

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.mlir import pattern_op, shared_context
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.gpu import tiling
from pytest_shark_tune.search_space.gpu.direct import direct_space, step_choices, window_problem
from pytest_shark_tune.search_space.gpu.mma import mma_spaces
from pytest_shark_tune.search_space.gpu.padding import padded_spaces
from pytest_shark_tune.search_space.gpu.simt import simt_space
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import refuse_elements

__all__ = ["VERSION", "gpu_convolution_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""


def gpu_convolution_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a convolution, with matrix instructions if any fits.

    Otherwise they are two under TileAndFuse: as a matrix product after im2col if possible, and direct. The knobs of the
    product are those of `simt_space`, where ``i`` is a position among the product's loops. The knobs of the direct form
    are those of `direct_space`, with positions in ``root.loops``.

    Raises:
        NoSpace: An element type is not covered.
    """
    if spaces := [space for space in mma_spaces(root, target) if space]:
        return padded_spaces(spaces, root)
    refuse_elements(root, tiling.GPU_ELEMENTS)
    product = _im2col_product(root)
    products = () if product is None else (simt_space(product, target, igemm=True),)
    return (*products, direct_space(window_problem(root), step_choices(root), target))


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
