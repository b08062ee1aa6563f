"""Search spaces of reductions on GPUs under the pipeline VectorDistribute: the threads of a workgroup share each sum.

The form is that of the compiler's own configs. Its levels are ``workgroup``, ``partial_reduction`` (the elements in one
step of all threads), ``thread`` (the elements in one load), ``lane_basis`` and ``subgroup_basis`` (the threads of a
subgroup, and the subgroups).

In softmax and normalizations other ops go over the same elements. As in the compiler's configs they have the levels of
the root op, apart from ``workgroup``; for an op that gives a result for each element ``partial_reduction`` is called
``serial``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.fused import FusedOp
from pytest_shark_tune.dispatch.reasons import NothingFits
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space.attribute_names import FUSED
from pytest_shark_tune.search_space.emit import Body, build_space, knob
from pytest_shark_tune.search_space.space import SearchSpace
from pytest_shark_tune.search_space.tiles import powers, tile_knobs, tile_level

__all__ = ["VERSION", "reduction_space"]

VERSION: Final = 1
"""The version of this space. Raise it if its members or knobs change. Plans are then made again."""

_PIPELINE = "#iree_gpu.pipeline<VectorDistribute>"
_STEP, _SERIAL_STEP = "partial_reduction", "serial"
_LARGEST_LOAD_BYTES = 16
_MOST_ROWS = 16
_MOST_THREAD_ELEMENTS = 64


def reduction_space(root: RootOp, target: TargetFacts, fused: Sequence[FusedOp] = ()) -> tuple[SearchSpace, ...]:
    """Return the space of an op with a reduction.

    The knobs are these, where ``i`` is a position in ``root.loops``:

    - ``wg_i``: the sums that a workgroup computes along the innermost parallel dimension;
    - ``thr_i``: the elements of the innermost reduction in one load of a thread;
    - ``lanes`` and ``sg_cnt``: the threads of a subgroup, and the subgroups, that share a sum;
    - ``red_i`` and ``wg_size_x``: the elements in one step, and the threads, which follow from these.

    Args:
        root: The op.
        target: The target.
        fused: The other ops of its dispatch that go over the same elements.

    Raises:
        NoSpace: No number of threads divides the reduction.
    """
    count, sizes = len(root.loops), root.loops
    reductions = [index for index, kind in enumerate(root.iterators) if kind == "reduction"]
    parallel = [index for index in range(count) if index not in reductions]
    along = reductions[-1]
    subgroup = target.subgroup_sizes[0]
    widest = max(ELEMENT_BYTES.get(tensor.element, 1) for tensor in root.inputs)
    loads = tuple(load for load in powers(max(1, _LARGEST_LOAD_BYTES // widest)) if sizes[along] % load == 0)
    # A reduction that is no multiple of a subgroup leaves some of its threads idle. A lone thread cannot share a sum.
    # The other ops of a dispatch would have to leave the same ones idle, and do not compile then.
    shares = (subgroup,) if fused or sizes[along] % subgroup == 0 else powers(subgroup)[1:]
    rows = {index: tuple(n for n in powers(_MOST_ROWS) if sizes[index] % n == 0) for index in parallel[-1:]}
    thread: list[object] = [int(index in reductions) for index in range(count)]
    step = list(thread)
    thread[along], step[along] = knob(f"thr_{along}"), knob(f"red_{along}")
    lanes: list[object] = [1] * count
    subgroups: list[object] = [1] * count
    lanes[along], subgroups[along] = knob("lanes"), knob("sg_cnt")
    shared = {
        "thread": thread,
        "lane_basis": [lanes, list(range(count))],
        "subgroup_basis": [subgroups, list(range(count))],
    }
    others = {op.path: {_STEP if op.is_reduction else _SERIAL_STEP: step, **shared} for op in fused}
    knobs = {
        "workgroup": tile_level(count, "wg", rows, parallel),
        _STEP: step,
        **shared,
        **({FUSED: others} if others else {}),
        "workgroup_size": [knob("wg_size_x"), 1, 1],
        "subgroup_size": subgroup,
        "gpu_pipeline_options": {
            "no_reduce_shared_memory_bank_conflicts": False,
            "use_igemm_convolution": False,
        },
    }

    def constrain(body: Body) -> None:
        own = tile_knobs(body, "wg", rows)
        load = body.knob(f"thr_{along}", loads)
        lane = body.knob("lanes", shares)
        subgroup_count = body.knob("sg_cnt", powers(target.max_threads // subgroup))
        threads = body.product([subgroup_count, body.number(subgroup)])
        body.derived_knob("wg_size_x", threads, "the number of threads")
        taken = body.product([load, lane, subgroup_count])
        body.derived_knob(f"red_{along}", taken, "the elements in one step")
        body.multiple(body.dims[along], taken, f"dim_{along}", f"red_{along}")
        body.require(
            body.either([body.equal(lane, body.number(subgroup)), body.equal(subgroup_count, body.number(1))]),
            "threads may be idle only in a single subgroup: {} lanes, {} subgroups",
            lane,
            subgroup_count,
        )
        body.limit(body.product([load, *own.values()]), _MOST_THREAD_ELEMENTS, "the elements that a thread holds")

    space = build_space(_PIPELINE, sizes, knobs, constrain)
    if not space:
        raise NothingFits(f"no number of threads divides the reduction of {root.op}")
    return (space,)
