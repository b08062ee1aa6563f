"""Tasks: dispatches that no matcher can tell apart, under a name in the manner of IREE's own."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from iree.compiler import ir

from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch, Member, RootOp

__all__ = ["group_dispatches"]


def group_dispatches(found: Iterable[FoundDispatch], calls: Mapping[tuple[str, str], int]) -> tuple[Dispatch, ...]:
    """Make one task of the dispatches that no matcher can tell apart, in the order in which they were found.

    A matcher sees the root op alone: its kind, layout, element types and sizes. ``calls`` counts the calls
    by (source, symbol); a dispatch that is missing there is called once. Where two tasks would share a name,
    each gets a short hash of its structure at the end.
    """
    groups: defaultdict[bytes, list[FoundDispatch]] = defaultdict(list)
    for dispatch in found:
        groups[dispatch.root.structure].append(dispatch)
    with ir.Context():
        plain_names = [_name(members[0].root) for members in groups.values()]
    names = Counter(plain_names)
    dispatches = []
    for name, (structure, members) in zip(plain_names, groups.items(), strict=True):
        if names[name] > 1:
            name = f"{name}_{hashlib.sha256(structure).hexdigest()[:4]}"
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
                    Member(
                        symbol=member.symbol,
                        source=member.source,
                        calls=calls.get((member.source, member.symbol), 1),
                        module=member.module,
                    )
                    for member in members
                ),
            )
        )
    return tuple(dispatches)


def _name(root: RootOp) -> str:
    """The dispatch's name: op, sizes, element types, in the manner of IREE's own names."""
    elements = [tensor.element for tensor in (*root.inputs[:2], root.outputs[0])]
    if root.kind in {"attention", "pooling"}:
        elements = elements[:1]  # Online attention sums in f32 whatever it is given; a window has no type of interest.
    types = elements[0] if len(set(elements)) == 1 else "x".join(elements)
    return f"{_NAMERS.get(root.kind, _other_name)(root)}_{types}"


def _contraction_name(root: RootOp) -> str:
    op = root.op.rpartition(".")[2]
    if op == "generic":
        op = "batch_matmul_like" if root.batch else "matmul_like"
    return f"{op}_{_by(root.loops)}"


def _other_name(root: RootOp) -> str:
    """Say what a generic does, as far as its loops tell."""
    op = root.op.rpartition(".")[2]
    if op == "generic":
        plain = len(root.inputs) == 1 and len(set(root.maps)) > 1
        op = "reduction" if "reduction" in root.iterators else "transpose" if plain else "elementwise"
    return f"{op}_{_by(root.loops or root.outputs[0].shape)}"


def _convolution_name(root: RootOp) -> str:
    """``conv_2d_nhwc_hwcf_2x32x32x1280_3x3x1280``: layouts, the result's shape, the filter's and its input channels.

    A class of several dimensions repeats its letter, so that a blocked layout shows.
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
    image, kernel = (_layout(text, letters) for text in root.maps[:2])
    sizes = _by([root.loops[dim] for dim in (*root.filter_loop, *root.input_channel)])
    name = f"{kind}_{len(root.output_image)}d_{image}_{kernel}_{_by(root.outputs[0].shape)}_{sizes}"
    return name + _moves(root)


def _pooling_name(root: RootOp) -> str:
    window = _by([root.loops[dim] for dim in root.filter_loop])
    return f"pooling_{len(root.output_image)}d_{_by(root.outputs[0].shape)}_{window}{_moves(root)}"


def _moves(root: RootOp) -> str:
    """Strides and dilations where they are not all 1."""
    named = (("s", root.strides), ("d", root.dilations))
    return "".join(f"_{letter}{_by(steps)}" for letter, steps in named if set(steps) - {1})


def _attention_name(root: RootOp) -> str:
    """``attention_20x1024x64``: batches, queries, a value's width; the keys' number and width where they differ."""
    sizes = {name: [root.loops[dim] for dim in getattr(root, name)] for name in ("batch", "m", "n", "k1", "k2")}
    masked = "masked_" if len(root.inputs) > len(("query", "key", "value", "scale")) else ""
    same = sizes["k1"] == sizes["n"] and sizes["k2"] == sizes["m"]
    keys = "" if same else f"_k{_by([*sizes['k2'], *sizes['k1']])}"
    return f"{masked}attention_{_by([*sizes['batch'], *sizes['m'], *sizes['n']])}{keys}"


def _layout(text: str, letters: Mapping[int, str]) -> str:
    """One letter for each dimension of an operand, by the first class that its index belongs to."""
    results = ir.AffineMapAttr(ir.Attribute.parse(text)).value.results
    return "".join(next((letters[dim] for dim in _dims(result) if dim in letters), "x") for result in results)


def _dims(expression: ir.AffineExpr) -> list[int]:
    if isinstance(expression, ir.AffineDimExpr):
        return [expression.position]
    if isinstance(expression, ir.AffineBinaryExpr):
        return [*_dims(expression.lhs), *_dims(expression.rhs)]
    return []


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


_NAMERS: Mapping[str, Callable[[RootOp], str]] = {
    "contraction": _contraction_name,
    "convolution": _convolution_name,
    "pooling": _pooling_name,
    "attention": _attention_name,
}
