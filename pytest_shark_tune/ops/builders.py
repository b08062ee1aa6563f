"""Builders of MLIR with a single op, for suites that tune an op rather than a model.

Each builder returns an `OpSource`: a module with a public function ``@main`` that fills its result with zeros and
runs the op once. Sizes are fixed when it is built, since a tuned config belongs to one shape.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args

import msgspec

from pytest_shark_tune.dispatch.types import OPEN
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.activations import Activation, activated
from pytest_shark_tune.ops.bindings import text_if_possible

__all__ = [
    "Addend",
    "OpSource",
    "OpenModel",
    "batch_matmul",
    "check_sizes",
    "check_types",
    "element_name",
    "matmul",
    "number_name",
    "product_plus",
    "tensor_type",
    "type_name",
    "zeros",
]

Sizes: TypeAlias = int | Sequence[int]
"""A size, or the sizes of a dimension that stays open."""

_ACCUMULATORS = {"f32": ("f32",), "f16": ("f32", "f16"), "bf16": ("f32", "bf16"), "i8": ("i32",)}
"""The types that products of an input type may accumulate in, the default first.

Narrow inputs accumulate in wider types, as the matrix instructions of CPUs and GPUs do.
"""

_NARROWED = {"f32": ("f16", "bf16")}
"""The types that sums may be stored as besides their own type."""

_ALIASES = {
    **dict.fromkeys(("fp16", "float16", "half"), "f16"),
    **dict.fromkeys(("fp32", "float32", "float"), "f32"),
    "bfloat16": "bf16",
    "int8": "i8",
    "int32": "i32",
}
"""Other names of element types, as frameworks have them."""
_LARGEST_SIZE = 2**31 - 1


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


class Addend(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is added to a matrix product, and the factors of both."""

    loops: tuple[str, ...] = ("n",)
    """The dimensions of the tensor among batch, m and n, in order; it is repeated along the others."""
    element: str
    """Its element type: f32, f16 or bf16."""
    alpha: float = 1.0
    """The factor of the product."""
    beta: float = 1.0
    """The factor of the tensor. If it is 0, there is no tensor."""
    activation: Activation = ""
    """The function that is applied to the sum."""

    @property
    def name(self) -> str:
        """The end of an op's name: ``bias`` for a row, ``plus_mn`` for a matrix, then factors other than 1."""
        loops = "".join(loop[0] for loop in self.loops) or "number"
        kind = ["bias" if self.loops == ("n",) else f"plus_{loops}"]
        if self.beta == 0:
            kind = []
        factors = [f"{name}_{number_name(value)}" for name, value in (("alpha", self.alpha), ("beta", self.beta))]
        shown = [factor for factor in factors if not factor.endswith(("a_1", "beta_0"))]
        return "_".join([*kind, *shown, *filter(None, [self.activation])])


def element_name(element: str) -> str:
    """Return the name of an element type in MLIR, for one of a framework's: ``f16`` for ``fp16`` or ``float16``."""
    return _ALIASES.get(element, element) if isinstance(element, str) else element


def number_name(number: float) -> str:
    """Return a number as a part of an op's name."""
    return f"{number:g}".replace("-", "minus").replace("+", "")


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
    bias: bool = False,
    residual: bool = False,
    activation: Activation = "",
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
        bias: Whether a row of ``n`` numbers is added to each row of the result.
        residual: Whether a matrix of the result's shape is added to it.
        activation: The function that is applied last: relu, gelu, logistic, tanh, abs or softrelu.

    Raises:
        InputError: A size is no positive integer, an element type is unknown, or the types do not fit together.
    """
    flags, types = (transpose_a, transpose_b), (lhs, rhs, acc, out)
    addend = _epilogue(types, bias=bias, residual=residual, activation=activation)
    return _product("matmul", {"m": m, "n": n, "k": k}, types, flags, addend)


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
    bias: bool = False,
    residual: bool = False,
    activation: Activation = "",
) -> OpSource:
    """Build ``batch`` products of an ``m`` x ``k`` and a ``k`` x ``n`` matrix.

    The other arguments are those of `matmul`.

    Raises:
        InputError: As for `matmul`.
    """
    sizes = {"batch": batch, "m": m, "n": n, "k": k}
    flags, types = (transpose_a, transpose_b), (lhs, rhs, acc, out)
    addend = _epilogue(types, ("batch", "m", "n"), bias=bias, residual=residual, activation=activation)
    return _product("batch_matmul", sizes, types, flags, addend)


def _product(
    name: str,
    sizes: Mapping[str, Sizes],
    types: tuple[str, str | None, str | None, str | None],
    transposed: tuple[bool, bool],
    addend: Addend | None,
) -> OpSource:
    """A product of matrices, with what follows on it in the same dispatch, if anything does."""
    if addend is None:
        return _contraction(name, sizes, types, transposed)
    fixed = check_sizes(**sizes)  # type: ignore[arg-type]  # It refuses several sizes.
    lhs, rhs, _, out = types
    return product_plus(
        addend,
        **dict(zip(sizes, fixed, strict=True)),
        lhs=lhs,
        rhs=rhs,
        out=out,
        transpose_a=transposed[0],
        transpose_b=transposed[1],
    )


def _epilogue(
    types: tuple[str, str | None, str | None, str | None],
    whole: tuple[str, ...] = ("m", "n"),
    *,
    bias: bool,
    residual: bool,
    activation: Activation,
) -> Addend | None:
    """The end of a product with a bias, a residual or an activation; ``None`` without any."""
    if not (bias or residual or activation):
        return None
    if bias and residual:
        raise InputError("bias and residual: a product takes one of the two")
    if activation not in get_args(Activation):
        known = ", ".join(filter(None, get_args(Activation)))
        raise InputError(f"activation={activation!r}: it is one of {known}")
    if types[2] is not None and element_name(types[2]) != "f32":
        raise InputError(f"acc={types[2]!r}: the sums that a bias, a residual or an activation is applied to are f32")
    added = element_name(types[3] or "f32")
    loops = whole if residual else ("n",)
    return Addend(loops=loops, element=added, beta=1.0 if bias or residual else 0.0, activation=activation)


def product_plus(
    addend: Addend,
    *,
    m: int,
    n: int,
    k: int,
    batch: int | None = None,
    lhs: str = "f32",
    rhs: str | None = None,
    out: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> OpSource:
    """Build ``alpha`` times a product of matrices, or of batches of them, plus ``beta`` times a tensor.

    The sums are f32, and rounded once, after the addition. The other arguments are those of `matmul`.

    Raises:
        InputError: As for `matmul`, or an input is of an integer type.
    """
    sizes = check_sizes(**({} if batch is None else {"batch": batch}), m=m, n=n, k=k)
    types = check_types(lhs, rhs, None)
    layout = _check_flags(transpose_a=transpose_a, transpose_b=transpose_b)
    out = _check_out(types, out)
    if types[2] != "f32" or addend.element not in ("f32", *_NARROWED["f32"]):
        raise InputError("a tensor is added to sums of floats only, and is of type f32, f16 or bf16")
    op = "matmul" if batch is None else "batch_matmul"
    name = f"{_op_name(op, sizes, types, out, layout)}_{addend.name}"
    name += f"_{addend.element}" if addend.beta and addend.element != out else ""
    return OpSource(name, _contraction_text(sizes, types, out, layout, addend))


def _contraction(
    op: str,
    given: Mapping[str, Sizes],
    elements: tuple[str, str | None, str | None, str | None],
    flags: tuple[bool, bool],
) -> OpSource:
    """Build a product; ``given`` are ``[batch,] m, n, k``."""
    sizes = tuple(_check_size(name, size) for name, size in given.items())
    types = check_types(*elements[:3])
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
        return check_sizes(**{argument: size})[0]
    if not size:
        raise InputError(f"{argument}={size!r}: an open dimension has at least one size")
    for one in size:
        check_sizes(**{argument: one})
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


def check_sizes(**sizes: int) -> tuple[int, ...]:
    """Return the sizes in order.

    Raises:
        InputError: One is no positive integer. The message names it.
    """
    for argument, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_SIZE:
            raise InputError(f"{argument}={size!r}: a size is an integer from 1 to {_LARGEST_SIZE}")
    return tuple(sizes.values())


def check_types(lhs: str, rhs: str | None, acc: str | None) -> tuple[str, str, str]:
    """Return the element types of both inputs and of the sums, with defaults filled in.

    Raises:
        InputError: One is unknown, or they do not fit together.
    """
    lhs, rhs = element_name(lhs), element_name(lhs if rhs is None else rhs)
    for argument, element in (("lhs", lhs), ("rhs", rhs)):
        if not isinstance(element, str) or element not in _ACCUMULATORS:
            raise InputError(f"{argument}={element!r}: an input is one of {', '.join(_ACCUMULATORS)}")
    allowed = [element for element in _ACCUMULATORS[lhs] if element in _ACCUMULATORS[rhs]]
    if not allowed:
        partners = [other for other in _ACCUMULATORS if set(_ACCUMULATORS[other]) & set(_ACCUMULATORS[lhs])]
        raise InputError(f"rhs={rhs!r}: with lhs={lhs!r} it is one of {', '.join(partners)}")
    if acc is None:
        return lhs, rhs, allowed[0]
    acc = element_name(acc)
    if acc not in allowed:
        raise InputError(f"acc={acc!r}: {lhs} times {rhs} accumulates in {' or '.join(allowed)}")
    return lhs, rhs, acc


def _check_out(types: tuple[str, str, str], out: str | None) -> str:
    """Return the element type in which the result is stored."""
    acc = types[2]
    allowed = (acc, *_NARROWED.get(acc, ()))
    if out is None:
        return acc
    out = element_name(out)
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
    parts = [op, shown, type_name(types)]
    parts += [f"out_{out}"] if out != types[2] else []
    parts += [suffix for suffix, transposed in zip(("ta", "tb"), layout, strict=True) if transposed]
    return "_".join(parts)


def type_name(types: tuple[str, str, str]) -> str:
    """Return the part of an op's name for the types of its inputs and of its sums."""
    lhs, rhs, acc = types
    inputs = lhs if lhs == rhs else f"{lhs}x{rhs}"
    return inputs if acc == check_types(lhs, rhs, None)[2] else f"{inputs}_acc_{acc}"


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
def _contraction_text(
    sizes: tuple[int, ...],
    types: tuple[str, str, str],
    out: str,
    layout: tuple[bool, bool],
    addend: Addend | None = None,
) -> str:
    """Return the module's text; ``sizes`` are ``[batch,] m, n, k``, which is also the order of the loops."""
    # Loading the bindings takes a while, and a suite is imported even if none of its tests runs.
    from iree.compiler import ir
    from iree.compiler.dialects import arith, func, linalg, tensor

    from pytest_shark_tune.dispatch.mlir import shared_context

    batch = len(sizes) > 3
    operands = _operand_loops(len(sizes), layout)
    with shared_context():
        shapes = [[sizes[loop] for loop in loops] for loops in operands]
        lhs_type, rhs_type, result_type = map(tensor_type, shapes, types)
        indexing_maps = [
            ir.AffineMap.get(len(sizes), 0, [ir.AffineDimExpr.get(loop) for loop in loops]) for loops in operands
        ]
        loops = [*(["batch"] if batch else []), "m", "n"]
        added_loops = [loops.index(loop) for loop in addend.loops] if addend and addend.beta else []
        added_types = [tensor_type([sizes[at] for at in added_loops], addend.element)] if addend and addend.beta else []
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):

            def main(lhs: ir.Value, rhs: ir.Value, *added: ir.Value) -> ir.Value:
                op = linalg.batch_matmul if batch else linalg.matmul

                def size_of(loop: int) -> Any:
                    if sizes[loop] != OPEN:
                        return sizes[loop]
                    value, loops = (lhs, operands[0]) if loop in operands[0] else (rhs, operands[1])
                    return tensor.DimOp(value, arith.constant(ir.IndexType.get(), loops.index(loop))).result

                init = zeros(result_type, [size_of(loop) for loop in operands[2]])
                sums = op(lhs, rhs, outs=[init], indexing_maps=indexing_maps)
                if addend is not None:
                    return _add(sums, added, added_loops, out, addend)
                if out == types[2]:
                    return sums
                return arith.TruncFOp(tensor_type(result_type.shape, out), sums).result

            func.FuncOp.from_py_func(lhs_type, rhs_type, *added_types)(main)
        module.operation.verify()
        return str(module)


def _add(sums: Any, added: Sequence[Any], loops: Sequence[int], out: str, addend: Addend) -> Any:
    """Add the tensor of ``addend`` to sums, each times its factor. ``loops`` are the dimensions that it indexes."""
    from iree.compiler import ir
    from iree.compiler.dialects import arith, linalg, tensor

    rank = len(sums.type.shape)
    empty = tensor.EmptyOp(sums.type.shape, ir.Type.parse(out)).result
    own = ir.AffineMap.get_identity(rank)
    maps = [own, *[ir.AffineMap.get(rank, 0, [ir.AffineDimExpr.get(at) for at in loops]) for _ in added], own]
    parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
    attributes = [ir.AffineMapAttr.get(affine) for affine in maps]
    op = linalg.GenericOp(
        [empty.type], [sums, *added], [empty], ir.ArrayAttr.get(attributes), ir.ArrayAttr.get([parallel] * rank)
    )
    wide, stored = sums.type.element_type, empty.type.element_type
    block = op.regions[0].blocks.append(wide, *[value.type.element_type for value in added], stored)
    with ir.InsertionPoint(block):
        terms = []
        factors = (addend.alpha, addend.beta)
        for value, factor in zip(block.arguments[: 1 + len(added)], factors, strict=False):
            term = value if value.type == wide else arith.ExtFOp(wide, value).result
            if factor != 1:
                constant = arith.ConstantOp(wide, ir.FloatAttr.get(wide, factor)).result
                term = arith.MulFOp(term, constant).result
            terms.append(term)
        total = activated(addend.activation, arith.AddFOp(*terms).result if len(terms) > 1 else terms[0])
        linalg.YieldOp([total if stored == wide else arith.TruncFOp(stored, total).result])
    return op.results[0]
