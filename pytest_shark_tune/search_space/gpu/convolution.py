"""Search spaces of convolutions on GPUs for which the compiler states no constraints."""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["VERSION", "completed_spaces", "gpu_convolution_spaces"]

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
    if spaces := completed_spaces([space for space in mma_spaces(root, target) if space], root, target):
        return spaces
    refuse_elements(root, tiling.GPU_ELEMENTS)
    product = _im2col_product(root)
    products = () if product is None else (simt_space(product, target, igemm=True),)
    return (*products, direct_space(window_problem(root), step_choices(root), target))


def completed_spaces(spaces: Sequence[SearchSpace], root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of an op, not only of a convolution, with the forms and the padding that constraints lack.

    Args:
        spaces: Those that the compiler states, or that are built like them.
        root: The op.
        target: The target.
    """
    return padded_spaces(_usable_forms(spaces, root, target) if root.kind == "convolution" else spaces, root)


def _usable_forms(spaces: Sequence[SearchSpace], root: RootOp, target: TargetFacts) -> list[SearchSpace]:
    """Return the spaces of a convolution with matrix instructions, with the form that has few channels.

    If the depth of no instruction divides the channels of an image, as those of colors, the direct form does not
    compile. The compiler's default is then the product after im2col, for which it states no constraints.
    """
    direct = [space for space in spaces if _is_after_im2col(space) is False]
    if not direct or not root.input_channel:
        return list(spaces)
    depths = {intrinsic.shape[2] for intrinsic in target.intrinsics if intrinsic.elements[0] == root.inputs[0].element}
    if not all(root.loops[root.input_channel[-1]] % depth for depth in depths):
        return list(spaces)
    products = [space for space in spaces if _is_after_im2col(space)]
    products = products or [space for space in mma_spaces(root, target) if space and _is_after_im2col(space)]
    return [*products, *(space for space in spaces if space not in (*direct, *products))] if products else list(spaces)


def _is_after_im2col(space: SearchSpace) -> bool | None:
    """Return whether a space is of the product after im2col; ``None`` for a pipeline without that choice."""
    domains = {each.name: each.domain for each in space.knobs}
    return bool(domains["use_igemm_idx"][0]) if "use_igemm_idx" in domains else None


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
