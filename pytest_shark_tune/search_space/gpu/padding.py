"""Padding for configs with matrix instructions whose tiles exceed the problem, as the compiler's own configs have it.

The compiler's constraints round the sizes of a problem up to whole instructions, but they have no entry for padding.
Most configs for such sizes do not compile without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import affine_map, loops_in, shared_context
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.search_space.constraints import knob, knob_name
from pytest_shark_tune.search_space.expression import Apply, Lookup, Variable
from pytest_shark_tune.search_space.space import Constraint, Knob, SearchSpace

__all__ = ["padded_spaces"]

_PIPELINE = "TileAndFuse"
_PADDING, _PADDING_OF_IMAGE = "padding", "padding_conv"


def padded_spaces(spaces: Sequence[SearchSpace], root: RootOp) -> tuple[SearchSpace, ...]:
    """Add padding to the spaces of ``root`` with matrix instructions under TileAndFuse that have a tile that needs it.

    The padding of a dimension is its tile. That of the innermost reduction ``i`` is the knob ``pad_i``, the elements of
    ``red_i`` instructions. A convolution is padded itself (``padding_conv``), and its product after im2col is
    (``padding``).
    """
    return tuple(_padded_space(space, root) if space.pipeline == _PIPELINE else space for space in spaces)


class _Layout(NamedTuple):
    """The parts of a knob dictionary that padding depends on."""

    entries: Mapping[str, Any]
    workgroup: tuple[Any, ...]
    reduction: tuple[Any, ...]
    step_at: int
    """The position of the innermost reduction in them."""
    depths: tuple[int, ...]
    """The depth of each instruction."""

    @classmethod
    def of(cls, space: SearchSpace) -> _Layout | None:
        """Read a space in the current context; ``None`` if it has no matrix instructions, or padding already."""
        entries = {entry.name: entry.attr for entry in ir.DictAttr(ir.Attribute.parse(space.knob_dictionary))}
        kinds = entries.get("mma_kind")
        if kinds is None or knob_name(kinds) is None or {_PADDING, _PADDING_OF_IMAGE} & entries.keys():
            return None
        reduction = tuple(entries["reduction"])
        (step_at,) = (place for place, leaf in enumerate(reduction) if knob_name(leaf))
        depths = tuple(int(kind.mnk_shape[2]) for kind in kinds.options)
        return cls(entries, tuple(entries["workgroup"]), reduction, step_at, depths)


def _padded_space(space: SearchSpace, root: RootOp) -> SearchSpace:
    domains = {each.name: each.domain for each in space.knobs}
    igemm = domains.get("use_igemm_idx") == (1,)
    with shared_context():
        layout = _Layout.of(space)
        if layout is None or not _is_ragged(layout, root, domains, igemm=igemm):
            return space
        step = layout.reduction[layout.step_at].name
        pad = f"pad_{step.rpartition('_')[2]}"
        padding = list(map(_or_reduction, layout.workgroup, layout.reduction))
        padding[layout.step_at] = ir.Attribute.parse(knob(pad))
        added = {_PADDING if igemm or root.kind == "contraction" else _PADDING_OF_IMAGE: padding}
        if igemm and (dims := _padded_before_im2col(root)):
            none = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 0)
            added[_PADDING_OF_IMAGE] = [
                layout.workgroup[dim] if dim in dims else none for dim in range(len(root.loops))
            ]
        arrays = {name: ir.ArrayAttr.get(leaves) for name, leaves in added.items()}
        dictionary = str(ir.DictAttr.get({**layout.entries, **arrays}))
    depth = Lookup(Variable("mma_idx"), tuple(range(len(layout.depths))), layout.depths)
    elements = Apply("mul", (Variable(step), depth))
    values = {steps * depth for steps in domains[step] for depth in layout.depths}
    message = f"{pad} ({{}}) must be the elements of {step} ({{}})"
    constraint = Constraint(Apply("eq", (Variable(pad), elements)), message, (Variable(pad), elements))
    return msgspec.structs.replace(
        space,
        knobs=(*space.knobs, Knob(pad, tuple(sorted(values)))),
        constraints=(*space.constraints, constraint),
        knob_dictionary=dictionary,
    )


def _or_reduction(tile: Any, step: Any) -> Any:
    return step if isinstance(tile, ir.IntegerAttr) and tile.value == 0 else tile


def _is_ragged(layout: _Layout, root: RootOp, domains: Mapping[str, tuple[int, ...]], *, igemm: bool) -> bool:
    """Return whether a tile of the space does not divide its dimension."""
    tiles = ((dim, leaf) for dim, leaf in enumerate(layout.workgroup) if knob_name(leaf))
    if any(root.loops[dim] % tile for dim, leaf in tiles for tile in domains[leaf.name]):
        return True
    size = root.loops[int(layout.reduction[layout.step_at].name.rpartition("_")[2])]
    if igemm:  # The reduction has a rest only if no instruction leaves none.
        size = math.prod(size for size, kind in zip(root.loops, root.iterators, strict=True) if kind == "reduction")
        return all(size % depth for depth in layout.depths)
    return any(size % depth for depth in layout.depths)


def _padded_before_im2col(root: RootOp) -> tuple[int, ...]:
    """Return the loops of a convolution that the compiler pads before im2col.

    These are all that are parallel, only the batch if its elements are beside each other in memory, and none if those
    of a row of the image are. The product is padded in any case.
    """
    with shared_context():
        innermost = set(loops_in(list(affine_map(root.maps[0]).results)[-1]))
    if innermost & {*root.output_image, *root.filter_loop}:
        return ()
    if innermost & {*root.batch}:
        return root.batch[-1:]
    return (*root.batch, *root.output_image, *root.output_channel, *root.depth)
