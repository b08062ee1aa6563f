"""Search spaces of attention under VectorDistribute on CUDA, for which the compiler emits no constraints.

The forms are those of the compiler's own choices: with matrix instructions if they fit, and otherwise without. In the
latter form, the threads of a workgroup share the keys of one query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.reasons import NothingToTile
from pytest_shark_tune.dispatch.types import Intrinsic, RootOp, TargetFacts
from pytest_shark_tune.search_space.emit import Body, attribute_text, build_space, knob
from pytest_shark_tune.search_space.gpu.mma import has_layout
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import powers, refuse_elements

__all__ = ["VERSION", "gpu_attention_spaces"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_PIPELINE = "#iree_gpu.pipeline<VectorDistribute>"
_PROMOTION = "#iree_gpu.derived_thread_config"
_ELEMENTS = ("f16", "bf16", "f32")

_MOST_SUBGROUPS = 8
_LARGEST_QUERY_TILE = 256
_MOST_THREAD_OUTPUTS = 192
"""Scores and results that a thread keeps in registers. There are 255 registers, and more values compile slower."""

_LARGEST_VECTOR_BYTES = 16
_MOST_UNROLLED = 64


def gpu_attention_spaces(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the space of an attention with static, positive sizes.

    If its sizes fit matrix instructions, the knobs are:

    - ``m_tile`` and ``n_tile``: the queries and the elements of the result in a workgroup's tile;
    - ``red_k2``: the keys in one step;
    - ``sg_m_cnt``: the subgroups that share the queries;
    - ``wg_size_x``: the threads of a workgroup.

    Otherwise a workgroup computes one query, and the knobs are ``n_tile``, ``wg_size_x`` and:

    - ``lanes_k2`` and ``lanes_n``: the threads of a subgroup along keys and along elements of a key or result;
    - ``sg_k2_cnt``: the subgroups along the keys;
    - ``thr_k1`` and ``thr_n``: the elements in a thread's vectors.

    Raises:
        NoSpace: An element type is not covered, or a class of dimensions is empty.
    """
    refuse_elements(root, _ELEMENTS, root.inputs[:3])
    if not (root.m and root.n and root.k1 and root.k2):
        raise NothingToTile(f"{root.op} has no dimension of queries, keys or values to tile")
    spaces = [
        _with_intrinsic(root, target, intrinsic) for intrinsic in target.intrinsics if _fits(root, target, intrinsic)
    ]
    return tuple(space for space in spaces if space) or (_by_lanes(root, target),)


def _fits(root: RootOp, target: TargetFacts, intrinsic: Intrinsic) -> bool:
    """Return whether an instruction that accumulates in f32 can compute both products."""
    query, key, value = (tensor.element for tensor in root.inputs[:3])
    m, n, k = intrinsic.shape
    return (
        intrinsic.elements == (query, key, "f32") == (value, value, "f32")
        and has_layout(intrinsic, target)
        and all(
            root.loops[dims[-1]] % size == 0 for dims, size in ((root.m, m), (root.n, n), (root.k1, k), (root.k2, k))
        )
    )


def _with_intrinsic(root: RootOp, target: TargetFacts, intrinsic: Intrinsic) -> SearchSpace:
    m, n, k = intrinsic.shape
    m_dim, n_dim, k2_dim = root.m[-1], root.n[-1], root.k2[-1]
    subgroup = target.subgroup_sizes[0]
    basis: list[object] = [1] * len(root.loops)
    basis[m_dim] = knob("sg_m_cnt")

    def product(without: Sequence[int], promoted: Sequence[int]) -> dict[str, object]:
        config = {
            "mma_kind": intrinsic.attribute,
            "promote_operands": promoted,
            "promotion_types": [_PROMOTION] * len(promoted),
            "subgroup_basis": [basis, [index for index in range(len(basis)) if index not in without]],
        }
        return {"lowering_config": _lowering_config_text(config)}

    knobs = {
        "decomposition_config": {"qk_attrs": product(root.n, [0, 1]), "pv_attrs": product(root.k1, [1])},
        "promote_operands": [0, 1, 2],
        "promotion_types": [_PROMOTION] * 3,
        "reduction": _tile_level(root, root.k2, k2_dim, knob("red_k2")),
        "workgroup": _workgroup(root, {m_dim: knob("m_tile"), n_dim: knob("n_tile")}),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": subgroup,
    }

    def constrain(body: Body) -> None:
        m_tile = body.knob("m_tile", _dividing_tiles(root.loops[m_dim], m, _LARGEST_QUERY_TILE))
        n_tile = body.knob("n_tile", _dividing_tiles(root.loops[n_dim], n, root.loops[n_dim]))
        k2_tile = body.knob("red_k2", _dividing_tiles(root.loops[k2_dim], k, _LARGEST_QUERY_TILE))
        subgroups = body.knob("sg_m_cnt", powers(_MOST_SUBGROUPS))
        threads = body.product([subgroups, body.number(subgroup)])
        body.limit(threads, target.max_threads, "the threads of a workgroup")
        body.derived_knob("wg_size_x", threads, "the number of threads")
        rows = body.product([subgroups, body.number(m)])
        body.multiple(m_tile, rows, "m_tile", f"sg_m_cnt * {m}")
        kept = body.quotient(body.product([m_tile, body.total([n_tile, k2_tile])]), threads)
        body.limit(kept, _MOST_THREAD_OUTPUTS, "the scores and results that a thread keeps")
        k1 = body.number(root.loops[root.k1[-1]])
        elements = body.total(
            [body.product([m_tile, k1]), body.product([k2_tile, k1]), body.product([k2_tile, n_tile])]
        )
        taken = body.product([elements, body.number(ELEMENT_BYTES[root.inputs[0].element])])
        body.limit(taken, target.shared_memory_bytes, "the bytes of shared memory that queries, keys and values take")

    return build_space(_PIPELINE, root.loops, knobs, constrain)


def _by_lanes(root: RootOp, target: TargetFacts) -> SearchSpace:
    n_dim, k1_dim, k2_dim = root.n[-1], root.k1[-1], root.k2[-1]
    subgroup = target.subgroup_sizes[0]
    rank = len(root.loops)
    longest = [max(1, _LARGEST_VECTOR_BYTES // ELEMENT_BYTES[root.inputs[operand].element]) for operand in (1, 2)]
    vectors = [
        tuple(length for length in powers(most) if root.loops[dim] % length == 0)
        for dim, most in zip((k1_dim, n_dim), longest, strict=True)
    ]

    def product(without: Sequence[int], along: int, vector: str) -> dict[str, object]:
        dims = [index for index in range(rank) if index not in without]
        lanes: list[object] = [1] * rank
        lanes[k2_dim], lanes[along] = knob("lanes_k2"), knob("lanes_n")
        subgroups: list[object] = [1] * rank
        subgroups[k2_dim] = knob("sg_k2_cnt")
        config = {
            "lane_basis": [lanes, dims],
            "subgroup_basis": [subgroups, dims],
            "thread": [knob(vector) if index == along else 0 for index in dims],
        }
        return {"lowering_config": _lowering_config_text(config)}

    knobs = {
        "decomposition_config": {
            "qk_attrs": product(root.n, k1_dim, "thr_k1"),
            "pv_attrs": product(root.k1, n_dim, "thr_n"),
        },
        "partial_reduction": _tile_level(root, root.k2, k2_dim, knob("red_k2")),
        "workgroup": _workgroup(root, {root.m[-1]: 1, n_dim: knob("n_tile")}),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": subgroup,
    }

    def constrain(body: Body) -> None:
        lanes_k2, lanes_n = (body.knob(name, powers(subgroup)) for name in ("lanes_k2", "lanes_n"))
        body.limit(body.product([lanes_k2, lanes_n]), subgroup, "the lanes along keys and elements")
        subgroups = body.knob("sg_k2_cnt", powers(_MOST_SUBGROUPS))
        body.derived_knob("wg_size_x", body.product([subgroups, body.number(subgroup)]), "the number of threads")
        keys = body.product([lanes_k2, subgroups])
        step = body.derived_knob("red_k2", keys, "lanes_k2 * sg_k2_cnt")
        body.require(
            body.divides(step, body.dims[k2_dim]),
            f"red_k2 ({{}}) must divide dim_{k2_dim} ({{}})",
            step,
            body.dims[k2_dim],
        )
        thr_k1, thr_n = (body.knob(name, choices) for name, choices in zip(("thr_k1", "thr_n"), vectors, strict=True))
        n_tile = body.knob("n_tile", _dividing_tiles(root.loops[n_dim], 1, root.loops[n_dim]))
        for whole, part, words in (
            (body.dims[k1_dim], thr_k1, f"lanes_n * thr_k1 ({{}}) must divide dim_{k1_dim} ({{}})"),
            (n_tile, thr_n, "lanes_n * thr_n ({}) must divide n_tile ({})"),
        ):
            spanned = body.product([lanes_n, part])
            body.require(body.divides(spanned, whole), words, spanned, whole)
        for whole in (body.dims[k1_dim], n_tile):
            body.limit(body.quotient(whole, lanes_n), _MOST_UNROLLED, "the elements of a key or a result in one thread")

    return build_space(_PIPELINE, root.loops, knobs, constrain)


def _lowering_config_text(entries: Mapping[str, object]) -> str:
    return f"#iree_gpu.lowering_config<{attribute_text(entries)}>"


def _tile_level(root: RootOp, dims: Sequence[int], innermost: int, leaf: str) -> list[object]:
    return [leaf if index == innermost else int(index in dims) for index in range(len(root.loops))]


def _workgroup(root: RootOp, tiles: Mapping[int, object]) -> list[object]:
    parallel = {*root.batch, *root.m, *root.n}
    return [tiles.get(index, int(index in parallel)) for index in range(len(root.loops))]


def _dividing_tiles(size: int, multiple: int, most: int) -> tuple[int, ...]:
    return tuple(tile for tile in range(multiple, min(size, most) + 1, multiple) if size % tile == 0)
