"""Convolutions of any layout, with padding and groups, and both of their gradients, as modules with one root op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from pytest_shark_tune.dispatch.types import joined_sizes
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.activations import Activation, activated
from pytest_shark_tune.ops.bindings import text_if_possible
from pytest_shark_tune.ops.builders import tensor_type, zeros

__all__ = ["Convolution", "Direction", "convolution_text", "plain_layout"]

Direction = Literal["forward", "input_gradient", "weight_gradient", "bias_gradient"]
_KINDS = {
    "forward": "conv",
    "input_gradient": "conv_dgrad",
    "weight_gradient": "conv_wgrad",
    "bias_gradient": "conv_bgrad",
}
_SUMS = {"f32": "f32", "f16": "f32", "bf16": "f32", "i8": "i32"}
_SPACE_LETTERS = "DHW"


class Convolution(msgspec.Struct, frozen=True, kw_only=True):
    """A convolution or one of its gradients, as drivers of kernel libraries describe it.

    Sizes are those of the forward convolution, with one number for each direction of space (two or three). Layouts are
    permutations of ``NCHW`` or ``NCDHW``, or of these with ``G`` if the groups are a dimension of the tensor.
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
    bias: bool = False
    """Whether a number of type ``element`` for each output channel is added to the sums of a forward convolution."""
    activation: Activation = ""
    """The function that is applied to the sums of a forward convolution before they are stored."""

    @property
    def result(self) -> tuple[int, ...]:
        """The size of the forward convolution's result."""
        return tuple(
            (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, pad, dilation in zip(
                self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def with_padding(self, padding: tuple[int, ...]) -> Convolution:
        """Return the convolution with another padding."""
        return msgspec.structs.replace(self, padding=padding)

    def check(self) -> None:
        """Check that the fields describe a convolution.

        Raises:
            InputError: Two fields contradict each other. The message names them.
        """
        letters = sorted(f"NC{_SPACE_LETTERS[-len(self.image) :]}")
        for tensor in ("input", "filter", "output"):
            layout = getattr(self, f"{tensor}_layout")
            if sorted(layout) not in (letters, sorted([*letters, "G"])):
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
        if self.activation not in get_args(Activation):
            raise InputError(
                f"the activation {self.activation} is none of {', '.join(filter(None, get_args(Activation)))}"
            )
        if (self.bias or self.activation) and self.element == "i8":
            raise InputError("the sums of a convolution of integers take neither a bias nor an activation here")
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
        kind = _KINDS[self.direction]
        layouts = (self.input_layout, self.filter_layout, self.output_layout)
        parts = [kind, "_".join(layouts if len(set(layouts)) > 1 else layouts[:1]).lower(), space, self.element]
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
            numbers = getattr(self, name)
            if any(number != usual for number in numbers):
                parts.append(f"{name}_{joined_sizes(numbers) if len(set(numbers)) > 1 else numbers[0]}")
        if self.groups > 1:
            parts.append(f"groups_{self.groups}")
        parts += ["bias"] if self.bias else []
        parts += [self.activation] if self.activation else []
        return "_".join(parts)


def plain_layout(layout: str, channels: str) -> str:
    """Leave the groups out of a layout in which they stand right before the channels that they divide.

    A tensor with and one without such a dimension hold the same data in the same order.

    Args:
        layout: A layout that may have a ``G``.
        channels: The letter of the divided channels: ``C`` in images and results, ``N`` in filters.
    """
    return layout.replace(f"G{channels}", channels)


@text_if_possible
def convolution_text(conv: Convolution) -> str:
    """Return the text of a module with a function ``@main`` that computes ``conv`` from its two arguments.

    The arguments are those of kernel libraries. A forward convolution takes image and filter, the input's gradient
    takes the result's gradient and the filter, and the filter's gradient takes the result's gradient and the image. A
    bias is a third argument, and its gradient takes the result's gradient alone. The root op is one ``linalg.generic``.
    Other ops before it pad the image, spread a gradient by the stride, or mirror the filter; one after it adds the bias
    and applies the activation.

    Raises:
        InputError: The fields describe no convolution, or one that cannot be expressed.
    """
    conv.check()
    # Loading the bindings takes a while, and lists of commands are read even if none of their ops is run.
    from iree.compiler import ir
    from iree.compiler.dialects import func

    from pytest_shark_tune.dispatch.mlir import shared_context

    with shared_context():
        module = ir.Module.create()
        parts = _Parts.of(conv)
        build: dict[str, Callable[..., Any]] = {
            "forward": _forward,
            "input_gradient": _input_gradient,
            "weight_gradient": _weight_gradient,
            "bias_gradient": _bias_gradient,
        }
        taken: dict[str, tuple[_Layout, ...]] = {
            "forward": (parts.image, parts.filter, *([[parts.biases]] if conv.bias else [])),
            "input_gradient": (parts.result, parts.filter),
            "weight_gradient": (parts.result, parts.image),
            "bias_gradient": (parts.result,),
        }
        tensors = [tensor_type(_shape(layout), conv.element) for layout in taken[conv.direction]]
        with ir.InsertionPoint(module.body):

            def main(*tensors: Any) -> Any:
                return build[conv.direction](conv, parts, *tensors)

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
    biases: Sequence[_Dim]
    """The dimensions of the output channels, in which biases are stored."""

    @classmethod
    def of(cls, conv: Convolution) -> _Parts:
        """Return the tensors as they are stored, with a separate loop for each dimension of space (``p`` in images)."""
        groups = [_Dim({"g": 1}, conv.groups)] if conv.groups > 1 else []
        inputs = _Dim({"c": 1}, conv.in_channels // conv.groups)
        outputs = _Dim({"k": 1}, conv.out_channels // conv.groups)
        batch = _Dim({"n": 1}, conv.batch)

        def laid_out(layout: str, outer: list[_Dim], inner: list[_Dim], space: list[_Dim]) -> _Layout:
            by_letter = {"N": outer, "C": inner, "G": [_Dim({"g": 1}, conv.groups)]} | {
                letter: [dim] for letter, dim in zip(_SPACE_LETTERS[-len(space) :], space, strict=True)
            }
            if "G" in layout:  # No other dimension holds the groups then.
                by_letter |= {"N": outer[-1:], "C": inner[-1:]}
            return [by_letter[letter] for letter in layout]

        return cls(
            laid_out(conv.input_layout, [batch], [*groups, inputs], _space_dims("p", conv.image)),
            laid_out(conv.filter_layout, [*groups, outputs], [inputs], _space_dims("y", conv.kernel)),
            laid_out(conv.output_layout, [batch], [*groups, outputs], _space_dims("x", conv.result)),
            [*groups, outputs],
        )


def _space_dims(loop: str, sizes: Sequence[int]) -> list[_Dim]:
    return [_Dim({f"{loop}{position}": 1}, size) for position, size in enumerate(sizes)]


def _forward(conv: Convolution, parts: _Parts, image: Any, weights: Any, *bias: Any) -> Any:
    sums = _contract(conv, _pad(conv, parts, image), (weights, parts.filter), parts.result, reduced=parts.filter)
    if not (bias or conv.activation):
        return _store(conv, sums, parts.result)
    return _collapse(
        _activate(conv, sums, parts.result, [_expand(each, [parts.biases]) for each in bias], parts.biases),
        parts.result,
    )


def _weight_gradient(conv: Convolution, parts: _Parts, gradient: Any, image: Any) -> Any:
    sums = _contract(conv, _pad(conv, parts, image), (gradient, parts.result), parts.filter, reduced=parts.result)
    return _store(conv, sums, parts.filter)


def _bias_gradient(conv: Convolution, parts: _Parts, gradient: Any) -> Any:
    """Add the gradient up over the batch and the image."""
    return _store(
        conv, _contract(conv, (gradient, parts.result), None, [parts.biases], reduced=parts.result), [parts.biases]
    )


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
    sums = _contract(conv, (spread, layout), (mirrored, parts.filter), parts.image, reduced=parts.filter)
    return _store(conv, sums, parts.image)


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
    conv: Convolution,
    lhs: tuple[Any, _Layout],
    rhs: tuple[Any, _Layout] | None,
    result: _Layout,
    *,
    reduced: _Layout,
) -> Any:
    """Add products of two tensors, or one tensor, up over the loops that ``result`` lacks, in the order of ``reduced``.

    Groups of channels are a separate dimension of the result.
    """
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg

    own = _loop_names(result)
    loops = own + [name for name in _loop_names(reduced) if name not in own]
    sums = ir.Type.parse(_SUMS[conv.element])
    factors = [lhs, rhs] if rhs is not None else [lhs]
    kind = ir.RankedTensorType.get(_sizes(result), sums)
    op = linalg.GenericOp(
        [kind],
        [_expand(*factor) for factor in factors],
        [zeros(kind)],
        _map_attributes([_build_map(layout, loops) for layout in (*(layout for _, layout in factors), result)]),
        _iterators(["parallel"] * len(own) + ["reduction"] * (len(loops) - len(own))),
    )
    element = ir.Type.parse(conv.element)
    block = op.regions[0].blocks.append(*[element] * len(factors), sums)
    with ir.InsertionPoint(block):
        *values, so_far = block.arguments
        if conv.element == "i8":
            wide = [arith.ExtSIOp(sums, value).result for value in values]
            linalg.YieldOp([arith.AddIOp(so_far, arith.MulIOp(*wide).result).result])
        else:
            wide = [_widened(value, sums) for value in values]
            product = arith.MulFOp(*wide).result if rhs is not None else wide[0]
            linalg.YieldOp([arith.AddFOp(so_far, product).result])
    return op.results[0]


def _widened(value: Any, kind: Any) -> Any:
    """Extend a float to a type of at least its width."""
    from iree.compiler.dialects import arith

    return value if value.type == kind else arith.ExtFOp(kind, value).result


def _store(conv: Convolution, sums: Any, layout: _Layout) -> Any:
    """Return sums as a tensor of the convolution's element type, laid out as it is stored."""
    from iree.compiler.dialects import arith

    total = _collapse(sums, layout)
    if conv.element in ("f32", "i8"):
        return total
    return arith.TruncFOp(tensor_type(_shape(layout), conv.element), total).result


def _activate(conv: Convolution, sums: Any, layout: _Layout, bias: Sequence[Any], biases: Sequence[_Dim]) -> Any:
    """Add the bias, if there is one, to sums, and apply the activation. The result is of the element type."""
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg, tensor

    loops = _loop_names(layout)
    element, wide = ir.Type.parse(conv.element), ir.Type.parse(_SUMS[conv.element])
    empty = tensor.EmptyOp(_sizes(layout), element).result
    own = _build_map(layout, loops)
    op = linalg.GenericOp(
        [empty.type],
        [sums, *bias],
        [empty],
        _map_attributes([own, *[_build_map([biases], loops) for _ in bias], own]),
        _iterators(["parallel"] * len(loops)),
    )
    block = op.regions[0].blocks.append(wide, *[element] * len(bias), element)
    with ir.InsertionPoint(block):
        total, *added, _ = block.arguments
        for number in added:
            total = arith.AddFOp(total, _widened(number, wide)).result
        total = activated(conv.activation, total)
        linalg.YieldOp([total if element == wide else arith.TruncFOp(element, total).result])
    return op.results[0]


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
