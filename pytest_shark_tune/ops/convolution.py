"""Convolutions of any layout, with padding and groups, and both of their gradients, as modules with one root op."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from pytest_shark_tune.dispatch.types import joined_sizes
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.builders import tensor_type, text_if_possible, zeros

__all__ = ["Convolution", "Direction", "convolution_text"]

Direction = Literal["forward", "input_gradient", "weight_gradient"]

_SUMS = {"f32": "f32", "f16": "f32", "bf16": "f32", "i8": "i32"}
_SPACE_LETTERS = "DHW"


class Convolution(msgspec.Struct, frozen=True, kw_only=True):
    """A convolution or one of its gradients, as drivers of kernel libraries describe it.

    Sizes are those of the forward convolution, with one number for each direction of space (two or three). Layouts are
    permutations of ``NCHW`` or ``NCDHW``.
    """

    direction: Direction = "forward"
    batch: int
    in_channels: int
    out_channels: int
    image: tuple[int, ...]
    """The size of the *input*."""
    kernel: tuple[int, ...]
    """The size of the filter."""
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """The padding on both sides."""
    dilation: tuple[int, ...]
    groups: int = 1
    input_layout: str
    filter_layout: str
    """The layout of the filter: N is the output channels and C the input channels of one group."""
    output_layout: str
    element: str = "f32"
    """f32, f16, bf16 or i8. Floats are accumulated in f32 and stored as ``element``; i8 is accumulated in i32."""

    @property
    def result(self) -> tuple[int, ...]:
        """The size of the forward convolution's result."""
        return tuple(
            (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, pad, dilation in zip(
                self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def check(self) -> None:
        """Check that the fields describe a convolution.

        Raises:
            InputError: Two fields contradict each other. The message names them.
        """
        letters = sorted(f"NC{_SPACE_LETTERS[-len(self.image) :]}")
        for tensor in ("input", "filter", "output"):
            layout = getattr(self, f"{tensor}_layout")
            if sorted(layout) != letters:
                raise InputError(f"the {tensor}'s layout {layout} is no order of {''.join(letters)}")
        for name, channels in (("in channels", self.in_channels), ("out channels", self.out_channels)):
            if channels % self.groups:
                raise InputError(f"{name}, {channels}, do not divide into {self.groups} groups")
        if self.element not in _SUMS:
            raise InputError(f"the element type {self.element} is none of {', '.join(_SUMS)}")
        if min(self.result) < 1:
            raise InputError(
                f"a filter of {joined_sizes(self.kernel)} does not fit into an image of {joined_sizes(self.image)}"
            )
        if self.direction != "forward" and self.element == "i8":
            raise InputError("there is no gradient of integers")
        reach = [dilation * (taps - 1) for taps, dilation in zip(self.kernel, self.dilation, strict=True)]
        if self.direction == "input_gradient" and any(p > r for p, r in zip(self.padding, reach, strict=True)):
            raise InputError(
                f"the input's gradient with a padding of {joined_sizes(self.padding)} that is wider than the filter"
            )

    @property
    def name(self) -> str:
        """A name such as ``conv_nhwc_2x32x32x64_64x3x3_f16``, to which other values than defaults are appended."""
        image = joined_sizes((self.batch, *self.image, self.in_channels))
        space = f"{image}_{joined_sizes((self.out_channels, *self.kernel))}"
        kind = {"forward": "conv", "input_gradient": "conv_dgrad", "weight_gradient": "conv_wgrad"}[self.direction]
        layouts = (self.input_layout, self.filter_layout, self.output_layout)
        parts = [kind, "_".join(layouts if len(set(layouts)) > 1 else layouts[:1]).lower(), space, self.element]
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
            numbers = getattr(self, name)
            if any(number != usual for number in numbers):
                parts.append(f"{name}_{joined_sizes(numbers) if len(set(numbers)) > 1 else numbers[0]}")
        if self.groups > 1:
            parts.append(f"groups_{self.groups}")
        return "_".join(parts)


@text_if_possible
def convolution_text(conv: Convolution) -> str:
    """Return the text of a module with a function ``@main`` that computes ``conv`` from its two arguments.

    The arguments are those of kernel libraries. A forward convolution takes image and filter, the input's gradient
    takes the result's gradient and the filter, and the filter's gradient takes the result's gradient and the image. The
    root op is one ``linalg.generic``. Other ops before it pad the image, spread a gradient by the stride, or mirror the
    filter.

    Raises:
        InputError: The fields describe no convolution, or one that cannot be expressed.
    """
    conv.check()
    # Loading the bindings takes a while, and lists of commands are read even if none of their ops is run.
    from iree.compiler import ir
    from iree.compiler.dialects import func

    with ir.Context(), ir.Location.unknown():
        module = ir.Module.create()
        parts = _Parts.of(conv)
        build = {"forward": _forward, "input_gradient": _input_gradient, "weight_gradient": _weight_gradient}
        taken = {
            "forward": (parts.image, parts.filter),
            "input_gradient": (parts.result, parts.filter),
            "weight_gradient": (parts.result, parts.image),
        }
        tensors = [tensor_type(_shape(layout), conv.element) for layout in taken[conv.direction]]
        with ir.InsertionPoint(module.body):

            def main(first: Any, second: Any) -> Any:
                return build[conv.direction](conv, parts, first, second)

            func.FuncOp.from_py_func(*tensors, name="main")(main)
        module.operation.verify()
        return str(module)


class _Dim(NamedTuple):
    """A dimension of a loop nest."""

    loops: Mapping[str, int]
    """The factor of each loop in the dimension's index."""
    size: int


_Layout: TypeAlias = Sequence[Sequence[_Dim]]
"""The dimensions of a tensor in order. One that holds groups of channels is two dimensions of the loop nest."""


class _Parts(NamedTuple):
    """The three tensors of a convolution. Loops are n, g, k and c for channels, x and y with a number for space."""

    image: _Layout
    filter: _Layout
    result: _Layout

    @classmethod
    def of(cls, conv: Convolution) -> _Parts:
        """Return the tensors as they are stored, with a separate loop for each dimension of space (``p`` in images)."""
        groups = [_Dim({"g": 1}, conv.groups)] if conv.groups > 1 else []
        inputs = _Dim({"c": 1}, conv.in_channels // conv.groups)
        outputs = _Dim({"k": 1}, conv.out_channels // conv.groups)
        batch = _Dim({"n": 1}, conv.batch)

        def laid_out(layout: str, outer: list[_Dim], inner: list[_Dim], space: list[_Dim]) -> _Layout:
            by_letter = {"N": outer, "C": inner} | {
                letter: [dim] for letter, dim in zip(_SPACE_LETTERS[-len(space) :], space, strict=True)
            }
            return [by_letter[letter] for letter in layout]

        return cls(
            laid_out(conv.input_layout, [batch], [*groups, inputs], _space_dims("p", conv.image)),
            laid_out(conv.filter_layout, [*groups, outputs], [inputs], _space_dims("y", conv.kernel)),
            laid_out(conv.output_layout, [batch], [*groups, outputs], _space_dims("x", conv.result)),
        )


def _space_dims(loop: str, sizes: Sequence[int]) -> list[_Dim]:
    return [_Dim({f"{loop}{position}": 1}, size) for position, size in enumerate(sizes)]


def _forward(conv: Convolution, parts: _Parts, image: Any, weights: Any) -> Any:
    return _contract(conv, _pad(conv, parts, image), (weights, parts.filter), parts.result, reduced=parts.filter)


def _weight_gradient(conv: Convolution, parts: _Parts, gradient: Any, image: Any) -> Any:
    return _contract(conv, _pad(conv, parts, image), (gradient, parts.result), parts.filter, reduced=parts.result)


def _input_gradient(conv: Convolution, parts: _Parts, gradient: Any, weights: Any) -> Any:
    """Convolve the gradient, spread by the stride, with the mirrored filter."""
    reach = [dilation * (taps - 1) for taps, dilation in zip(conv.kernel, conv.dilation, strict=True)]
    window = [
        _Dim({f"p{axis}": 1, f"y{axis}": conv.dilation[axis]}, size + reach[axis])
        for axis, size in enumerate(conv.image)
    ]
    layout = _with_space(parts.result, window)
    low = [extent - pad for extent, pad in zip(reach, conv.padding, strict=True)]
    spread = _insert(gradient, parts.result, layout, low, conv.stride)
    mirrored = weights if max(conv.kernel) == 1 else _mirror(weights, parts.filter)
    return _contract(conv, (spread, layout), (mirrored, parts.filter), parts.image, reduced=parts.filter)


def _pad(conv: Convolution, parts: _Parts, image: Any) -> tuple[Any, _Layout]:
    """Return the padded image, and its layout as the filter moves over it."""
    window = [
        _Dim({f"x{axis}": conv.stride[axis], f"y{axis}": conv.dilation[axis]}, size + 2 * conv.padding[axis])
        for axis, size in enumerate(conv.image)
    ]
    layout = _with_space(parts.image, window)
    return _insert(image, parts.image, layout, conv.padding, [1] * len(conv.image)), layout


def _with_space(layout: _Layout, space: Sequence[_Dim]) -> _Layout:
    """Return the layout with other dimensions of space."""
    following = iter(space)
    return [[next(following)] if _is_space(dims) else dims for dims in layout]


def _is_space(dims: Sequence[_Dim]) -> bool:
    return next(iter(dims[0].loops))[0] in "pxy"


def _insert(tensor: Any, old: _Layout, new: _Layout, low: Sequence[int], steps: Sequence[int]) -> Any:
    """Insert ``tensor`` into a larger tensor of zeros, from ``low`` on and in ``steps``, in all directions of space."""
    from iree.compiler import ir
    from iree.compiler.dialects import tensor as tensors

    if _shape(old) == _shape(new):
        return tensor
    lows, strides = iter(low), iter(steps)
    space = [_is_space(dims) for dims in old]
    return tensors.insert_slice(
        tensor,
        zeros(ir.RankedTensorType.get(_shape(new), tensor.type.element_type)),
        [],
        [],
        [],
        [next(lows) if inner else 0 for inner in space],
        _shape(old),
        [next(strides) if inner else 1 for inner in space],
    )


def _mirror(weights: Any, layout: _Layout) -> Any:
    """Reverse the taps of the filter in all directions of space."""
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg, tensor

    kind = weights.type
    rank = len(kind.shape)
    empty = tensor.EmptyOp(kind.shape, kind.element_type).result
    maps = [ir.AffineMap.get_identity(rank)]
    op = linalg.GenericOp([kind], [], [empty], _map_attributes(maps), _iterators(["parallel"] * rank))
    block = op.regions[0].blocks.append(kind.element_type)
    with ir.InsertionPoint(block):
        index = ir.IndexType.get()
        places = []
        for position, dims in enumerate(layout):
            place = linalg.IndexOp(position).result
            if _is_space(dims):
                place = arith.SubIOp(arith.ConstantOp(index, dims[0].size - 1).result, place).result
            places.append(place)
        linalg.YieldOp([tensor.ExtractOp(weights, places).result])
    return op.results[0]


def _contract(
    conv: Convolution, lhs: tuple[Any, _Layout], rhs: tuple[Any, _Layout], result: _Layout, *, reduced: _Layout
) -> Any:
    """Add a sum of products of two tensors over the loops that ``result`` lacks, in the order of ``reduced``."""
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg

    own = _loop_names(result)
    loops = own + [name for name in _loop_names(reduced) if name not in own]
    sums = ir.Type.parse(_SUMS[conv.element])
    layouts = [lhs[1], rhs[1], result]
    kind = ir.RankedTensorType.get(_sizes(result), sums)
    op = linalg.GenericOp(
        [kind],
        [_expand(*lhs), _expand(*rhs)],
        [zeros(kind)],
        _map_attributes([_build_map(layout, loops) for layout in layouts]),
        _iterators(["parallel"] * len(own) + ["reduction"] * (len(loops) - len(own))),
    )
    element = ir.Type.parse(conv.element)
    block = op.regions[0].blocks.append(element, element, sums)
    with ir.InsertionPoint(block):
        first, second, so_far = block.arguments
        if conv.element == "i8":
            product = arith.MulIOp(arith.ExtSIOp(sums, first).result, arith.ExtSIOp(sums, second).result).result
            linalg.YieldOp([arith.AddIOp(so_far, product).result])
        else:
            wide = [value if element == sums else arith.ExtFOp(sums, value).result for value in (first, second)]
            linalg.YieldOp([arith.AddFOp(so_far, arith.MulFOp(*wide).result).result])
    total = _collapse(op.results[0], result)
    if conv.element in ("f32", "i8"):
        return total
    return arith.TruncFOp(ir.RankedTensorType.get(_shape(result), element), total).result


def _loop_names(layout: _Layout) -> list[str]:
    return [name for dims in layout for dim in dims for name in dim.loops]


def _sizes(layout: _Layout) -> list[int]:
    return [dim.size for dims in layout for dim in dims]


def _shape(layout: _Layout) -> list[int]:
    """Return the tensor's shape as it is stored, with groups of channels in one dimension."""
    return [math.prod(dim.size for dim in dims) for dims in layout]


def _build_map(layout: _Layout, loops: Sequence[str]) -> Any:
    from iree.compiler import ir

    expressions = []
    for dim in (dim for dims in layout for dim in dims):
        terms = [ir.AffineExpr.get_dim(loops.index(name)) * factor for name, factor in dim.loops.items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        expressions.append(total)
    return ir.AffineMap.get(len(loops), 0, expressions)


def _map_attributes(maps: Sequence[Any]) -> Any:
    from iree.compiler import ir

    return ir.ArrayAttr.get([ir.AffineMapAttr.get(affine) for affine in maps])


def _iterators(kinds: Sequence[str]) -> Any:
    from iree.compiler import ir

    return ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds])


def _expand(value: Any, layout: _Layout) -> Any:
    """Give groups of channels a separate dimension."""
    from iree.compiler import ir
    from iree.compiler.dialects import tensor

    if all(len(dims) == 1 for dims in layout):
        return value
    kind = ir.RankedTensorType.get(_sizes(layout), value.type.element_type)
    return tensor.ExpandShapeOp(kind, value, _reassociation(layout), [], _sizes(layout)).result


def _collapse(value: Any, layout: _Layout) -> Any:
    from iree.compiler import ir
    from iree.compiler.dialects import tensor

    if all(len(dims) == 1 for dims in layout):
        return value
    kind = ir.RankedTensorType.get(_shape(layout), value.type.element_type)
    return tensor.CollapseShapeOp(kind, value, _reassociation(layout)).result


def _reassociation(layout: _Layout) -> Any:
    from iree.compiler import ir

    i64 = ir.IntegerType.get_signless(64)
    positions = iter(range(len(_sizes(layout))))
    return ir.ArrayAttr.get(
        [ir.ArrayAttr.get([ir.IntegerAttr.get(i64, next(positions)) for _ in dims]) for dims in layout]
    )
