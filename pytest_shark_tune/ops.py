"""Builders of MLIR with a single op, for suites that tune an op rather than a model.

Each builder returns an `OpSource`: a module whose public function ``@main`` fills its result with zeros and
runs the op once. Sizes are fixed when it is built, since a tuned config belongs to one shape.
"""

from __future__ import annotations

from functools import cache

import msgspec

from pytest_shark_tune.errors import InputError

__all__ = ["OpSource", "batch_matmul", "matmul"]

# What each input element may accumulate in; the first is the default. Narrow inputs accumulate wider, as the
# matrix instructions of CPUs and GPUs do.
_ACCUMULATORS = {"f32": ("f32",), "f16": ("f32", "f16"), "bf16": ("f32", "bf16"), "i8": ("i32",)}

_LARGEST_SIZE = 2**31 - 1


class OpSource(msgspec.Struct, frozen=True):
    """MLIR source of one op: ``name`` says the op, its sizes and its types, ``text`` is the module."""

    name: str
    text: str


def matmul(
    *,
    m: int,
    n: int,
    k: int,
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> OpSource:
    """The product of an ``m`` x ``k`` and a ``k`` x ``n`` matrix.

    ``lhs`` and ``rhs`` are the inputs' element types: f32, f16, bf16 or i8; ``rhs`` is ``lhs`` unless given.
    ``acc`` is the type of the sums and of the result: f32 for floats and i32 for i8, unless given.
    ``transpose_a`` says that the first input is stored as ``k`` x ``m``, ``transpose_b`` the second as ``n`` x ``k``.

    Raises:
        InputError: a size is no positive integer, an element type is unknown, or the types do not go together.
    """
    sizes = _checked_sizes(m=m, n=n, k=k)
    types = _checked_types(lhs, rhs, acc)
    layout = _checked_flags(transpose_a=transpose_a, transpose_b=transpose_b)
    return OpSource(_name("matmul", sizes, types, layout), _contraction_text(sizes, types, layout))


def batch_matmul(
    *,
    batch: int,
    m: int,
    n: int,
    k: int,
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> OpSource:
    """``batch`` products of an ``m`` x ``k`` and a ``k`` x ``n`` matrix; the other arguments are those of `matmul`.

    Raises:
        InputError: as `matmul` does.
    """
    sizes = _checked_sizes(batch=batch, m=m, n=n, k=k)
    types = _checked_types(lhs, rhs, acc)
    layout = _checked_flags(transpose_a=transpose_a, transpose_b=transpose_b)
    return OpSource(_name("batch_matmul", sizes, types, layout), _contraction_text(sizes, types, layout))


def _checked_sizes(**sizes: int) -> tuple[int, ...]:
    for argument, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_SIZE:
            raise InputError(f"{argument}={size!r}: a size is an integer from 1 to {_LARGEST_SIZE}")
    return tuple(sizes.values())


def _checked_types(lhs: str, rhs: str | None, acc: str | None) -> tuple[str, str, str]:
    """The element types of both inputs and of the result, with the defaults filled in."""
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


def _checked_flags(**flags: bool) -> tuple[bool, bool]:
    for argument, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputError(f"{argument}={flag!r}: it is True or False")
    return flags["transpose_a"], flags["transpose_b"]


def _name(op: str, sizes: tuple[int, ...], types: tuple[str, str, str], layout: tuple[bool, bool]) -> str:
    """``matmul_512x512x512_f32``; what is not the default follows, as in ``matmul_8x8x8_f16_acc_f16_tb``."""
    lhs, rhs, acc = types
    parts = [op, "x".join(map(str, sizes)), lhs if lhs == rhs else f"{lhs}x{rhs}"]
    if acc != _checked_types(lhs, rhs, None)[2]:
        parts.append(f"acc_{acc}")
    parts += [suffix for suffix, transposed in zip(("ta", "tb"), layout, strict=True) if transposed]
    return "_".join(parts)


@cache
def _contraction_text(sizes: tuple[int, ...], types: tuple[str, str, str], layout: tuple[bool, bool]) -> str:
    """The module's text; ``sizes`` are ``[batch,] m, n, k``, which is also the order of the loops."""
    # Loading the bindings takes a while, and a suite is imported even where nothing in it is run.
    from iree.compiler import ir
    from iree.compiler.dialects import arith, func, linalg, tensor

    batch = list(range(len(sizes) - 3))
    m, n, k = range(len(batch), len(sizes))
    transpose_a, transpose_b = layout
    operands = [
        [*batch, k, m] if transpose_a else [*batch, m, k],
        [*batch, n, k] if transpose_b else [*batch, k, n],
        [*batch, m, n],
    ]
    with ir.Context(), ir.Location.unknown():
        elements = [ir.Type.parse(element) for element in types]
        lhs_type, rhs_type, result_type = (
            ir.RankedTensorType.get([sizes[loop] for loop in loops], element)
            for loops, element in zip(operands, elements, strict=True)
        )
        indexing_maps = [
            ir.AffineMap.get(len(sizes), 0, [ir.AffineDimExpr.get(loop) for loop in loops]) for loops in operands
        ]
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):

            def main(lhs: ir.Value, rhs: ir.Value) -> ir.Value:
                element = result_type.element_type
                is_float = isinstance(element, ir.FloatType)
                zero = ir.FloatAttr.get(element, 0.0) if is_float else ir.IntegerAttr.get(element, 0)
                empty = tensor.EmptyOp(result_type.shape, element).result
                filled = linalg.fill(arith.ConstantOp(element, zero).result, outs=[empty])
                op = linalg.batch_matmul if batch else linalg.matmul
                return op(lhs, rhs, outs=[filled], indexing_maps=indexing_maps)

            func.FuncOp.from_py_func(lhs_type, rhs_type)(main)
        module.operation.verify()
        return str(module)
