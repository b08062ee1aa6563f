"""Integer and Boolean expressions over knobs, as plain data: the content of ``iree_codegen.smt.constraints`` ops.

An expression can be sent between processes, evaluated for a million assignments at once and converted to z3. Tests
check that all three agree. Truth values are columns of bool, integers are columns of int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, reduce
from itertools import pairwise
from operator import sub
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Apply",
    "Column",
    "Columns",
    "Constant",
    "Expression",
    "Lookup",
    "Operator",
    "Truth",
    "Variable",
    "evaluate",
    "substitute",
    "to_z3",
    "variables",
]

Column = NDArray[Any]
Columns = Mapping[str, Column]

Operator = Literal[
    "add", "sub", "mul", "div", "mod", "abs",
    "lt", "le", "gt", "ge", "eq", "distinct",
    "and", "or", "xor", "not", "implies", "ite",
]  # fmt: skip


class Constant(msgspec.Struct, frozen=True, tag="int"):
    """An integer."""

    value: int


class Truth(msgspec.Struct, frozen=True, tag="bool"):
    """True or false."""

    value: bool


class Variable(msgspec.Struct, frozen=True, tag="var"):
    """An integer with a value from an assignment: a knob, or a helper that only constraints mention."""

    name: str


class Lookup(msgspec.Struct, frozen=True, tag="lookup"):
    """The value at the position of the key that equals ``index``, or the last value if no key does.

    The last value stands for every other index, as in the compiler's conversion to SMT-LIB.
    """

    index: Expression
    keys: tuple[int, ...]
    values: tuple[int, ...]


class Apply(msgspec.Struct, frozen=True, tag="apply"):
    """An operator of SMT-LIB's core and integer theories, applied to operands.

    ``add`` and ``mul``, ``eq`` and ``distinct``, ``and`` and ``or`` take any number of operands. Division rounds such
    that the remainder is never negative. SMT-LIB leaves division by zero undefined; here ``x div 0`` is 0 and
    ``x mod 0`` is x, also in z3.
    """

    operator: Operator
    operands: tuple[Expression, ...]


Expression = Constant | Truth | Variable | Lookup | Apply


def variables(expression: Expression) -> frozenset[str]:
    """Return the names of the variables in ``expression``."""
    found: set[str] = set()
    _collect(expression, found)
    return frozenset(found)


def _collect(expression: Expression, found: set[str]) -> None:
    if isinstance(expression, Variable):
        found.add(expression.name)
    elif isinstance(expression, Lookup):
        _collect(expression.index, found)
    elif isinstance(expression, Apply):
        for operand in expression.operands:
            _collect(operand, found)


def substitute(expression: Expression, values: Mapping[str, int]) -> Expression:
    """Replace the variables that ``values`` contains, and compute parts that become constant."""
    if isinstance(expression, Variable):
        return Constant(values[expression.name]) if expression.name in values else expression
    if isinstance(expression, Lookup):
        index = substitute(expression.index, values)
        return _fold(Lookup(index, expression.keys, expression.values), (index,))
    if isinstance(expression, Apply):
        operands = tuple(substitute(operand, values) for operand in expression.operands)
        return _fold(Apply(expression.operator, operands), operands)
    return expression


def _fold(expression: Expression, operands: Sequence[Expression]) -> Expression:
    if not all(isinstance(operand, Constant | Truth) for operand in operands):
        return expression
    value = evaluate(expression, {})[0]
    return Truth(bool(value)) if value.dtype == np.bool_ else Constant(int(value))


def evaluate(expression: Expression, columns: Columns) -> Column:
    """Evaluate an expression for many assignments.

    Args:
        expression: The expression.
        columns: One int64 column for each variable in ``expression``, all of one length (or of length 1).

    Returns:
        One value for each row of ``columns``; a column of length 1 for a constant.

    Raises:
        KeyError: A variable has no column.
    """
    if isinstance(expression, Constant):
        return np.array([expression.value], dtype=np.int64)
    if isinstance(expression, Truth):
        return np.array([expression.value], dtype=np.bool_)
    if isinstance(expression, Variable):
        return columns[expression.name]
    if isinstance(expression, Lookup):
        index = evaluate(expression.index, columns)
        result = np.full(index.shape, expression.values[-1], dtype=np.int64)
        for key, value in zip(expression.keys[:-1], expression.values[:-1], strict=True):
            result[index == key] = value
        return result
    operands = [evaluate(operand, columns) for operand in expression.operands]
    return _NUMPY[expression.operator](operands)


def _divide(a: Column, b: Column) -> Column:
    divisor = np.where(b == 0, 1, b)
    quotient: Column = np.sign(divisor) * np.floor_divide(a, np.abs(divisor))
    return np.where(b == 0, 0, quotient)


def _remainder(a: Column, b: Column) -> Column:
    return np.where(b == 0, a, np.mod(a, np.abs(np.where(b == 0, 1, b))))


def _all_pairs(operands: Sequence[Column], test: Callable[[Column, Column], Column]) -> Column:
    pairs = [test(a, b) for i, a in enumerate(operands) for b in operands[i + 1 :]]
    return reduce(np.logical_and, pairs)


_SHARED: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sub": lambda x: reduce(sub, x),
    "lt": lambda x: x[0] < x[1],
    "le": lambda x: x[0] <= x[1],
    "gt": lambda x: x[0] > x[1],
    "ge": lambda x: x[0] >= x[1],
}
"""Operators that columns and z3 terms write alike."""

_NUMPY: dict[str, Callable[[Sequence[Column]], Column]] = {
    **_SHARED,
    "add": lambda x: reduce(np.add, x),
    "mul": lambda x: reduce(np.multiply, x),
    "div": lambda x: reduce(_divide, x),
    "mod": lambda x: _remainder(x[0], x[1]),
    "abs": lambda x: np.abs(x[0]),
    "eq": lambda x: _all_pairs(x, np.equal),
    "distinct": lambda x: _all_pairs(x, np.not_equal),
    "and": lambda x: reduce(np.logical_and, x),
    "or": lambda x: reduce(np.logical_or, x),
    "xor": lambda x: reduce(np.logical_xor, x),
    "not": lambda x: np.logical_not(x[0]),
    "implies": lambda x: np.logical_or(np.logical_not(x[0]), x[1]),
    "ite": lambda x: np.where(x[0], x[1], x[2]),
}


def to_z3(expression: Expression) -> Any:
    """Return a z3 term of sort Int or Bool, with variables as Int constants of the same names."""
    import z3

    if isinstance(expression, Constant):
        return z3.IntVal(expression.value)
    if isinstance(expression, Truth):
        return z3.BoolVal(expression.value)
    if isinstance(expression, Variable):
        return z3.Int(expression.name)
    if isinstance(expression, Lookup):
        index = to_z3(expression.index)
        term = z3.IntVal(expression.values[-1])
        for key, value in zip(expression.keys[-2::-1], expression.values[-2::-1], strict=True):
            term = z3.If(index == key, z3.IntVal(value), term)
        return term
    return _z3_operators()[expression.operator]([to_z3(operand) for operand in expression.operands])


@cache
def _z3_operators() -> dict[str, Callable[[Sequence[Any]], Any]]:
    import z3

    def divided(term: Any, divisor: Any, by_zero: Any) -> Any:
        if z3.is_int_value(divisor) and divisor.as_long() != 0:
            return term
        return z3.If(divisor == 0, by_zero, term)

    return _SHARED | {
        "add": lambda x: z3.Sum(*x),
        "mul": lambda x: z3.Product(*x),
        "div": lambda x: reduce(lambda a, b: divided(a / b, b, z3.IntVal(0)), x),
        "mod": lambda x: divided(x[0] % x[1], x[1], x[0]),
        "abs": lambda x: z3.If(x[0] >= 0, x[0], -x[0]),
        "eq": lambda x: x[0] == x[1] if len(x) == 2 else z3.And(*(a == b for a, b in pairwise(x))),
        "distinct": lambda x: z3.Distinct(*x),
        "and": lambda x: z3.And(*x),
        "or": lambda x: z3.Or(*x),
        "xor": lambda x: reduce(z3.Xor, x),
        "not": lambda x: z3.Not(x[0]),
        "implies": lambda x: z3.Implies(x[0], x[1]),
        "ite": lambda x: z3.If(x[0], x[1], x[2]),
    }
