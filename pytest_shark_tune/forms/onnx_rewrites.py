"""Rewrites of an ONNX graph into one that computes the same and compiles to faster code.

IREE compiles a plain matrix product to code near the machine's peak. The same product written as a convolution reaches
a third of that on a CPU: its operands arrive in another order, and a transposed convolution is computed on an image
with zeros between its pixels. A convolution with few channels in a group is vectorized along the rows of its image, and
a stride along them leaves it scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pytest_shark_tune.compiler.onnx import load_fixed, write_fixed
from pytest_shark_tune.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["INTO_PRODUCTS", "PREPARATIONS", "REWRITES", "Rewritten", "rewrite_onnx"]

_STANDARD = ("", "ai.onnx")
_FEW_CHANNELS = 4
"""A convolution with more channels in a group is vectorized along these, once they come last."""
_OPSET_OF_INPUTS = 11
"""The first version of ONNX in which Pad and Slice take their sizes as inputs."""
_TO_THE_END = 2**63 - 1


class Rewritten(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one rewrite."""

    name: str
    """The rewrite, a key of `REWRITES`."""
    nodes: tuple[str, ...]
    """The nodes that it replaced; a node without a name is listed by its first output."""


class _Unchanged(Exception):
    """A node keeps its form."""


def rewrite_onnx(
    path: Path, output: Path, rewrites: Sequence[str] = (), *, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[Rewritten, ...]:
    """Write the model in ``path``, rewritten, to ``output``: the same bytes for the same model every time.

    Args:
        path: An ONNX model. Its weights are copied as they are.
        output: The file to write. External weights go into a file beside it.
        rewrites: Names of `REWRITES`, applied in this order; `INTO_PRODUCTS` by default.
        shapes: Sizes of inputs that have none of their own, by the name of the input. The rewritten model keeps them.

    Returns:
        One result for each rewrite, in order.

    Raises:
        InputError: There is no rewrite of a name, the file is no ONNX model, or an input's size is not known.
    """
    names = tuple(rewrites) or INTO_PRODUCTS
    for name in names:
        if name not in REWRITES:
            raise InputError(f"there is no rewrite {name!r}: choose from {', '.join(REWRITES)}")
    model, _ = load_fixed(path, shapes or {})
    shapes_of = _shapes(model, path)  # A rewrite gives no value another shape, and reads none that it adds.
    results = tuple(_apply(name, model, shapes_of) for name in names)
    write_fixed(model, path, output)
    return results


def _apply(name: str, model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Rewritten:
    taken = {value for node in model.graph.node for value in (*node.input, *node.output)}
    opset = max((known.version for known in model.opset_import if known.domain in _STANDARD), default=1)
    nodes: list[NodeProto] = []
    replaced = []
    for node in model.graph.node:
        try:
            if node.op_type != REWRITES[name].op_type or node.domain not in _STANDARD:
                raise _Unchanged
            writer = _Writer(node, shapes, taken, opset)
            REWRITES[name].write(writer)
        except (_Unchanged, LookupError, TypeError, ValueError):  # The import judges a node that lacks something.
            nodes.append(node)
        else:
            nodes.extend(writer.nodes)
            replaced.append(node.name or "".join(node.output[:1]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Rewritten(name=name, nodes=tuple(replaced))


def _shapes(model: ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every value whose sizes are all known."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the shapes of its values cannot be inferred: {error}") from error
    found = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


class _Writer:
    """The nodes that take the place of one node."""

    def __init__(self, node: NodeProto, shapes: Mapping[str, tuple[int, ...]], taken: set[str], opset: int) -> None:
        import onnx

        self.opset = opset
        self._node = node
        self._shapes = shapes
        self._taken = taken
        self._attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        self.nodes: list[NodeProto] = []

    def attribute(self, name: str, default: Any) -> Any:
        return self._attributes.get(name, default)

    def input(self, position: int) -> str:
        """The name of an operand; empty for one that is left out."""
        return self._node.input[position] if position < len(self._node.input) else ""

    def shape(self, position: int) -> tuple[int, ...]:
        try:
            return self._shapes[self.input(position)]
        except KeyError:
            raise _Unchanged from None

    def keep_unless(self, condition: bool) -> None:
        if not condition:
            raise _Unchanged

    def add(self, op_type: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        """Write a node and return the name of its result: that of the replaced node's for the ``last`` one."""
        import onnx

        name = self._node.output[0] if last else self._fresh(op_type)
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [name], name=self._fresh("node"), **attributes))
        return name

    def reshape(self, value: str, shape: Sequence[int], *, last: bool = False) -> str:
        return self.add("Reshape", value, self.constant(shape), last=last)

    def constant(self, values: Sequence[int]) -> str:
        """Write a list of integers."""
        import onnx

        return self.add("Constant", value=onnx.numpy_helper.from_array(_int64(values)))

    def pad(self, value: str, before: Sequence[int], after: Sequence[int]) -> str:
        """Write zeros around a value."""
        if not any((*before, *after)):
            return value
        self.keep_unless(self.opset >= _OPSET_OF_INPUTS)
        return self.add("Pad", value, self.constant([*before, *after]))

    def _fresh(self, step: str) -> str:
        stem = f"{self._node.output[0]}/{step.lower()}"
        number = next(number for number in range(len(self._taken) + 1) if f"{stem}_{number}" not in self._taken)
        self._taken.add(f"{stem}_{number}")
        return f"{stem}_{number}"


def _int64(values: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(values, dtype=np.int64)


def _pointwise(writer: _Writer) -> None:
    """Write a convolution with a kernel of 1 as the product of its weights (O, C) and the image (N, C, pixels)."""
    batch, channels, *pixels = writer.shape(0)
    filters, depth, *kernel = writer.shape(1)
    rank = len(pixels)
    writer.keep_unless(
        rank > 0
        and kernel == [1] * rank
        and depth == channels
        and not any(writer.attribute("pads", ()))
        and writer.attribute("group", 1) == 1
    )
    steps = writer.attribute("strides", [1] * rank)
    weights = writer.reshape(writer.input(1), (filters, channels))
    image = writer.input(0)
    if any(step != 1 for step in steps):
        writer.keep_unless(writer.opset >= _OPSET_OF_INPUTS)
        bounds = ([0] * rank, [_TO_THE_END] * rank, range(2, 2 + rank), steps)
        image = writer.add("Slice", image, *map(writer.constant, bounds))
        pixels = [-(-size // step) for size, step in zip(pixels, steps, strict=True)]
    image = writer.reshape(image, (batch, channels, math.prod(pixels)))
    product = writer.add("MatMul", weights, image)
    if writer.input(2):
        product = writer.add("Add", product, writer.reshape(writer.input(2), (filters, 1)))
    writer.reshape(product, (batch, filters, *pixels), last=True)


def _upsampling(writer: _Writer) -> None:
    """Write a transposed convolution whose stride is its kernel as a product whose results are put in another order.

    Without an overlap of its windows every result is one product of a pixel's channels and the weights.
    """
    batch, channels, *pixels = writer.shape(0)
    depth, filters, *kernel = writer.shape(1)
    rank = len(pixels)
    writer.keep_unless(
        rank > 0
        and depth == channels
        and list(writer.attribute("strides", [1] * rank)) == kernel
        and all(step == 1 for step in writer.attribute("dilations", ()))
        and not any(writer.attribute("pads", ()))
        and not any(writer.attribute("output_padding", ()))
        and not writer.attribute("output_shape", ())
        and writer.attribute("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and writer.attribute("group", 1) == 1
    )
    rows = filters * math.prod(kernel)
    weights = writer.add("Transpose", writer.reshape(writer.input(1), (channels, rows)), perm=[1, 0])
    image = writer.reshape(writer.input(0), (batch, channels, math.prod(pixels)))
    product = writer.add("MatMul", weights, image)
    if writer.input(2):
        apart = writer.reshape(product, (batch, filters, math.prod(kernel) * math.prod(pixels)))
        product = writer.add("Add", apart, writer.reshape(writer.input(2), (filters, 1)))
    apart = writer.reshape(product, (batch, filters, *kernel, *pixels))
    interleaved = [
        axis for pair in zip(range(2 + rank, 2 + 2 * rank), range(2, 2 + rank), strict=True) for axis in pair
    ]
    woven = writer.add("Transpose", apart, perm=[0, 1, *interleaved])
    writer.reshape(
        woven, (batch, filters, *(size * step for size, step in zip(pixels, kernel, strict=True))), last=True
    )


def _strided(writer: _Writer) -> None:
    """Write a convolution with a stride s along the rows as one with stride 1 along them.

    Column s * j + p of row y of the image becomes column j of row s * y + p, and so do the columns of the weights. The
    results are the same sums in the same places.
    """
    batch, channels, height, width = writer.shape(0)
    filters, depth, rows, columns = writer.shape(1)
    down, step = writer.attribute("strides", [1, 1])
    top, left, bottom, right = writer.attribute("pads", [0] * 4)
    writer.keep_unless(
        step > 1
        and columns > 1
        and depth <= _FEW_CHANNELS
        and all(one == 1 for one in writer.attribute("dilations", ()))
        and writer.attribute("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    )
    results = (left + width + right - columns) // step + 1
    windows = -(-columns // step)
    whole = (results - 1 + windows) * step
    more = whole - left - width
    writer.keep_unless(results > 0 and more >= 0)

    def woven(value: str, outer: Sequence[int], tall: int, wide: int) -> str:
        apart = writer.reshape(value, (*outer, tall, wide, step))
        return writer.reshape(writer.add("Transpose", apart, perm=[0, 1, 2, 4, 3]), (*outer, tall * step, wide))

    image = writer.pad(writer.input(0), (0, 0, top, left), (0, 0, bottom, more))
    image = woven(image, (batch, channels), top + height + bottom, whole // step)
    weights = writer.pad(writer.input(1), (0, 0, 0, 0), (0, 0, 0, windows * step - columns))
    weights = woven(weights, (filters, depth), rows, windows)
    operands = (image, weights, *filter(None, [writer.input(2)]))
    writer.add("Conv", *operands, last=True, strides=[down * step, 1], group=writer.attribute("group", 1))


class _Rewrite(msgspec.Struct, frozen=True):
    op_type: str
    write: Callable[[_Writer], None]


REWRITES: Mapping[str, _Rewrite] = {
    "pointwise-convolutions": _Rewrite("Conv", _pointwise),
    "upsampling-convolutions": _Rewrite("ConvTranspose", _upsampling),
    "strided-convolutions": _Rewrite("Conv", _strided),
}
"""The rewrites by name.

They take convolutions with a kernel of 1, transposed convolutions whose stride is their kernel, and convolutions with a
stride along the rows and few channels in a group.
"""
PREPARATIONS = frozenset({"strided-convolutions"})
"""The rewrites that pay once the dispatches are tuned: the default configs may be slower with them."""
INTO_PRODUCTS = tuple(name for name in REWRITES if name not in PREPARATIONS)
"""The rewrites into matrix products, which pay untuned, too."""
