"""What search spaces on llvm-cpu share: tiles as knobs, and what every pipeline there asks of them.

The compiler emits no constraints for llvm-cpu, so each space builds its op here, in the form that the compiler
emits for GPUs, and has it read back by the one reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, built_space, knob
from pytest_shark_tune.search_space.space import NoSpace, SearchSpace

__all__ = [
    "BACKEND",
    "ELEMENT_BYTES",
    "MOST_NATIVE_VECTORS",
    "Axis",
    "Tiles",
    "distribution_tiles",
    "divisors",
    "lane_count",
    "operand_dims",
    "powers",
    "refuse_elements",
    "registers",
    "require_even_tiling",
    "require_tiling",
    "require_vector_room",
    "require_workgroups",
    "tiled_space",
]

BACKEND = "llvm-cpu"

ELEMENT_BYTES = {"i8": 1, "i16": 2, "f16": 2, "bf16": 2, "i32": 4, "f32": 4, "i64": 8, "f64": 8}
"""The element types that the space covers, inputs and outputs, with their sizes."""

MOST_NATIVE_VECTORS = 512
"""The compiler refuses a vector contraction of this many native vectors (iree-llvmcpu's check of large vectors)."""

_FEWEST_PROCESSOR_OPS = 1 << 17
"""Multiply-adds for which it is worth to wake another processor, some microseconds of work."""

_FEWEST_WORKGROUP_OPS = 1 << 15
"""Multiply-adds that make a workgroup worth its dispatch, which takes about a microsecond."""


class Axis(msgspec.Struct, frozen=True):
    """One loop: the tiles that may be tried at the vector level and, for a parallel loop, for distribution.

    Tiles are in elements. Of a parallel loop the vector tile is one of ``vector_common_parallel``, of a reduction one
    of ``vector_reduction``; one tile alone is no choice, and is written down instead of becoming a knob.
    """

    index: int
    size: int
    vector: tuple[int, ...]
    distribution: tuple[int, ...] = ()


class Tiles(NamedTuple):
    """The knobs (or constants) of a constraints op, by the loop's position."""

    vector: Mapping[int, Any]
    distribution: Mapping[int, Any]


def tiled_space(
    root: RootOp, pipeline: str, axes: Sequence[Axis], constrain: Callable[[Body, Tiles], None], *, peels: bool
) -> SearchSpace:
    """The space of ``axes`` under ``#iree_cpu.pipeline<pipeline>``, with the constraints that ``constrain`` writes.

    Knobs are ``dist_i`` and ``vec_i``, where ``i`` is a position in ``root.loops``, and with ``peels`` also ``peel``,
    which ``constrain`` must use.
    """

    def write(body: Body) -> None:
        vector = {axis.index: _tile(body, f"vec_{axis.index}", axis.vector) for axis in axes}
        distribution = {
            axis.index: _tile(body, f"dist_{axis.index}", axis.distribution) for axis in axes if axis.distribution
        }
        constrain(body, Tiles(vector, distribution))

    return built_space(f"#iree_cpu.pipeline<{pipeline}>", root.loops, _knobs(root, axes, peels=peels), write)


def _knobs(root: RootOp, axes: Sequence[Axis], *, peels: bool) -> dict[str, object]:
    """The lowering config with knobs for tiles; a tile that leaves no choice is written down as it is."""

    def level(prefix: str, tiles: Mapping[int, Sequence[int]]) -> list[object]:
        leaves: list[object] = [0] * len(root.loops)
        for index, choices in tiles.items():
            leaves[index] = knob(f"{prefix}_{index}") if len(choices) > 1 else choices[0]
        return leaves

    knobs: dict[str, object] = {
        "distribution": level("dist", {axis.index: axis.distribution for axis in axes if axis.distribution}),
        "vector_common_parallel": level("vec", {axis.index: axis.vector for axis in axes if axis.distribution}),
        "vector_reduction": level("vec", {axis.index: axis.vector for axis in axes if not axis.distribution}),
    }
    return knobs | ({"enable_loop_peeling": knob("peel")} if peels else {})


def _tile(body: Body, name: str, choices: Sequence[int]) -> Any:
    return body.number(choices[0]) if len(choices) == 1 else body.knob(name, choices)


def require_tiling(body: Body, vector: Mapping[int, Any], distribution: Mapping[int, Any]) -> None:
    """What makes tiles a tiling: vectors fill a workgroup's tile, and loops are peeled where something is left over."""
    whole = []
    for index, tile in vector.items():
        dim = body.dims[index]
        if index not in distribution:
            whole.append(body.divides(tile, dim))
            continue
        outer = distribution[index]
        body.require(
            body.either([body.divides(tile, outer), body.equal(outer, dim)]),
            f"dist_{index} ({{}}) must be a multiple of vec_{index} ({{}}) or the whole of dim_{index} ({{}})",
            outer,
            tile,
            dim,
        )
        whole += [body.divides(tile, outer), body.divides(outer, dim)]
    peel = body.knob("peel", (0, 1))
    body.require(
        body.equal(peel, body.choose(body.every(whole), body.number(0), body.number(1))),
        "peel ({}) must be 0 where every tile divides what it tiles, and 1 where one does not",
        peel,
    )


def require_workgroups(
    body: Body, root: RootOp, target: TargetFacts, axes: Iterable[Axis], distribution: Mapping[int, Any]
) -> None:
    """Limits on workgroups: enough to keep every processor busy to the end, and each worth its dispatch."""
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
    """Ask that vector tiles fill a workgroup's tile, and workgroups' tiles the loop, wherever a tile is a vector.

    For pipelines in which peeling does not help: they compute what is left over element by element.
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


def require_vector_room(body: Body, factors: Sequence[Any], element_bytes: int, room: int, what: str) -> None:
    """Ask that vectors of the shape ``factors`` take less than ``room`` bytes; ``what`` says whose they are."""
    taken = body.product([body.number(element_bytes), *factors])
    body.require(
        body.at_most(taken, body.number(room - 1)), f"{what} takes {{}} bytes and must take less than {room}", taken
    )


def refuse_elements(root: RootOp, covered: Collection[str] = tuple(ELEMENT_BYTES)) -> None:
    """Raise NoSpace where an operand's element type is not ``covered``."""
    for tensor in (*root.inputs, *root.outputs):
        if tensor.element not in covered:
            raise NoSpace(f"{root.op} has elements of type {tensor.element}; its space covers {', '.join(covered)}")


def lane_count(root: RootOp, target: TargetFacts) -> int:
    """Elements of the first result in a vector register."""
    return max(1, target.native_vector_bytes // ELEMENT_BYTES[root.outputs[0].element])


def operand_dims(root: RootOp) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each operand, inputs first, and each of its dimensions, the loops whose sum indexes it.

    A dimension that a loop indexes alone gives one position, a convolution's image two, a constant index none.
    """
    with ir.Context():
        maps = [ir.AffineMapAttr(ir.Attribute.parse(text)).value for text in root.maps]
        return tuple(tuple(_dims(result) for result in affine.results) for affine in maps)


def _dims(expression: ir.AffineExpr) -> tuple[int, ...]:
    if isinstance(expression, ir.AffineDimExpr):
        return (expression.position,)
    if isinstance(expression, ir.AffineBinaryExpr):
        return (*_dims(expression.lhs), *_dims(expression.rhs))
    return ()


def distribution_tiles(size: int, vector: Sequence[int]) -> tuple[int, ...]:
    """Tiles of a loop that hold whole vectors: its divisors, powers of two times a vector, and the loop itself."""
    tiles = {size} | {d for d in divisors(size) if any(d % tile == 0 for tile in vector)}
    tiles |= {tile * power for tile in vector for power in powers(max(1, size // tile))}
    return tuple(sorted(tiles))


def powers(largest: int) -> tuple[int, ...]:
    """The powers of two up to ``largest``, ascending."""
    return tuple(1 << bit for bit in range(largest.bit_length()))


def divisors(number: int) -> tuple[int, ...]:
    """The divisors of ``number``, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def registers(target: TargetFacts) -> int:
    """Vector registers: 32 with AVX-512 and on the 64-bit Arm and RISC-V architectures, 16 on other x86."""
    many = target.native_vector_bytes >= 64 or target.architecture.startswith(("aarch64", "arm64", "riscv"))
    return 32 if many else 16
