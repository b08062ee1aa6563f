"""Builders of MLIR with a single op, for suites that tune an op rather than a model.

Each builder returns an `OpSource`: a module with a public function ``@main`` that fills its result with zeros and
runs the op once. Sizes are fixed when it is built, since a tuned config belongs to one shape.

A suite names its ops by building them, also on a machine that measures a bundle and has no compiler. Their texts are
empty there, and `stand_in` lets modules that also read and write MLIR be imported.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, TypeAlias

import msgspec

from pytest_shark_tune.dispatch.types import OPEN
from pytest_shark_tune.errors import InputError, NoCompiler

__all__ = [
    "OpSource",
    "OpenModel",
    "attention",
    "batch_matmul",
    "conv_2d",
    "matmul",
    "stand_in",
    "tensor_type",
    "text_if_possible",
    "zeros",
]

_Parameters = ParamSpec("_Parameters")

Sizes: TypeAlias = int | Sequence[int]
"""A size, or the sizes of a dimension that stays open."""

_BINDINGS = "iree.compiler"

_ACCUMULATORS = {"f32": ("f32",), "f16": ("f32", "f16"), "bf16": ("f32", "bf16"), "i8": ("i32",)}
"""The types that products of an input type may accumulate in, the default first.

Narrow inputs accumulate in wider types, as the matrix instructions of CPUs and GPUs do.
"""

_NARROWED = {"f32": ("f16", "bf16")}
"""The types that sums may be stored as besides their own type."""

_LARGEST_SIZE = 2**31 - 1


class _Absent(types.ModuleType):
    """Something of the bindings on a machine without the compiler: it has everything and refuses any call."""

    __path__: list[str] = []  # noqa: RUF012 - a module without a path is no package.

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __int__(self) -> int:
        """Return a number, since tables have enumerators as keys."""
        return hash(self.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NoCompiler(
            f"this takes the IREE compiler ({self.__name__}), which is not installed here: python -m pip install "
            "iree-base-compiler, or leave it to a machine that has it (shark-tune merge-records)"
        )


def stand_in() -> None:
    """Let this process import from the compiler's bindings even if they are not installed."""
    try:
        installed = _BINDINGS in sys.modules or importlib.util.find_spec(_BINDINGS) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        for name in ("", ".dialects", ".ir", ".passmanager", ".version"):
            sys.modules[f"{_BINDINGS}{name}"] = _Absent(f"{_BINDINGS}{name}")


def text_if_possible(build: Callable[_Parameters, str]) -> Callable[_Parameters, str]:
    """Let ``build`` return an empty text instead of failing without the compiler."""

    @functools.wraps(build)
    def built(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> str:
        try:
            return build(*args, **kwargs)
        except NoCompiler:
            return ""

    return built


class OpSource(msgspec.Struct, frozen=True):
    """The MLIR source of one op."""

    name: str
    """The op, its sizes and its types."""
    text: str
    """The module."""
    dims: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """The open dimensions, by the number of an input and that of a dimension, such as ``0.0``, with their sizes."""


class OpenModel(msgspec.Struct, frozen=True):
    """A model in a marker, with the sizes for which its open dimensions are tuned.

    ``OpenModel("model.mlir", {"x.0": (1, 16, 128)})`` takes a path relative to the test's file, and sizes as the option
    ``--tune-dim`` does. They replace the sizes of that option.
    """

    path: str
    dims: dict[str, tuple[int, ...]]


def matmul(
    *,
    m: Sizes,
    n: Sizes,
    k: Sizes,
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
    out: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> OpSource:
    """Build the product of an ``m`` x ``k`` and a ``k`` x ``n`` matrix.

    A dimension with several sizes, as in ``m=(1, 16, 128)``, stays open, and is tuned for these sizes. If several
    dimensions are open, the sizes at one position belong together.

    Args:
        m: The rows of the first input and of the result.
        n: The columns of the second input and of the result.
        k: The columns of the first and the rows of the second input.
        lhs: The element type of the first input: f32, f16, bf16 or i8.
        rhs: The element type of the second input, by default ``lhs``.
        acc: The type of the sums, by default f32 for floats and i32 for i8.
        out: The type in which the result is stored, by default ``acc``. Sums in f32 may be stored as f16 or bf16.
        transpose_a: Whether the first input is stored as ``k`` x ``m``.
        transpose_b: Whether the second input is stored as ``n`` x ``k``.

    Raises:
        InputError: A size is no positive integer, an element type is unknown, or the types do not fit together.
    """
    return _contraction("matmul", {"m": m, "n": n, "k": k}, (lhs, rhs, acc, out), (transpose_a, transpose_b))


def batch_matmul(
    *,
    batch: Sizes,
    m: Sizes,
    n: Sizes,
    k: Sizes,
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
    out: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> OpSource:
    """Build ``batch`` products of an ``m`` x ``k`` and a ``k`` x ``n`` matrix.

    The other arguments are those of `matmul`.

    Raises:
        InputError: As for `matmul`.
    """
    sizes = {"batch": batch, "m": m, "n": n, "k": k}
    return _contraction("batch_matmul", sizes, (lhs, rhs, acc, out), (transpose_a, transpose_b))


def conv_2d(
    *,
    batch: int,
    height: int,
    width: int,
    channels: int,
    filters: int,
    kernel_height: int,
    kernel_width: int,
    stride: int = 1,
    dilation: int = 1,
    layout: str = "nhwc",
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
) -> OpSource:
    """Build a convolution without padding. ``height`` and ``width`` are those of the *result*.

    The input image has as many pixels as the result requires. The types are those of `matmul`.

    Args:
        batch: The number of images.
        height: The height of the result.
        width: The width of the result.
        channels: The channels of the input image.
        filters: The channels of the result.
        kernel_height: The height of a filter.
        kernel_width: The width of a filter.
        stride: The step of the filter in both directions.
        dilation: The distance of the filter's taps in both directions.
        layout: nhwc (filters as height, width, channels, filters) or nchw (filters, channels, height, width).
        lhs: The element type of the image.
        rhs: The element type of the filters, by default ``lhs``.
        acc: The type of the sums and of the result.

    Raises:
        InputError: As for `matmul`, or the layout is unknown.
    """
    sizes = _check_sizes(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        filters=filters,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride=stride,
        dilation=dilation,
    )
    if layout not in ("nhwc", "nchw"):
        raise InputError(f"layout={layout!r}: it is nhwc or nchw")
    types = _check_types(lhs, rhs, acc)
    shape = f"{batch}x{height}x{width}x{channels}_{filters}x{kernel_height}x{kernel_width}"
    steps = f"{f'_stride_{stride}' if stride > 1 else ''}{f'_dilation_{dilation}' if dilation > 1 else ''}"
    return OpSource(f"conv_2d_{layout}_{shape}{steps}_{_type_name(types)}", _convolution_text(sizes, types, layout))


def attention(
    *, batch: int, queries: int, keys: int, head: int, value_head: int | None = None, element: str = "f16"
) -> OpSource:
    """Build a scaled dot-product attention with the scale ``1 / sqrt(head)``.

    Args:
        batch: The number of attentions.
        queries: The number of queries.
        keys: The number of keys and values.
        head: The number of elements of a query and of a key.
        value_head: The number of elements of a value and of a row of the result, by default ``head``.
        element: The type of all tensors: f16, bf16 or f32.

    Raises:
        InputError: A size is no positive integer, or the element type is unknown.
    """
    value_head = head if value_head is None else value_head
    sizes = _check_sizes(batch=batch, queries=queries, keys=keys, head=head, value_head=value_head)
    if element not in ("f16", "bf16", "f32"):
        raise InputError(f"element={element!r}: it is one of f16, bf16, f32")
    shape = f"{batch}x{queries}x{keys}x{head}" + (f"x{value_head}" if value_head != head else "")
    return OpSource(f"attention_{shape}_{element}", _attention_text(sizes, element))


def _contraction(
    op: str,
    given: Mapping[str, Sizes],
    elements: tuple[str, str | None, str | None, str | None],
    flags: tuple[bool, bool],
) -> OpSource:
    """Build a product; ``given`` are ``[batch,] m, n, k``."""
    sizes = tuple(_check_size(name, size) for name, size in given.items())
    types = _check_types(*elements[:3])
    layout = _check_flags(transpose_a=flags[0], transpose_b=flags[1])
    out = _check_out(types, elements[3])
    several = {loop: tuple(size) for loop, size in enumerate(given.values()) if not isinstance(size, int)}
    if len({len(size) for size in several.values()}) > 1:
        raise InputError(f"{op}: sizes at one position belong together, so all open dimensions have as many")
    dims = tuple(
        (f"{number}.{dimension}", several[loop])
        for number, loops in enumerate(_operand_loops(len(sizes), layout)[:2])
        for dimension, loop in enumerate(loops)
        if loop in several
    )
    return OpSource(_op_name(op, sizes, types, out, layout), _contraction_text(sizes, types, out, layout), dims)


def _check_size(argument: str, size: Sizes) -> int:
    """Return a size, or `OPEN` for several."""
    if isinstance(size, str) or not isinstance(size, Sequence):
        return _check_sizes(**{argument: size})[0]
    if not size:
        raise InputError(f"{argument}={size!r}: an open dimension has at least one size")
    for one in size:
        _check_sizes(**{argument: one})
    return OPEN


def _operand_loops(count: int, layout: tuple[bool, bool]) -> list[list[int]]:
    """Return the loops that index both inputs and the result of a product with so many loops."""
    batch = list(range(count - 3))
    m, n, k = range(len(batch), count)
    transpose_a, transpose_b = layout
    return [
        [*batch, k, m] if transpose_a else [*batch, m, k],
        [*batch, n, k] if transpose_b else [*batch, k, n],
        [*batch, m, n],
    ]


def _check_sizes(**sizes: int) -> tuple[int, ...]:
    for argument, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_SIZE:
            raise InputError(f"{argument}={size!r}: a size is an integer from 1 to {_LARGEST_SIZE}")
    return tuple(sizes.values())


def _check_types(lhs: str, rhs: str | None, acc: str | None) -> tuple[str, str, str]:
    """Return the element types of both inputs and of the sums, with defaults filled in."""
    rhs = lhs if rhs is None else rhs
    for argument, element in (("lhs", lhs), ("rhs", rhs)):
        if not isinstance(element, str) or element not in _ACCUMULATORS:
            raise InputError(f"{argument}={element!r}: an input is one of {', '.join(_ACCUMULATORS)}")
    allowed = [element for element in _ACCUMULATORS[lhs] if element in _ACCUMULATORS[rhs]]
    if not allowed:
        partners = [other for other in _ACCUMULATORS if set(_ACCUMULATORS[other]) & set(_ACCUMULATORS[lhs])]
        raise InputError(f"rhs={rhs!r}: with lhs={lhs!r} it is one of {', '.join(partners)}")
    if acc is None:
        return lhs, rhs, allowed[0]
    if acc not in allowed:
        raise InputError(f"acc={acc!r}: {lhs} times {rhs} accumulates in {' or '.join(allowed)}")
    return lhs, rhs, acc


def _check_out(types: tuple[str, str, str], out: str | None) -> str:
    """Return the element type in which the result is stored."""
    acc = types[2]
    allowed = (acc, *_NARROWED.get(acc, ()))
    if out is None:
        return acc
    if out not in allowed:
        raise InputError(f"out={out!r}: sums in {acc} are stored as {' or '.join(allowed)}")
    return out


def _check_flags(**flags: bool) -> tuple[bool, bool]:
    for argument, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputError(f"{argument}={flag!r}: it is True or False")
    return flags["transpose_a"], flags["transpose_b"]


def _op_name(op: str, sizes: tuple[int, ...], types: tuple[str, str, str], out: str, layout: tuple[bool, bool]) -> str:
    """Return a name like ``matmul_512x512x512_f32``; other values than defaults follow (``matmul_8x8x8_f16_tb``)."""
    shown = "x".join("D" if size == OPEN else str(size) for size in sizes)
    parts = [op, shown, _type_name(types)]
    parts += [f"out_{out}"] if out != types[2] else []
    parts += [suffix for suffix, transposed in zip(("ta", "tb"), layout, strict=True) if transposed]
    return "_".join(parts)


def _type_name(types: tuple[str, str, str]) -> str:
    lhs, rhs, acc = types
    inputs = lhs if lhs == rhs else f"{lhs}x{rhs}"
    return inputs if acc == _check_types(lhs, rhs, None)[2] else f"{inputs}_acc_{acc}"


@functools.cache
@text_if_possible
def _convolution_text(sizes: tuple[int, ...], types: tuple[str, str, str], layout: str) -> str:
    from iree.compiler import ir
    from iree.compiler.dialects import func, linalg

    batch, height, width, channels, filters, kernel_height, kernel_width, stride, dilation = sizes
    in_height = (height - 1) * stride + (kernel_height - 1) * dilation + 1
    in_width = (width - 1) * stride + (kernel_width - 1) * dilation + 1
    if layout == "nhwc":
        convolution = linalg.conv_2d_nhwc_hwcf
        shapes = (
            (batch, in_height, in_width, channels),
            (kernel_height, kernel_width, channels, filters),
            (batch, height, width, filters),
        )
    else:
        convolution = linalg.conv_2d_nchw_fchw
        shapes = (
            (batch, channels, in_height, in_width),
            (filters, channels, kernel_height, kernel_width),
            (batch, filters, height, width),
        )
    with ir.Context(), ir.Location.unknown():
        image, weights, result = map(tensor_type, shapes, types)
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):

            def main(lhs: ir.Value, rhs: ir.Value) -> ir.Value:
                steps = {"strides": [stride, stride], "dilations": [dilation, dilation]}
                return convolution(lhs, rhs, outs=[zeros(result)], **steps)

            func.FuncOp.from_py_func(image, weights)(main)
        module.operation.verify()
        return str(module)


@functools.cache
@text_if_possible
def _attention_text(sizes: tuple[int, ...], element: str) -> str:
    """Return the module's text. Attention's dialect has no Python bindings, so the text is written by hand."""
    from iree.compiler import ir

    batch, queries, keys, head, value_head = sizes
    query, key, value, result = (
        f"tensor<{batch}x{rows}x{columns}x{element}>"
        for rows, columns in ((queries, head), (keys, head), (keys, value_head), (queries, value_head))
    )
    maps = ", ".join(
        f"affine_map<(b, m, n, k1, k2) -> ({dims})>" for dims in ("b, m, k1", "b, k2, k1", "b, k2, n", "", "b, m, n")
    )
    text = f"""
func.func @main(%query: {query}, %key: {key}, %value: {value}) -> {result} {{
  %scale = arith.constant {head**-0.5:e} : {element}
  %empty = tensor.empty() : {result}
  %result = iree_linalg_ext.attention <indexing_maps = [{maps}]>
      ins(%query, %key, %value, %scale : {query}, {key}, {value}, {element}) outs(%empty : {result}) {{
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  }} -> {result}
  return %result : {result}
}}
"""
    with ir.Context():
        return str(ir.Module.parse(text))


def tensor_type(shape: Sequence[int], element: str) -> Any:
    """Return a tensor type; ``element`` is the text of its element type."""
    from iree.compiler import ir

    return ir.RankedTensorType.get(shape, ir.Type.parse(element))


def zeros(result_type: Any, sizes: Sequence[Any] = ()) -> Any:
    """Add a tensor of that type, filled with zeros, at the current insertion point.

    Args:
        result_type: The type.
        sizes: The sizes, numbers or values; needed for a type with open sizes.
    """
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg, tensor

    element = result_type.element_type
    is_float = isinstance(element, ir.FloatType)
    zero = ir.FloatAttr.get(element, 0.0) if is_float else ir.IntegerAttr.get(element, 0)
    empty = tensor.EmptyOp(sizes or result_type.shape, element).result
    return linalg.fill(arith.ConstantOp(element, zero).result, outs=[empty])


@functools.cache
@text_if_possible
def _contraction_text(sizes: tuple[int, ...], types: tuple[str, str, str], out: str, layout: tuple[bool, bool]) -> str:
    """Return the module's text; ``sizes`` are ``[batch,] m, n, k``, which is also the order of the loops."""
    # Loading the bindings takes a while, and a suite is imported even if none of its tests runs.
    from iree.compiler import ir
    from iree.compiler.dialects import arith, func, linalg, tensor

    is_batched = len(sizes) > 3
    operands = _operand_loops(len(sizes), layout)
    with ir.Context(), ir.Location.unknown():
        shapes = [[sizes[loop] for loop in loops] for loops in operands]
        lhs_type, rhs_type, result_type = map(tensor_type, shapes, types)
        indexing_maps = [
            ir.AffineMap.get(len(sizes), 0, [ir.AffineDimExpr.get(loop) for loop in loops]) for loops in operands
        ]
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):

            def main(lhs: ir.Value, rhs: ir.Value) -> ir.Value:
                op = linalg.batch_matmul if is_batched else linalg.matmul

                def size_of(loop: int) -> Any:
                    if sizes[loop] != OPEN:
                        return sizes[loop]
                    value, loops = (lhs, operands[0]) if loop in operands[0] else (rhs, operands[1])
                    return tensor.DimOp(value, arith.constant(ir.IndexType.get(), loops.index(loop))).result

                init = zeros(result_type, [size_of(loop) for loop in operands[2]])
                sums = op(lhs, rhs, outs=[init], indexing_maps=indexing_maps)
                if out == types[2]:
                    return sums
                return arith.TruncFOp(tensor_type(result_type.shape, out), sums).result

            func.FuncOp.from_py_func(lhs_type, rhs_type)(main)
        module.operation.verify()
        return str(module)
