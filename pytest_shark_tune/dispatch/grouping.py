"""Grouping: dispatches that no matcher can tell apart become one task, named like IREE's own dispatches."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import affine_map, loops_in
from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch, Member, RootOp, joined_sizes

__all__ = ["group_dispatches"]


def group_dispatches(found: Iterable[FoundDispatch], calls: Mapping[tuple[str, str], int]) -> tuple[Dispatch, ...]:
    """Group dispatches that no matcher can tell apart, in the order in which they were found.

    A matcher sees the root op only: its kind, layout, element types and sizes. Dispatches of forms whose flags make
    other code are measured apart.

    Args:
        found: The dispatches.
        calls: The number of calls by source and symbol; a missing dispatch is called once.

    Returns:
        One task per group. If two tasks would share a name, both names end in a short hash of the structure.
    """
    groups: defaultdict[tuple[bytes, tuple[str, ...]], list[FoundDispatch]] = defaultdict(list)
    for dispatch in found:
        groups[dispatch.root.structure, dispatch.module.flags].append(dispatch)
    with ir.Context():
        plain_names = [_dispatch_name(members[0].root) for members in groups.values()]
    names = Counter(plain_names)
    dispatches = []
    for name, ((structure, flags), members) in zip(plain_names, groups.items(), strict=True):
        if names[name] > 1:
            name = f"{name}_{_short_hash(structure, flags)}"
        first = members[0]
        dispatches.append(
            Dispatch(
                name=name,
                root=first.root,
                target=first.target,
                default_pipeline=first.default_pipeline,
                default_config=first.default_config,
                default_info=first.default_info,
                members=tuple(
                    part
                    for member in members
                    for part in _members(member, calls.get((member.source, member.symbol), 1))
                ),
            )
        )
    return tuple(dispatches)


def _members(found: FoundDispatch, calls: int) -> Iterator[Member]:
    """The members that a dispatch becomes: one, or one for each of its sizes."""
    if not found.sized:
        yield Member(symbol=found.symbol, source=found.source, calls=calls, module=found.module)
    for sized in found.sized:
        yield Member(
            symbol=found.symbol,
            source=found.source,
            calls=calls,
            module=sized.module,
            size=sized.point.label,
            size_weight=sized.point.weight,
        )


def _short_hash(structure: bytes, flags: Sequence[str]) -> str:
    return hashlib.sha256(b"\0".join([structure, *map(str.encode, flags)])).hexdigest()[:4]


def _dispatch_name(root: RootOp) -> str:
    """Return the op, the sizes and the element types, in the manner of IREE's names."""
    elements = [tensor.element for tensor in (*root.inputs[:2], root.outputs[0])]
    if root.kind in {"attention", "pooling"}:
        elements = elements[:1]  # Online attention always sums in f32, and the window's type does not matter.
    types = elements[0] if len(set(elements)) == 1 else "x".join(elements)
    return f"{_NAMERS.get(root.kind, _other_name)(root)}_{types}"


def _contraction_name(root: RootOp) -> str:
    op = root.op.rpartition(".")[2]
    if op == "generic":
        op = "batch_matmul_like" if root.batch else "matmul_like"
    return f"{op}_{_loop_sizes(root, range(len(root.loops)))}"


def _scaled_contraction_name(root: RootOp) -> str:
    return f"scaled_{'batch_' if root.batch else ''}matmul_{joined_sizes(root.loops)}"


def _other_name(root: RootOp) -> str:
    """Name a generic op by its loops."""
    op = root.op.rpartition(".")[2]
    if op == "generic":
        moves = len(root.inputs) == 1 and len(set(root.maps)) > 1
        op = "reduction" if "reduction" in root.iterators else "transpose" if moves else "elementwise"
    sizes = _loop_sizes(root, range(len(root.loops))) if root.loops else joined_sizes(root.outputs[0].shape)
    return f"{op}_{sizes}"


def _convolution_name(root: RootOp) -> str:
    """Name a convolution by its layouts, its result's shape, the filter's size and the input channels.

    An example is ``conv_2d_nhwc_hwcf_2x32x32x1280_3x3x1280``. A class of several dimensions repeats its letter, so that
    a blocked layout shows.
    """
    spatial = "dhw"[-len(root.output_image) :] if 0 < len(root.output_image) <= len("dhw") else ""
    shared = "g" if root.input_channel or root.output_channel else "c"
    letters = {
        **dict.fromkeys(root.batch, "n"),
        **dict.fromkeys(root.output_channel, "f"),
        **dict.fromkeys(root.input_channel, "c"),
        **dict.fromkeys(root.depth, shared),
    }
    for dims in (root.output_image, root.filter_loop):
        letters |= dict(zip(dims, spatial or "x" * len(dims), strict=False))
    kind = {"c": "depthwise_conv", "g": "grouped_conv"}[shared] if root.depth else "conv"
    image, kernel = (_layout_letters(text, letters) for text in root.maps[:2])
    sizes = _loop_sizes(root, (*root.filter_loop, *root.input_channel))
    name = f"{kind}_{len(root.output_image)}d_{image}_{kernel}_{_result_sizes(root)}_{sizes}"
    return name + _step_suffix(root)


def _pooling_name(root: RootOp) -> str:
    window = _loop_sizes(root, root.filter_loop)
    dims = len(root.output_image)
    return f"pooling_{dims}d_{_result_sizes(root)}_{window}{_step_suffix(root)}"


def _step_suffix(root: RootOp) -> str:
    """Return strides and dilations that are not all 1."""
    named = (("s", root.strides), ("d", root.dilations))
    return "".join(f"_{letter}{joined_sizes(steps)}" for letter, steps in named if set(steps) - {1})


def _attention_name(root: RootOp) -> str:
    """Name an attention by batches, queries and the width of values: ``attention_20x1024x64``.

    The number and the width of the keys follow if they differ from those of queries and values.
    """
    sizes = {name: [_loop_size(root, dim) for dim in getattr(root, name)] for name in ("batch", "m", "n", "k1", "k2")}
    masked = "masked_" if len(root.inputs) > len(("query", "key", "value", "scale")) else ""
    same = sizes["k1"] == sizes["n"] and sizes["k2"] == sizes["m"]
    keys = "" if same else f"_k{'x'.join([*sizes['k2'], *sizes['k1']])}"
    return f"{masked}attention_{'x'.join([*sizes['batch'], *sizes['m'], *sizes['n']])}{keys}"


def _loop_size(root: RootOp, loop: int) -> str:
    """Return the size of a loop as names show it, ``D`` if it is open."""
    return "D" if loop in root.open_loops else str(root.loops[loop])


def _loop_sizes(root: RootOp, loops: Iterable[int]) -> str:
    return "x".join(_loop_size(root, loop) for loop in loops)


def _result_sizes(root: RootOp) -> str:
    """Return the sizes of the first result."""
    shape = root.outputs[0].shape
    if not root.open_loops:
        return joined_sizes(shape)
    results = affine_map(root.maps[len(root.inputs)]).results
    is_open = [any(loop in root.open_loops for loop in loops_in(result)) for result in results]
    return "x".join("D" if open_ else str(size) for open_, size in zip(is_open, shape, strict=True))


def _layout_letters(text: str, letters: Mapping[int, str]) -> str:
    """Return one letter per dimension of an operand, by the first class that its index belongs to."""
    results = affine_map(text).results
    return "".join(next((letters[dim] for dim in loops_in(result) if dim in letters), "x") for result in results)


_NAMERS: Mapping[str, Callable[[RootOp], str]] = {
    "contraction": _contraction_name,
    "scaled_contraction": _scaled_contraction_name,
    "convolution": _convolution_name,
    "pooling": _pooling_name,
    "attention": _attention_name,
}
