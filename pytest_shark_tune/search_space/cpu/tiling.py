"""Tiles as knobs, and the constraints on them that all search spaces on llvm-cpu share.

The compiler emits no constraints for llvm-cpu. So the spaces build constraints ops here, in the form that the compiler
emits for GPUs, and the one reader reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.mlir import affine_map, loops_in, shared_context
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.attribute_names import cpu_pipeline
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import divisors, powers, tile_knobs, tile_level

__all__ = [
    "MOST_NATIVE_VECTORS",
    "Axis",
    "Tiles",
    "distribution_tiles",
    "lane_count",
    "operand_dims",
    "registers",
    "require_even_tiling",
    "require_registers",
    "require_small_rest",
    "require_tiling",
    "require_vector_room",
    "require_whole_vectors",
    "require_workgroups",
    "row_tiles",
    "tiled_space",
    "widest_element",
]

MOST_NATIVE_VECTORS = 512
"""The compiler refuses a vector contraction of this many native vectors (iree-llvmcpu's check of large vectors)."""

_FEWEST_PROCESSOR_OPS = 1 << 17
"""The number of multiply-adds that makes it worthwhile to wake another processor, some microseconds of work."""

_FEWEST_WORKGROUP_OPS = 1 << 15
"""The number of multiply-adds that makes a workgroup worth its dispatch, which takes about a microsecond."""


_LONGEST_ROW = 16


class Axis(msgspec.Struct, frozen=True):
    """One loop and its tiles to try, in elements. A single tile is no choice, so it is a constant instead of a knob."""

    index: int
    """The position of the loop."""
    size: int
    vector: tuple[int, ...]
    """The tiles at the vector level: ``vector_common_parallel`` for a parallel loop, else ``vector_reduction``."""
    distribution: tuple[int, ...] = ()
    """The tiles of a workgroup; a reduction has none."""


class Tiles(NamedTuple):
    """The tiles in a constraints op (knobs or constants), by the loop's position."""

    vector: Mapping[int, Any]
    distribution: Mapping[int, Any]


def tiled_space(
    root: RootOp, pipeline: str, axes: Sequence[Axis], constrain: Callable[[Body, Tiles], None], *, peels: bool
) -> SearchSpace:
    """Build the space of tiles under a pipeline of ``iree_cpu``, or one that is written as text.

    Its knobs are ``dist_i`` and ``vec_i``, where ``i`` is a position in ``root.loops``.

    Args:
        root: The root op.
        pipeline: The name of the pipeline.
        axes: The loops with their tiles.
        constrain: Writes the constraints.
        peels: Whether there is a knob ``peel`` too, which ``constrain`` must use.
    """
    vector = {axis.index: axis.vector for axis in axes}
    distribution = {axis.index: axis.distribution for axis in axes if axis.distribution}
    parallel = {index: tiles for index, tiles in vector.items() if index in distribution}
    reductions = {index: tiles for index, tiles in vector.items() if index not in distribution}
    count = len(root.loops)
    knobs = {
        "distribution": tile_level(count, "dist", distribution),
        "vector_common_parallel": tile_level(count, "vec", parallel),
        "vector_reduction": tile_level(count, "vec", reductions),
        **({"enable_loop_peeling": knob("peel")} if peels else {}),
    }

    def write(body: Body) -> None:
        constrain(body, Tiles(tile_knobs(body, "vec", vector), tile_knobs(body, "dist", distribution)))

    return build_space(cpu_pipeline(pipeline), root.loops, knobs, write)


def require_tiling(body: Body, vector: Mapping[int, Any], distribution: Mapping[int, Any]) -> None:
    """Require that vectors fill a workgroup's tile, and that loops are peeled if a tile leaves a remainder."""
    whole = []
    for index, tile in vector.items():
        dim = body.dims[index]
        if index not in distribution:
            whole.append(body.divides(tile, dim))
            continue
        outer = distribution[index]
        require_whole_vectors(body, index, tile, outer)
        whole += [body.divides(tile, outer), body.divides(outer, dim)]
    peel = body.knob("peel", (0, 1))
    body.require(
        body.equal(peel, body.choose(body.every(whole), body.number(0), body.number(1))),
        "peel ({}) must be 0 where every tile divides what it tiles, and 1 where one does not",
        peel,
    )


def require_whole_vectors(body: Body, index: int, tile: Any, outer: Any) -> None:
    """Require that vectors fill a workgroup's tile, unless it is the whole loop."""
    dim = body.dims[index]
    body.require(
        body.either([body.divides(tile, outer), body.equal(outer, dim)]),
        f"dist_{index} ({{}}) must be a multiple of vec_{index} ({{}}) or the whole of dim_{index} ({{}})",
        outer,
        tile,
        dim,
    )


def require_small_rest(body: Body, axis: Axis, tile: Any) -> None:
    """Limit the remainder of a loop's vectors to a quarter of the loop, or to the least remainder of all tiles."""
    dim = body.dims[axis.index]
    largest, rest = max(axis.size // 4, min(axis.size % choice for choice in axis.vector)), body.rest(dim, tile)
    body.require(
        body.at_most(rest, body.number(largest)),
        f"vec_{axis.index} ({{}}) must leave at most {largest} of dim_{axis.index} ({{}}), not {{}}",
        tile,
        dim,
        rest,
    )


def require_workgroups(
    body: Body, root: RootOp, target: TargetFacts, axes: Iterable[Axis], distribution: Mapping[int, Any]
) -> None:
    """Require enough workgroups to keep every processor busy to the end, and workgroups worth their dispatch."""
    if not distribution:
        return
    parallel = [axis for axis in axes if axis.index in distribution]
    tile = body.product(list(distribution.values()))
    workgroups = body.product([body.tiles(body.dims[index], outer) for index, outer in distribution.items()])
    finest = math.prod(math.ceil(axis.size / min(axis.distribution)) for axis in parallel)
    depth = root.reduction_length
    outputs = math.prod(axis.size for axis in parallel)
    enough = min(target.processors, finest, outputs * depth // _FEWEST_PROCESSOR_OPS)
    if enough > 1:
        body.require(
            body.at_most(body.number(enough), workgroups),
            f"there must be at least {enough} workgroups, not {{}}, for the {target.processors} processors",
            workgroups,
        )
        rounds = body.tiles(workgroups, body.number(enough))
        busy = body.product([rounds, body.number(enough * 2), tile])
        body.require(
            body.at_most(busy, body.number(outputs * 3 - 1)),
            f"{target.processors} processors must not wait for the last of {{}} workgroups a third of the time",
            workgroups,
        )
    worth = min(math.ceil(_FEWEST_WORKGROUP_OPS / depth), outputs // max(1, 4 * enough))
    body.require(
        body.at_most(body.number(worth), tile),
        f"a workgroup's tile of {{}} elements must have at least {worth}, or dispatching takes longer than computing",
        tile,
    )


def require_even_tiling(body: Body, tiles: Tiles, axes: Iterable[Axis]) -> None:
    """Require that vector tiles fill a workgroup's tile and that workgroups' tiles fill the loop, except for scalars.

    This is for pipelines in which peeling does not help: they compute a remainder element by element.
    """
    for axis in axes:
        if not axis.distribution or axis.vector == (1,):
            continue
        dim, tile, outer = body.dims[axis.index], tiles.vector[axis.index], tiles.distribution[axis.index]
        body.require(
            body.either(
                [body.equal(tile, body.number(1)), body.every([body.divides(tile, outer), body.divides(outer, dim)])]
            ),
            f"dist_{axis.index} ({{}}) must be a multiple of vec_{axis.index} ({{}}) and divide dim_{axis.index} "
            "({}), as what is left over is computed element by element",
            outer,
            tile,
            dim,
        )


def require_vector_room(body: Body, factors: Sequence[Any], element_bytes: int, room: int, vectors: str) -> None:
    """Require that vectors of the shape ``factors`` take less than ``room`` bytes; ``vectors`` names them."""
    taken = body.product([body.number(element_bytes), *factors])
    body.require(
        body.at_most(taken, body.number(room - 1)), f"{vectors} takes {{}} bytes and must take less than {room}", taken
    )


def require_registers(
    body: Body, root: RootOp, target: TargetFacts, tiles: Sequence[Any], words: str, *, fewest: int | None = None
) -> None:
    """Limit the elements of a tile to those that the vector registers hold.

    Args:
        body: The constraints.
        root: The root op.
        target: The target.
        tiles: The sizes of the tile.
        words: Describe their product.
        fewest: The least product, if there is one.
    """
    product = body.product(tiles)
    most = registers(target) * lane_count(root, target)
    body.limit(product, most, words, ", which fills the vector registers")
    if fewest is not None:
        body.least(product, fewest, words, ", to keep the multipliers busy")


def widest_element(root: RootOp) -> int:
    """Return the size in bytes of the largest element type of the operands."""
    return max(ELEMENT_BYTES[tensor.element] for tensor in (*root.inputs, *root.outputs))


def lane_count(root: RootOp, target: TargetFacts) -> int:
    """Return the number of elements of the first result in a vector register."""
    return max(1, target.native_vector_bytes // ELEMENT_BYTES[root.outputs[0].element])


def operand_dims(root: RootOp) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return the loops that index each dimension of each operand, inputs first.

    A dimension that one loop indexes has one position, an image dimension of a convolution has two, and a constant
    index has none.
    """
    with shared_context():
        return tuple(tuple(loops_in(result) for result in affine_map(text).results) for text in root.maps)


def row_tiles(size: int) -> tuple[int, ...]:
    """Return the divisors of a loop that no vector lies along, up to 16: the elements are unrolled."""
    return tuple(tile for tile in divisors(size) if tile <= _LONGEST_ROW)


def distribution_tiles(size: int, vector: Sequence[int]) -> tuple[int, ...]:
    """Return tiles of a loop that hold whole vectors: divisors, powers of two times a vector, and the loop itself."""
    tiles = {size} | {d for d in divisors(size) if any(d % tile == 0 for tile in vector)}
    tiles |= {tile * power for tile in vector for power in powers(max(1, size // tile))}
    return tuple(sorted(tiles))


def registers(target: TargetFacts) -> int:
    """Return the number of vector registers.

    There are 32 with AVX-512 and on the 64-bit Arm and RISC-V architectures, and 16 on other x86.
    """
    many = target.native_vector_bytes >= 64 or target.architecture.startswith(("aarch64", "arm64", "riscv"))
    return 32 if many else 16
