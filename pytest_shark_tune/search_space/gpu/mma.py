"""Search spaces with matrix instructions under TileAndFuse and VectorDistribute.

The compiler states such spaces itself, but IREE 3.13 crashes while it states those of products with a batch and of
convolutions with groups. The spaces here have the knobs and the members that it states for other ops, and a test
compares both. A batch is distributed in tiles of 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune.dispatch.mlir import pattern_op, shared_context
from pytest_shark_tune.dispatch.types import Intrinsic, RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, build_space, knob, lookup, one_of_knob
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors

__all__ = ["VERSION", "has_layout", "mma_spaces"]

VERSION: Final = 2
"""The version of these spaces. Raise it if their members or knobs change. Plans are then made again."""

_TILE_AND_FUSE = "#iree_gpu.pipeline<TileAndFuse>"
_VECTOR_DISTRIBUTE = "#iree_gpu.pipeline<VectorDistribute>"
_PROMOTION = "#iree_gpu.derived_thread_config"

_NO_LAYOUT = "NV_WMMA_"
"""Instructions that the compiler cannot distribute to threads. It does not know the types of their fragments."""

_SKINNY = 4
"""A product with so few rows or columns is computed like one of a matrix and a vector."""

_LARGEST_TILE = 512
_MOST_SUBGROUPS = 10
_MOST_SUBGROUPS_ALONG = 32
_MOST_SUBGROUP_TILES = 32
_PREFETCH_STAGES = 2


class _Loops(NamedTuple):
    """The loops of an op as those of a batch of matrix products, outermost first."""

    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    fused: tuple[int, ...] = ()
    """The reductions that im2col fuses with the innermost one."""

    @property
    def parallel(self) -> tuple[int, ...]:
        """The loops that are distributed to workgroups."""
        return (*self.batch, *self.m, *self.n)


def mma_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of a contraction or convolution with matrix instructions, none if no instruction fits.

    A contraction has one under TileAndFuse and one under VectorDistribute. A convolution has two under TileAndFuse, the
    direct form and the product after im2col, and one under VectorDistribute. A space may be empty. The knobs are these,
    where ``i`` is a position in ``root.loops``:

    - ``mma_idx``: the position of the instruction among those that fit;
    - ``wg_i``: the elements of a parallel dimension in the tile of a workgroup;
    - ``red_i``: one step of the innermost reduction, in instructions under TileAndFuse and else in elements;
    - ``sg_i``: the tiles of a subgroup along a dimension (TileAndFuse);
    - ``sg_m_cnt`` and ``sg_n_cnt``: the subgroups along rows and columns (VectorDistribute).

    The other knobs are fixed or follow from these.
    """
    if root.kind == "contraction":
        loops = _Loops(root.batch, root.m, root.n, root.k)
        return (*_tile_and_fuse(root, target, loops), *_vector_distribute(root, target, loops))
    image = tuple(sorted((*root.batch, *root.output_image)))
    direct = _Loops(root.depth, image, root.output_channel, (*root.filter_loop, *root.input_channel))
    flat = _Loops(tuple(sorted((*root.batch, *root.depth))), root.output_image, root.output_channel, root.input_channel)
    fused = _fused_by_im2col(root, direct.k) if root.filter_loop and root.input_channel else ()
    return (
        *(_tile_and_fuse(root, target, direct, igemm=False) if root.filter_loop else ()),
        *(_tile_and_fuse(root, target, direct._replace(fused=fused), igemm=True) if fused else ()),
        *_vector_distribute(root, target, flat),
    )


def has_layout(intrinsic: Intrinsic, target: TargetFacts) -> bool:
    """Return whether one subgroup of the target's preferred size computes one product with the instruction.

    Instructions for a block of products have another number of threads for each element of a product, and those of
    `_NO_LAYOUT` none that is known.
    """
    if _NO_LAYOUT in intrinsic.attribute:
        return False
    with shared_context():
        fragment = ir.Attribute.parse(intrinsic.attribute).abc_vector_types[2]
        m, n, _ = intrinsic.shape
        return bool(math.prod(fragment.shape) * target.subgroup_sizes[0] == m * n)


def _fitting(root: RootOp, target: TargetFacts, loops: _Loops) -> tuple[Intrinsic, ...]:
    """Return the instructions that can compute the products, as the compiler decides it."""
    if not (loops.m and loops.n and loops.k and root.inputs[1:] and target.subgroup_sizes):
        return ()
    few, many = sorted(root.loops[dims[-1]] for dims in (loops.m, loops.n))
    if few <= _SKINNY and many > target.subgroup_sizes[0]:
        return ()
    lhs, rhs, result = root.inputs[0].element, root.inputs[1].element, root.outputs[0].element
    return tuple(
        intrinsic
        for intrinsic in target.intrinsics
        if intrinsic.elements[:2] == (lhs, rhs)
        and _holds(intrinsic.elements[2], result)
        and has_layout(intrinsic, target)
    )


def _holds(kept: str, stored: str) -> bool:
    """Return whether sums may be kept in one type and stored in the other: the same, or a narrower float."""
    with shared_context():
        wide, narrow = ir.Type.parse(kept), ir.Type.parse(stored)
        floats = isinstance(wide, ir.FloatType) and isinstance(narrow, ir.FloatType)
        return bool(wide == narrow or (floats and narrow.width < wide.width))


def _bytes_of(element: str) -> int:
    with shared_context():
        return int(ir.Type.parse(element).width) // 8


def _fused_by_im2col(root: RootOp, reductions: Sequence[int]) -> tuple[int, ...]:
    """Return the reductions that im2col fuses with the innermost one; none if the compiler makes no product."""
    with shared_context():
        _held, op = pattern_op(root.pattern)
        details = iree_codegen.get_igemm_generic_conv_details(op)
        if details is None:
            return ()
        places = {dim: str(details.conv_to_igemm_dim_map[dim]) for dim in reductions}
    return tuple(dim for dim in reductions[:-1] if places[dim] == places[reductions[-1]])


def _tile_and_fuse(
    root: RootOp, target: TargetFacts, loops: _Loops, *, igemm: bool | None = None
) -> tuple[SearchSpace, ...]:
    """Return the space under TileAndFuse; ``igemm`` tells whether a convolution is computed after im2col."""
    intrinsics = _fitting(root, target, loops)
    if not intrinsics:
        return ()
    sizes = root.loops
    m, n, k = (dims[-1] for dims in (loops.m, loops.n, loops.k))
    count = len(sizes) - len(loops.fused)
    step_at = count - 1 if igemm else k
    tiles: dict[int, tuple[int, ...]] = dict.fromkeys(loops.batch, (1,))
    parts: dict[int, tuple[int, ...]] = {}
    for dim in (*loops.m, *loops.n):
        if dim in (m, n):
            shapes = {intrinsic.shape[dim == n] for intrinsic in intrinsics}
            units = [(shape, part) for shape in shapes for part in divisors(-(-sizes[dim] // shape))]
            tiles[dim] = _ascending(shape * part for shape, part in units if shape * part <= _LARGEST_TILE)
            parts[dim] = _ascending(part for shape, part in units if shape * part <= _LARGEST_TILE)
        else:
            bound = _overpadded(sizes[dim]) if igemm else sizes[dim]
            tiles[dim] = parts[dim] = tuple(tile for tile in divisors(bound) if tile <= _LARGEST_TILE)
    length = math.prod(sizes[dim] for dim in ((k, *loops.fused) if igemm else (k,)))
    # The compiler asks a product after im2col for a reduction without a rest, and pads one that can have none.
    is_padded = not igemm or all(length % intrinsic.shape[2] for intrinsic in intrinsics)
    depths = {
        intrinsic.shape[2]: -(-length // intrinsic.shape[2]) * intrinsic.shape[2] if is_padded else length
        for intrinsic in intrinsics
    }
    steps = _ascending(
        step
        for shape, depth in depths.items()
        for step in divisors(depth // shape)
        if depth % shape == 0 and step * shape <= _LARGEST_TILE
    )
    if not steps:
        return ()
    reduction: list[object] = [int(dim in loops.k) for dim in range(count)]
    reduction[step_at] = knob(f"red_{k}")
    is_igemm = bool(igemm) if igemm is None else one_of_knob("use_igemm_idx", (False, True))
    knobs = _knob_dictionary(intrinsics, is_igemm) | {
        "workgroup": [knob(f"wg_{dim}") if dim in tiles else 0 for dim in range(count)],
        "subgroup": [knob(f"sg_{dim}") if dim in parts else 0 for dim in range(count)],
        "reduction": reduction,
    }

    def constrain(body: Body) -> None:
        mma = _MatrixTile.of(body, intrinsics)
        wg = {dim: body.knob(f"wg_{dim}", choices) for dim, choices in tiles.items()}
        sg = {dim: body.knob(f"sg_{dim}", choices) for dim, choices in parts.items()}
        red = body.knob(f"red_{k}", steps)
        if igemm is not None:
            body.knob("use_igemm_idx", [int(igemm)])
        subgroups, extents = [], []
        for letter, dims, shape in (("m", loops.m, mma.m), ("n", loops.n, mma.n)):
            whole = body.product([body.tiles(body.dims[dims[-1]], shape), shape])
            body.multiple(whole, wg[dims[-1]], f"the padded dim_{dims[-1]}", f"wg_{dims[-1]}")
            for dim in dims:
                unit = body.product([sg[dim], shape]) if dim == dims[-1] else sg[dim]
                body.multiple(wg[dim], unit, f"wg_{dim}", f"the elements of sg_{dim}")
            extent = body.product([wg[dim] for dim in dims])
            body.limit(extent, _LARGEST_TILE, f"the elements of a workgroup along {letter}")
            tile = body.product([*(sg[dim] for dim in dims), shape])
            body.multiple(extent, tile, f"the tile of a workgroup along {letter}", "that of a subgroup")
            subgroups.append(body.quotient(extent, tile))
            extents.append(extent)
        depth = body.product([red, mma.k])
        body.limit(depth, _LARGEST_TILE, f"the elements of red_{k}")
        whole = body.product([body.dims[dim] for dim in ((k, *loops.fused) if igemm else (k,))])
        if is_padded:
            whole = body.product([body.tiles(whole, mma.k), mma.k])
        body.multiple(whole, depth, f"the padded dim_{k}", f"the elements of red_{k}")
        _require_room(body, root, target, extents, depth)
        threads = _require_subgroups(body, target, subgroups)
        _fix_knobs(body, target, threads, 0 if igemm else _PREFETCH_STAGES)

    return (build_space(_TILE_AND_FUSE, sizes, knobs, constrain),)


def _vector_distribute(root: RootOp, target: TargetFacts, loops: _Loops) -> tuple[SearchSpace, ...]:
    intrinsics = _fitting(root, target, loops)
    if not intrinsics:
        return ()
    sizes, count = root.loops, len(root.loops)
    m, n, k = (dims[-1] for dims in (loops.m, loops.n, loops.k))
    choices = {
        dim: tuple(
            tile
            for tile in divisors(sizes[dim])
            if tile <= _LARGEST_TILE and any(tile % intrinsic.shape[side] == 0 for intrinsic in intrinsics)
        )
        for side, dim in enumerate((m, n, k))
    }
    if not all(choices.values()):
        return ()
    workgroup: list[object] = [int(dim in loops.parallel) for dim in range(count)]
    reduction: list[object] = [int(dim not in loops.parallel) for dim in range(count)]
    basis: list[object] = [1] * count
    workgroup[m], workgroup[n], reduction[k] = knob(f"wg_{m}"), knob(f"wg_{n}"), knob(f"red_{k}")
    basis[m], basis[n] = knob("sg_m_cnt"), knob("sg_n_cnt")
    knobs = _knob_dictionary(intrinsics, False) | {
        "workgroup": workgroup,
        "reduction": reduction,
        "subgroup_basis": [basis, list(range(count))],
    }
    if root.kind == "contraction":
        knobs["promotion_types"] = [_PROMOTION] * 2

    def constrain(body: Body) -> None:
        mma = _MatrixTile.of(body, intrinsics)
        wg_m, wg_n = (body.knob(f"wg_{dim}", choices[dim]) for dim in (m, n))
        red = body.knob(f"red_{k}", choices[k])
        counts = [body.knob(f"sg_{side}_cnt", range(1, _MOST_SUBGROUPS + 1)) for side in "mn"]
        threads = _require_subgroups(body, target, counts)
        body.multiple(red, mma.k, f"red_{k}", "the depth of an instruction")
        body.multiple(red, mma.m, f"red_{k}", "the rows of an instruction")
        body.limit(body.quotient(red, mma.k), _MOST_SUBGROUP_TILES, "the instructions along k in a step")
        for dim, tile, shape, along in ((m, wg_m, mma.m, counts[0]), (n, wg_n, mma.n, counts[1])):
            body.multiple(tile, body.product([along, shape]), f"wg_{dim}", "the instructions along it")
            own = body.quotient(tile, body.product([along, shape]))
            body.limit(own, _MOST_SUBGROUP_TILES, f"the instructions of a subgroup along dim_{dim}")
            body.multiple(body.product([red, tile]), threads, "the elements of a promoted tile", "the threads")
        body.require(
            body.either([body.at_most(threads, tile) for tile in (wg_m, wg_n)]),
            f"the threads ({{}}) must be at most wg_{m} ({{}}) or wg_{n} ({{}})",
            threads,
            wg_m,
            wg_n,
        )
        _require_room(body, root, target, [wg_m, wg_n], red)
        _fix_knobs(body, target, threads, _PREFETCH_STAGES)

    return (build_space(_VECTOR_DISTRIBUTE, sizes, knobs, constrain),)


class _MatrixTile(NamedTuple):
    """The sizes of the chosen instruction, as values of a constraints op."""

    m: Any
    n: Any
    k: Any

    @classmethod
    def of(cls, body: Body, intrinsics: Sequence[Intrinsic]) -> _MatrixTile:
        """Add the knob that chooses the instruction."""
        index = body.knob("mma_idx", range(len(intrinsics)))
        return cls(*(lookup(index, [intrinsic.shape[side] for intrinsic in intrinsics]) for side in range(3)))


def _knob_dictionary(intrinsics: Sequence[Intrinsic], use_igemm: object) -> dict[str, object]:
    return {
        "mma_kind": one_of_knob("mma_idx", [intrinsic.attribute for intrinsic in intrinsics]),
        "promote_operands": [0, 1],
        "subgroup_size": knob("sg_size"),
        "workgroup_size": [knob(f"wg_size_{axis}") for axis in "xyz"],
        "gpu_pipeline_options": {
            "prefetch_num_stages": knob("prefetch_num_stages"),
            "no_reduce_shared_memory_bank_conflicts": False,
            "use_igemm_convolution": use_igemm,
        },
    }


def _require_subgroups(body: Body, target: TargetFacts, counts: Sequence[Any]) -> Any:
    """Limit the subgroups along rows and columns, and return the number of threads."""
    for side, count in zip("mn", counts, strict=True):
        body.limit(count, _MOST_SUBGROUPS_ALONG, f"the subgroups along {side}")
    body.limit(body.product(counts), _MOST_SUBGROUPS, "the subgroups of a workgroup")
    threads = body.product([*counts, body.number(target.subgroup_sizes[0])])
    body.limit(threads, target.max_threads, "the threads of a workgroup")
    return threads


def _require_room(body: Body, root: RootOp, target: TargetFacts, extents: Sequence[Any], depth: Any) -> None:
    """Require that the promoted tiles of both operands fit in shared memory."""
    parts = [
        body.product([body.number(_bytes_of(tensor.element)), extent, depth])
        for tensor, extent in zip(root.inputs[:2], extents, strict=True)
    ]
    body.limit(body.total(parts), target.shared_memory_bytes, "the bytes of shared memory that promoted tiles take")


def _fix_knobs(body: Body, target: TargetFacts, threads: Any, stages: int) -> None:
    size = body.knob("wg_size_x", [target.subgroup_sizes[0] * count for count in range(1, _MOST_SUBGROUPS + 1)])
    body.require(body.equal(size, threads), "wg_size_x ({}) must be the number of threads ({})", size, threads)
    fixed: Mapping[str, int] = {
        "wg_size_y": 1,
        "wg_size_z": 1,
        "sg_size": target.subgroup_sizes[0],
        "prefetch_num_stages": stages,
    }
    for name, value in fixed.items():
        body.knob(name, [value])


def _overpadded(size: int) -> int:
    """Return the size to which the compiler pads an outer dimension before im2col."""
    for least in (128, 32):
        if size > least:
            return -(-size // least) * least
    return size


def _ascending(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))
