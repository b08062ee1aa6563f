"""Search spaces of matmul-like contractions on llvm-cpu, under the pipeline DoubleTilingExpert.

The compiler emits no constraints for llvm-cpu, so the op is built here, in the form the compiler emits for
GPUs, and read back by the one reader. Figures given as seen were taken with IREE 3.13 on two AVX-512 cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import arith, iree_codegen, smt

from pytest_shark_tune.stages.dispatch import RootOp, TargetFacts
from pytest_shark_tune.stages.space.constraints import read_constraints
from pytest_shark_tune.stages.space.search_space import NoSpace, SearchSpace

__all__ = ["BACKEND", "ELEMENT_BYTES", "KIND", "cpu_contraction_spaces"]

BACKEND = "llvm-cpu"
KIND = "contraction"

PIPELINE = "#iree_cpu.pipeline<DoubleTilingExpert>"

ELEMENT_BYTES = {"i8": 1, "i16": 2, "f16": 2, "bf16": 2, "i32": 4, "f32": 4, "i64": 8, "f64": 8}
"""The element types that the space covers, inputs and outputs, with their sizes."""

_ROW_TILES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
_DEPTH_TILES = (1, 2, 4, 8, 16)
_STRIDED_DEPTH_TILES = (4, 8, 16, 32)
_LONE_DEPTH_TILES = (4, 8, 16, 32, 64)

_MOST_NATIVE_VECTORS = 512
"""The compiler refuses a vector contraction of this many native vectors (iree-llvmcpu's check of large vectors)."""

_FEWEST_ACCUMULATORS = 6
"""Vectors of sums in flight; of a 512x512x512 f32 matmul, the best seen with four or five took 1.3 times the best."""

_RAGGED_SHARE = 64
"""At most this part of a dimension (1/64) may be left over by whole vectors in its last workgroup."""

_FEWEST_PROCESSOR_OPS = 1 << 17
"""Multiply-adds for which it is worth to wake another processor, some microseconds of work."""

_FEWEST_WORKGROUP_OPS = 1 << 15
"""Multiply-adds that make a workgroup worth its dispatch, which takes about a microsecond."""


class _Loop(msgspec.Struct, frozen=True):
    """One iteration dimension: the tiles that may be tried at the vector level and for distribution."""

    index: int
    size: int
    vector: tuple[int, ...]
    distribution: tuple[int, ...] = ()
    largest_rest: int = 0


def cpu_contraction_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """The space of a contraction with static, positive sizes.

    Knobs, where ``i`` is a position in ``root.loops``; a dimension that leaves no choice has none:

    - ``dist_i``: elements of a parallel dimension in a workgroup's tile;
    - ``vec_i``: elements in the vector tile, of a parallel dimension (``vector_common_parallel``) or of the
      innermost reduction (``vector_reduction``);
    - ``peel``: 1 where a tile does not divide what it tiles, so loops are peeled; 0 where all divide.

    There are no knobs for cache tiles: distribution tiles block for the cache as well, no cache tile seen was
    faster beyond the noise, and a cache tile of the reduction often makes vectors that the compiler refuses.

    Raises:
        NoSpace: an element type is not covered.
    """
    for tensor in (*root.inputs, *root.outputs):
        if tensor.element not in ELEMENT_BYTES:
            raise NoSpace(
                f"{root.op} has elements of type {tensor.element}; its space covers {', '.join(ELEMENT_BYTES)}"
            )
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        space = _space(root, target, fast=True)
        # Limits made for speed may contradict each other where there is little to compute or to divide.
        return (space if space else _space(root, target, fast=False),)


def _space(root: RootOp, target: TargetFacts, *, fast: bool) -> SearchSpace:
    """The space read back from the op; with ``fast`` also without what compiles but cannot be fast."""
    loops, lane, depth = _loops(root, target)
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        dims = [arith.ConstantOp(ir.IndexType.get(), size).result for size in root.loops]
        op = iree_codegen.ConstraintsOp(
            target=ir.Attribute.parse("#iree_codegen.root_op<set = 0>"),
            pipeline=ir.Attribute.parse(PIPELINE),
            knobs=_knob_dictionary(root, loops, depth),
            problem_dims=dims,
        )
    block = op.regions[0].blocks.append(*[smt.IntType.get()] * len(dims))
    with ir.InsertionPoint(block):
        body = _Body(root.loops, block.arguments)
        vector = {index: _tile(body, f"vec_{index}", loop.vector) for index, loop in loops.items()}
        distribution = {
            index: _tile(body, f"dist_{index}", loop.distribution) for index, loop in loops.items() if index != depth
        }
        _assert_tiling(body, vector, distribution)
        _assert_compiles(body, root, target, vector)
        if fast:
            parallel = {index: vector[index] for index in distribution}
            _assert_whole_vectors(body, loops, lane, vector, distribution)
            _assert_registers(body, root, target, loops, lane, parallel)
            _assert_workgroups(body, root, target, loops, distribution)
    module.operation.verify()
    (space,) = [read_constraints(op) for op in ir.get_ops_of_type(module, iree_codegen.ConstraintsOp)]
    return space


def _loops(root: RootOp, target: TargetFacts) -> tuple[dict[int, _Loop], int, int]:
    """The parallel and the innermost reduction loops by position, the loop that vectors run along, and the latter."""
    element = ELEMENT_BYTES[root.outputs[0].element]
    lanes = max(1, target.native_vector_bytes // element)
    output = _positions(root.maps[-1])
    parallel = [index for index, kind in enumerate(root.iterators) if kind == "parallel"]
    wide = [index for index in output if index in parallel and index not in root.batch and root.loops[index] > 1]
    lane = (wide or parallel or [-1])[-1]
    strided = any(lane in (read := _positions(text)) and read[-1] != lane for text in root.maps[:-1])
    alone = all(root.loops[index] == 1 for index in parallel if index != lane and index not in root.batch)
    longest = lanes if strided else lanes * 8
    shortest = max(1, lanes // 4) if strided and alone else lanes
    loops: dict[int, _Loop] = {}
    for index in parallel:
        size = root.loops[index]
        if index in root.batch:
            loops[index] = _Loop(index, size, (1,), _divisors(size))
            continue
        vector = _lane_tiles(size, shortest, longest) if index == lane else tuple(t for t in _ROW_TILES if t <= size)
        loops[index] = _Loop(index, size, vector, _distribution_tiles(size, vector), _largest_rest(size, vector))
    depth = root.k[-1] if root.k else -1
    if depth >= 0:
        size = root.loops[depth]
        choices = (_LONE_DEPTH_TILES if alone else _STRIDED_DEPTH_TILES) if strided else _DEPTH_TILES
        tiles = tuple(t for t in choices if t <= size) or (size,)
        loops[depth] = _Loop(depth, size, tiles, (), _largest_rest(size, tiles))
    return loops, lane, depth


def _positions(affine_map: str) -> tuple[int, ...]:
    """The loops that the results of an indexing map name, in order; results that are sums name none."""
    results = ir.AffineMapAttr(ir.Attribute.parse(affine_map)).value.results
    return tuple(result.position for result in results if isinstance(result, ir.AffineDimExpr))


def _lane_tiles(size: int, shortest: int, longest: int) -> tuple[int, ...]:
    """Powers of two, as other lengths were at best 1.7 times slower; half of ``shortest`` too if that leaves less.

    They go from one native vector to eight. Where memory runs along another dimension, more than one only
    shuffles more (at best 2.5 times slower); where there is no other dimension to go through, a quarter of one
    is often better, as the reduction is then what fills the vectors.
    """
    half = shortest // 2
    if half and size % half < size % shortest:
        shortest = half
    tiles = tuple(t for t in _powers(min(size, longest)) if t >= shortest)
    return tiles or tuple(sorted({_powers(size)[-1], size}))


def _distribution_tiles(size: int, vector: Sequence[int]) -> tuple[int, ...]:
    tiles = {size} | {d for d in _divisors(size) if any(d % tile == 0 for tile in vector)}
    tiles |= {tile * power for tile in vector for power in _powers(max(1, size // tile))}
    return tuple(sorted(tiles))


def _largest_rest(size: int, tiles: Iterable[int]) -> int:
    """A quarter of ``size`` may be left over by a tile, and more only where every tile leaves more."""
    return max(size // 4, min(size % tile for tile in tiles))


def _powers(largest: int) -> tuple[int, ...]:
    return tuple(1 << bit for bit in range(largest.bit_length()))


def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def _knob_dictionary(root: RootOp, loops: Mapping[int, _Loop], depth: int) -> Any:
    """The lowering config with knobs for tiles; a tile that leaves no choice is written down as it is."""

    def level(prefix: str, tiles: Mapping[int, Sequence[int]]) -> str:
        leaves = ["0"] * len(root.loops)
        for index, choices in tiles.items():
            leaves[index] = _knob(f"{prefix}_{index}") if len(choices) > 1 else str(choices[0])
        return f"[{', '.join(leaves)}]"

    parallel = {index: loop for index, loop in loops.items() if index != depth}
    reduction = dict.fromkeys(root.k, (1,)) | ({depth: loops[depth].vector} if depth >= 0 else {})
    entries = {
        "distribution": level("dist", {index: loop.distribution for index, loop in parallel.items()}),
        "vector_common_parallel": level("vec", {index: loop.vector for index, loop in parallel.items()}),
        "vector_reduction": level("vec", reduction),
        "enable_loop_peeling": _knob("peel"),
    }
    return ir.Attribute.parse(f"{{{', '.join(f'{name} = {value}' for name, value in entries.items())}}}")


def _knob(name: str) -> str:
    return f'#iree_codegen.smt.int_knob<"{name}">'


class _Body:
    """Writes the body of a constraints op: smt ops for integers and truths, and asserts with their messages."""

    def __init__(self, sizes: Sequence[int], dims: Sequence[Any]) -> None:
        self._int = smt.IntType.get()
        self._constants: dict[int, Any] = {}
        self.dims = tuple(dims)
        for index, (size, dim) in enumerate(zip(sizes, dims, strict=True)):
            self.require(self.equal(dim, self.number(size)), f"dim_{index} ({{}}) == {size}", dim)

    def number(self, value: int) -> Any:
        if value not in self._constants:
            attribute = ir.IntegerAttr.get(ir.IntegerType.get_unsigned(64), value)
            self._constants[value] = smt.IntConstantOp(attribute).result
        return self._constants[value]

    def knob(self, name: str) -> Any:
        return iree_codegen.KnobOp(name, results=[self._int]).result

    def product(self, values: Sequence[Any]) -> Any:
        if len(values) > 1:
            return smt.IntMulOp(list(values)).result
        return values[0] if values else self.number(1)

    def plus(self, a: Any, b: Any) -> Any:
        return smt.IntAddOp([a, b]).result

    def minus(self, a: Any, b: Any) -> Any:
        return smt.IntSubOp(a, b).result

    def rest(self, a: Any, b: Any) -> Any:
        return smt.IntModOp(a, b).result

    def tiles(self, size: Any, tile: Any) -> Any:
        """How many tiles cover ``size``."""
        return smt.IntDivOp(self.minus(self.plus(size, tile), self.number(1)), tile).result

    def equal(self, a: Any, b: Any) -> Any:
        return smt.EqOp([a, b]).result

    def at_most(self, a: Any, b: Any) -> Any:
        return smt.IntCmpOp(smt.IntPredicate.le, a, b).result

    def divides(self, tile: Any, size: Any) -> Any:
        return self.equal(self.rest(size, tile), self.number(0))

    def every(self, truths: Sequence[Any]) -> Any:
        return smt.AndOp(list(truths)).result if len(truths) > 1 else truths[0]

    def either(self, truths: Sequence[Any]) -> Any:
        return smt.OrOp(list(truths)).result if len(truths) > 1 else truths[0]

    def one_of(self, value: Any, choices: Sequence[int]) -> Any:
        return self.either([self.equal(value, self.number(choice)) for choice in choices])

    def choose(self, condition: Any, then: int, otherwise: int) -> Any:
        return smt.IteOp(condition, self.number(then), self.number(otherwise)).result

    def require(self, condition: Any, message: str, *shown: Any) -> None:
        iree_codegen.AssertOp(condition, message, list(shown))


def _tile(body: _Body, name: str, choices: Sequence[int]) -> Any:
    if len(choices) == 1:
        return body.number(choices[0])
    knob = body.knob(name)
    words = ", ".join(map(str, choices))
    body.require(body.one_of(knob, choices), f"{name} ({{}}) must be one of {words}", knob)
    return knob


def _assert_tiling(body: _Body, vector: Mapping[int, Any], distribution: Mapping[int, Any]) -> None:
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
    peel = body.knob("peel")
    body.require(
        body.equal(peel, body.choose(body.every(whole), 0, 1)),
        "peel ({}) must be 0 where every tile divides what it tiles, and 1 where one does not",
        peel,
    )


def _assert_compiles(body: _Body, root: RootOp, target: TargetFacts, vector: Mapping[int, Any]) -> None:
    """The compiler checks the unrolled contraction against native vectors, and what it spills against the stack."""
    room = min(target.max_stack_bytes, _MOST_NATIVE_VECTORS * target.native_vector_bytes)
    widest = max(ELEMENT_BYTES[tensor.element] for tensor in (*root.inputs, *root.outputs))
    unrolled = body.product([body.number(widest), *vector.values()])
    body.require(
        body.at_most(unrolled, body.number(room - 1)),
        f"the unrolled vector tile takes {{}} bytes and must take less than {room}, or it does not compile",
        unrolled,
    )


def _assert_whole_vectors(
    body: _Body, loops: Mapping[int, _Loop], lane: int, vector: Mapping[int, Any], distribution: Mapping[int, Any]
) -> None:
    """Limits on what vector tiles leave over, which is computed in shorter vectors or element by element."""
    for index, loop in loops.items():
        dim, tile = body.dims[index], vector[index]
        rest = body.rest(dim, tile)
        body.require(
            body.at_most(rest, body.number(loop.largest_rest)),
            f"vec_{index} ({{}}) must leave at most {loop.largest_rest} of dim_{index} ({{}}), not {{}}",
            tile,
            dim,
            rest,
        )
    others = math.prod(loops[index].size for index in distribution if index != lane)
    if lane not in distribution or others == 1:
        return
    # The length of a last workgroup's ragged vectors is not known when it is compiled: in the median seen, two to
    # nine times slower.
    dim, allowed = body.dims[lane], loops[lane].size // _RAGGED_SHARE
    ragged = body.rest(body.rest(dim, distribution[lane]), vector[lane])
    body.require(
        body.at_most(ragged, body.number(allowed)),
        f"the last workgroup along dim_{lane} ({{}}) must have at most {allowed} elements left over by whole "
        f"vectors, not {{}}",
        dim,
        ragged,
    )


def _assert_registers(
    body: _Body,
    root: RootOp,
    target: TargetFacts,
    loops: Mapping[int, _Loop],
    lane: int,
    parallel: Mapping[int, Any],
) -> None:
    """Limits on accumulators: no more than registers hold, and enough to hide latency and to reuse what is loaded."""
    element = ELEMENT_BYTES[root.outputs[0].element]
    lanes = max(1, target.native_vector_bytes // element)
    most = _registers(target) * lanes
    accumulators = body.product(list(parallel.values()))
    body.require(
        body.at_most(accumulators, body.number(most)),
        f"the product of the parallel vector tiles ({{}}) must be at most {most}, which fills the vector registers",
        accumulators,
    )
    rows = [index for index in parallel if index != lane and len(loops[index].vector) > 1]
    if not rows:
        # A vector times a matrix waits for memory, not for the multipliers.
        return
    fewest = min(_FEWEST_ACCUMULATORS * lanes, _largest_product([loops[index].vector for index in parallel], most))
    body.require(
        body.at_most(body.number(fewest), accumulators),
        f"the product of the parallel vector tiles ({{}}) must be at least {fewest}, to keep the multipliers busy",
        accumulators,
    )
    used = body.product([parallel[index] for index in rows])
    body.require(
        body.at_most(body.number(2), used),
        f"the product of the vector tiles of dimensions {', '.join(map(str, rows))} ({{}}) must be at least 2, "
        f"so that what is loaded along dim_{lane} is used twice",
        used,
    )


def _assert_workgroups(
    body: _Body,
    root: RootOp,
    target: TargetFacts,
    loops: Mapping[int, _Loop],
    distribution: Mapping[int, Any],
) -> None:
    """Limits on workgroups: enough to keep every processor busy to the end, and each worth its dispatch."""
    if not distribution:
        return
    tile = body.product(list(distribution.values()))
    workgroups = body.product([body.tiles(body.dims[index], outer) for index, outer in distribution.items()])
    finest = math.prod(math.ceil(loops[index].size / min(loops[index].distribution)) for index in distribution)
    depth = math.prod(root.loops[index] for index in root.k)
    outputs = math.prod(loops[index].size for index in distribution)
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


def _registers(target: TargetFacts) -> int:
    """Vector registers: 32 with AVX-512 and on the 64-bit Arm and RISC-V architectures, 16 on other x86."""
    many = target.native_vector_bytes >= 64 or target.architecture.startswith(("aarch64", "arm64", "riscv"))
    return 32 if many else 16


def _largest_product(choices: Iterable[Sequence[int]], limit: int) -> int:
    """The largest product of one number from each of ``choices`` that is at most ``limit``."""
    products = reduce(lambda found, more: {a * b for a in found for b in more if a * b <= limit}, choices, {1})
    return max(products, default=1)
