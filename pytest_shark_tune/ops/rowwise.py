"""Builders of ops on the rows of a matrix: softmax, normalizations, reductions and transposes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pytest_shark_tune.dispatch.types import joined_sizes
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.bindings import text_if_possible
from pytest_shark_tune.ops.builders import OpSource, check_sizes, element_name

__all__ = ["layer_norm", "reduce", "rms_norm", "softmax", "transpose"]

_FLOATS: Final = ("f32", "f16", "bf16")
_MOVED: Final = (*_FLOATS, "i8")
_EPSILON: Final = "1.0e-05"
"""The number that models add to a variance before they divide by its root."""
_MAPS: Final = """
#all = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (d0)>
#column = affine_map<(d0, d1) -> (d1)>
"""
_REDUCTIONS: Final = {"sum": ("0.0", "arith.addf"), "max": ("0xFF800000", "arith.maximumf")}
"""The first value and the op of each reduction; the maximum starts at minus infinity."""


class _Operand(NamedTuple):
    """An operand of a generic op."""

    value: str
    shape: tuple[int, ...]
    element: str = "f32"
    loops: str = "#all"
    """The name of its indexing map."""

    @property
    def kind(self) -> str:
        """Its type."""
        return _tensor(self.shape, self.element)


def softmax(*, rows: int, columns: int, element: str = "f32") -> OpSource:
    """Build the softmax of each row of a matrix. It is computed in f32.

    Args:
        rows: The number of rows.
        columns: The number of elements in a row.
        element: The type of input and result: f32, f16 or bf16.

    Raises:
        InputError: A size is no positive integer, or the element type is unknown.
    """
    sizes = check_sizes(rows=rows, columns=columns)
    element = _check_element(element, _FLOATS)
    wide = _tensor(sizes, "f32")
    soft = f"linalg.softmax dimension(1) ins({{}} : {wide}) outs(%empty : {wide}) -> {wide}"
    lines = [f"%empty = tensor.empty() : {wide}"]
    if element == "f32":
        lines.append(f"%result = {soft.format('%x')}")
    else:
        stored = _Operand("%stored", sizes, element)
        lines += [
            *_generic("%wide", [_Operand("%x", sizes, element)], _Operand("%empty", sizes), [], "%w0"),
            f"%soft = {soft.format('%wide')}",
            f"%stored = tensor.empty() : {stored.kind}",
            *_generic("%result", [_Operand("%soft", sizes)], stored, [], "%w0"),
        ]
    return _source("softmax", sizes, element, {"%x": sizes}, _tensor(sizes, element), lines)


def layer_norm(*, rows: int, columns: int, element: str = "f32") -> OpSource:
    """Build the normalization of each row of a matrix to a mean and a deviation, with a weight and a bias per column.

    The function takes the matrix, the weights and the biases, and computes in f32. The arguments are those of
    `softmax`.

    Raises:
        InputError: As for `softmax`.
    """
    sizes = check_sizes(rows=rows, columns=columns)
    element = _check_element(element, _FLOATS)
    x, total = _Operand("%x", sizes, element), _Operand("%sum", sizes[:1], loops="#row")
    squares, stored = _Operand("%squares", sizes[:1], loops="#row"), _Operand("%stored", sizes, element)
    weight, bias = (_Operand(value, sizes[1:], element, "#column") for value in ("%weight", "%bias"))
    zeros = _Operand("%zeros", sizes[:1], loops="#row")
    centred = ["%mean = arith.mulf %w1, %part : f32", "%centred = arith.subf %w0, %mean : f32"]
    square = ["%square = arith.mulf %centred, %centred : f32", "%r = arith.addf %square, %out : f32"]
    lines = [
        *_before_sums(zeros, columns),
        *_generic("%sum", [x], zeros, ["%r = arith.addf %w0, %out : f32"]),
        *_generic("%squares", [x, total], zeros, [*centred, *square]),
        f"%stored = tensor.empty() : {stored.kind}",
        *_generic(
            "%result",
            [x, total, squares, weight, bias],
            stored,
            [*centred, *_normalized("%centred", "%w2", "%w3"), "%r = arith.addf %scaled, %w4 : f32"],
        ),
    ]
    arguments = {"%x": sizes, "%weight": sizes[1:], "%bias": sizes[1:]}
    return _source("layer_norm", sizes, element, arguments, stored.kind, lines)


def rms_norm(*, rows: int, columns: int, element: str = "f32") -> OpSource:
    """Build the division of each row of a matrix by the root of its mean square, with a weight per column.

    The function takes the matrix and the weights, and computes in f32. The arguments are those of `softmax`.

    Raises:
        InputError: As for `softmax`.
    """
    sizes = check_sizes(rows=rows, columns=columns)
    element = _check_element(element, _FLOATS)
    x, stored = _Operand("%x", sizes, element), _Operand("%stored", sizes, element)
    zeros, squares = (_Operand(value, sizes[:1], loops="#row") for value in ("%zeros", "%squares"))
    weight = _Operand("%weight", sizes[1:], element, "#column")
    square = ["%square = arith.mulf %w0, %w0 : f32", "%r = arith.addf %square, %out : f32"]
    lines = [
        *_before_sums(zeros, columns),
        *_generic("%squares", [x], zeros, square),
        f"%stored = tensor.empty() : {stored.kind}",
        *_generic("%result", [x, squares, weight], stored, _normalized("%w0", "%w1", "%w2"), "%scaled"),
    ]
    return _source("rms_norm", sizes, element, {"%x": sizes, "%weight": sizes[1:]}, stored.kind, lines)


def reduce(*, rows: int, columns: int, axis: int = 1, kind: str = "sum", element: str = "f32") -> OpSource:
    """Build the sums or the maxima of the rows or the columns of a matrix. The result is in f32.

    Args:
        rows: The number of rows.
        columns: The number of elements in a row.
        axis: 1 for one result per row, 0 for one per column.
        kind: sum or max.
        element: The type of the matrix: f32, f16 or bf16.

    Raises:
        InputError: A size is no positive integer, or another argument is none of its values.
    """
    sizes = check_sizes(rows=rows, columns=columns)
    element = _check_element(element, _FLOATS)
    if isinstance(axis, bool) or axis not in (0, 1):
        raise InputError(f"axis={axis!r}: it is 0 or 1")
    if kind not in _REDUCTIONS:
        raise InputError(f"kind={kind!r}: it is one of {', '.join(_REDUCTIONS)}")
    first, op = _REDUCTIONS[kind]
    result = _Operand("%start", sizes[:1] if axis == 1 else sizes[1:], loops="#row" if axis == 1 else "#column")
    lines = [
        f"%first = arith.constant {first} : f32",
        f"%empty = tensor.empty() : {result.kind}",
        f"%start = linalg.fill ins(%first : f32) outs(%empty : {result.kind}) -> {result.kind}",
        *_generic("%result", [_Operand("%x", sizes, element)], result, [f"%r = {op} %w0, %out : f32"]),
    ]
    return _source(f"{'row' if axis == 1 else 'column'}_{kind}", sizes, element, {"%x": sizes}, result.kind, lines)


def transpose(*, rows: int, columns: int, element: str = "f32") -> OpSource:
    """Build the transpose of a ``rows`` x ``columns`` matrix.

    Args:
        rows: The rows of the input.
        columns: The columns of the input.
        element: The type of both matrices: f32, f16, bf16 or i8.

    Raises:
        InputError: A size is no positive integer, or the element type is unknown.
    """
    sizes = check_sizes(rows=rows, columns=columns)
    element = _check_element(element, _MOVED)
    matrix, turned = _tensor(sizes, element), _tensor(sizes[::-1], element)
    lines = [
        f"%empty = tensor.empty() : {turned}",
        f"%result = linalg.transpose ins(%x : {matrix}) outs(%empty : {turned}) permutation = [1, 0]",
    ]
    return _source("transpose", sizes, element, {"%x": sizes}, turned, lines)


def _check_element(element: str, allowed: Sequence[str]) -> str:
    if element_name(element) not in allowed:
        raise InputError(f"element={element!r}: it is one of {', '.join(allowed)}")
    return element_name(element)


def _tensor(sizes: Sequence[int], element: str) -> str:
    return f"tensor<{'x'.join(map(str, sizes))}x{element}>"


def _before_sums(zeros: _Operand, columns: int) -> list[str]:
    """Return the lines that make ``%zeros``, from which sums start, and the constants of `_normalized`."""
    return [
        "%zero = arith.constant 0.0 : f32",
        f"%part = arith.constant {1 / columns:e} : f32",
        f"%epsilon = arith.constant {_EPSILON} : f32",
        f"%empty = tensor.empty() : {zeros.kind}",
        f"%zeros = linalg.fill ins(%zero : f32) outs(%empty : {zeros.kind}) -> {zeros.kind}",
    ]


def _normalized(value: str, squares: str, weight: str) -> list[str]:
    """Return the lines that make ``%scaled``: a value divided by the root of a mean square, times a weight."""
    return [
        f"%deviation = arith.mulf {squares}, %part : f32",
        "%safe = arith.addf %deviation, %epsilon : f32",
        "%factor = math.rsqrt %safe : f32",
        f"%even = arith.mulf {value}, %factor : f32",
        f"%scaled = arith.mulf %even, {weight} : f32",
    ]


def _generic(
    name: str, inputs: Sequence[_Operand], output: _Operand, body: Sequence[str], result: str = "%r"
) -> list[str]:
    """Return the lines of a generic op over rows and columns.

    Args:
        name: The value that it makes.
        inputs: Its inputs. In the body they are ``%w0``, ``%w1`` and so on, in f32.
        output: Its output, ``%out`` in the body. What it does not index is reduced.
        body: The lines of the body.
        result: The result of the body, in f32.
    """
    iterators = {"#all": "parallel, parallel", "#row": "parallel, reduction", "#column": "reduction, parallel"}
    kinds = ", ".join(f'"{kind}"' for kind in iterators[output.loops].split(", "))
    maps = ", ".join(operand.loops for operand in (*inputs, output))
    letters = ["w" if operand.element == "f32" else "n" for operand in inputs]
    arguments = [
        f"%{letter}{number}: {operand.element}"
        for number, (letter, operand) in enumerate(zip(letters, inputs, strict=True))
    ]
    widened = [
        f"  %w{number} = arith.extf %n{number} : {operand.element} to f32"
        for number, operand in enumerate(inputs)
        if operand.element != "f32"
    ]
    stored = result if output.element == "f32" else "%narrow"
    narrowed = [f"  %narrow = arith.truncf {result} : f32 to {output.element}"] if stored == "%narrow" else []
    values, types = ", ".join(operand.value for operand in inputs), ", ".join(operand.kind for operand in inputs)
    return [
        f"{name} = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}",
        f"    ins({values} : {types}) outs({output.value} : {output.kind}) {{",
        f"^bb0({', '.join([*arguments, f'%out: {output.element}'])}):",
        *widened,
        *(f"  {line}" for line in body),
        *narrowed,
        f"  linalg.yield {stored} : {output.element}",
        f"}} -> {output.kind}",
    ]


def _source(
    op: str,
    sizes: tuple[int, ...],
    element: str,
    arguments: Mapping[str, tuple[int, ...]],
    result: str,
    lines: Sequence[str],
) -> OpSource:
    taken = ", ".join(f"{name}: {_tensor(shape, element)}" for name, shape in arguments.items())
    body = "\n".join(f"  {line}" for line in lines)
    text = f"{_MAPS}func.func @main({taken}) -> {result} {{\n{body}\n  return %result : {result}\n}}\n"
    return OpSource(f"{op}_{joined_sizes(sizes)}_{element}", _canonical(text))


@functools.cache
@text_if_possible
def _canonical(text: str) -> str:
    """Return a module as the compiler prints it."""
    from iree.compiler import ir

    from pytest_shark_tune.dispatch.mlir import shared_context

    with shared_context():
        return str(ir.Module.parse(text))
