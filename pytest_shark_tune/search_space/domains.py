"""Finite domains of variables, derived from constraints: bounds, divisors and enumerated values.

A solver would take minutes, and this takes milliseconds. First, intervals are narrowed through every constraint until
nothing changes, which gives each variable a first and a last value. Then values that no other variable supports are
dropped, constraint by constraint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from pytest_shark_tune.dispatch.reasons import UnboundedKnob
from pytest_shark_tune.search_space.expression import (
    Apply,
    Column,
    Constant,
    Expression,
    Lookup,
    Truth,
    Variable,
    evaluate,
    variables,
)

__all__ = ["UnboundedKnob", "domains_of"]

_INFINITY = math.inf
_LONGEST_RANGE = 1 << 22
_LARGEST_PRODUCT = 1 << 18
_MOST_ROUNDS = 64

_Interval = tuple[float, float]
_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


class _Empty(Exception):
    """The constraints contradict each other."""


def domains_of(names: Sequence[str], constraints: Sequence[Expression]) -> dict[str, tuple[int, ...]]:
    """Return the values that each variable can take.

    Args:
        names: The variables.
        constraints: Conditions that hold together.

    Returns:
        All values that occur in a solution, and perhaps others, in ascending order. All domains are empty if the
        constraints contradict each other.

    Raises:
        UnboundedKnob: A variable has no list of values, and no lower or no upper bound, or more than four million
            values between them.
    """
    try:
        intervals = _narrow_all(names, constraints)
    except _Empty:
        return dict.fromkeys(names, ())
    domains: dict[str, Column] = {}
    lists = _listed_values(constraints)
    for name, (low, high) in intervals.items():
        if name in lists:
            domains[name] = np.array([value for value in sorted(lists[name]) if low <= value <= high], dtype=np.int64)
            continue
        if math.isinf(low) or math.isinf(high):
            raise UnboundedKnob(f"the constraints give no {'lower' if math.isinf(low) else 'upper'} bound of {name}")
        if high - low >= _LONGEST_RANGE:
            raise UnboundedKnob(f"the constraints leave more than {_LONGEST_RANGE} values to {name}")
        domains[name] = np.arange(int(low), int(high) + 1, dtype=np.int64)
    _drop_unsupported(domains, constraints)
    return {name: tuple(domains[name].tolist()) for name in names}


def _listed_values(constraints: Sequence[Expression]) -> dict[str, frozenset[int]]:
    """Return the values of each variable of which a constraint lists them, as ``x = 1 or x = 4 or x = 16`` does."""
    lists: dict[str, frozenset[int]] = {}
    for constraint in constraints:
        choices = _choices(constraint)
        names, values = {name for name, _ in choices}, frozenset(value for _, value in choices)
        if len(names) == 1:
            name = names.pop()
            lists[name] = lists.get(name, values) & values
    return lists


def _choices(expression: Expression) -> frozenset[tuple[str, int]]:
    """Return the pairs of which an expression requires one, empty if it is no such list."""
    if isinstance(expression, Apply) and expression.operator == "or":
        parts = [_choices(operand) for operand in expression.operands]
        return frozenset[tuple[str, int]]().union(*parts) if all(parts) else frozenset()
    if isinstance(expression, Apply) and expression.operator == "eq" and len(expression.operands) == 2:
        for left, right in (expression.operands, expression.operands[::-1]):
            if isinstance(left, Variable) and isinstance(right, Constant):
                return frozenset({(left.name, right.value)})
    return frozenset()


def _drop_unsupported(domains: dict[str, Column], constraints: Sequence[Expression]) -> None:
    scoped = sorted(((sorted(variables(c)), c) for c in constraints), key=lambda pair: len(pair[0]))
    for _ in range(_MOST_ROUNDS):
        before = {name: len(domain) for name, domain in domains.items()}
        for names, constraint in scoped:
            shape = tuple(len(domains[name]) for name in names)
            if not names or 0 in shape or math.prod(shape) > _LARGEST_PRODUCT:
                continue
            axes = range(len(names))
            grid = {
                name: domains[name].reshape([-1 if axis == other else 1 for other in axes])
                for axis, name in enumerate(names)
            }
            holds = np.broadcast_to(evaluate(constraint, grid), shape)
            for axis, name in enumerate(names):
                kept = holds.any(axis=tuple(other for other in axes if other != axis))
                domains[name] = domains[name][kept]
                holds = np.compress(kept, holds, axis=axis)
        if all(len(domains[name]) == size for name, size in before.items()):
            return


def _narrow_all(names: Sequence[str], constraints: Sequence[Expression]) -> dict[str, _Interval]:
    intervals: dict[str, _Interval] = dict.fromkeys(names, (-_INFINITY, _INFINITY))
    for _ in range(_MOST_ROUNDS):
        before = dict(intervals)
        for constraint in constraints:
            _require(constraint, True, intervals)
        if intervals == before:
            break
    return intervals


def _require(expression: Expression, wanted: bool, intervals: dict[str, _Interval]) -> None:
    if isinstance(expression, Truth) and expression.value is not wanted:
        raise _Empty
    if not isinstance(expression, Apply):
        return
    operator, operands = expression.operator, expression.operands
    if operator == "not":
        _require(operands[0], not wanted, intervals)
    elif operator == ("and" if wanted else "or"):
        for operand in operands:
            _require(operand, wanted, intervals)
    elif operator == ("or" if wanted else "and"):
        _require_one(operands, wanted, intervals)
    elif operator == "implies" and wanted:
        _require_one((Apply("not", operands[:1]), operands[1]), True, intervals)
    elif operator in _NEGATED:
        _compare(operator if wanted else _NEGATED[operator], operands[0], operands[1], intervals)
    elif operator == "eq" and wanted:
        for left, right in pairwise(operands):
            _equate(left, right, intervals)


def _require_one(operands: Sequence[Expression], wanted: bool, intervals: dict[str, _Interval]) -> None:
    branches: list[dict[str, _Interval]] = []
    for operand in operands:
        branch = dict(intervals)
        try:
            _require(operand, wanted, branch)
        except _Empty:
            continue
        branches.append(branch)
    if not branches:
        raise _Empty
    for name in intervals:
        intervals[name] = (min(b[name][0] for b in branches), max(b[name][1] for b in branches))


def _compare(operator: str, left: Expression, right: Expression, intervals: dict[str, _Interval]) -> None:
    if operator in ("gt", "ge"):
        left, right, operator = right, left, _MIRRORED[operator]
    gap = 1 if operator == "lt" else 0
    _narrow(left, (-_INFINITY, _range(right, intervals)[1] - gap), intervals)
    _narrow(right, (_range(left, intervals)[0] + gap, _INFINITY), intervals)


def _equate(left: Expression, right: Expression, intervals: dict[str, _Interval]) -> None:
    a, b = _range(left, intervals), _range(right, intervals)
    both = (max(a[0], b[0]), min(a[1], b[1]))
    _narrow(left, both, intervals)
    _narrow(right, both, intervals)
    for remainder, zero in ((left, right), (right, left)):
        if zero == Constant(0) and isinstance(remainder, Apply) and remainder.operator == "mod":
            dividend, divisor = remainder.operands
            low, high = _range(dividend, intervals)
            if low >= 1:
                # x mod 0 is x, so a positive x has no remainder only if the divisor is not zero.
                _narrow(divisor, (-high, high), intervals)
                if (first := _range(divisor, intervals)[0]) >= 0:
                    _narrow(divisor, (1, high), intervals)
                    _narrow(dividend, (first, _INFINITY), intervals)


def _range(expression: Expression, intervals: Mapping[str, _Interval]) -> _Interval:
    if isinstance(expression, Constant):
        return expression.value, expression.value
    if isinstance(expression, Variable):
        return intervals[expression.name]
    if isinstance(expression, Lookup):
        return min(expression.values), max(expression.values)
    if not isinstance(expression, Apply):
        return -_INFINITY, _INFINITY
    ranges = [_range(operand, intervals) for operand in expression.operands]
    match expression.operator:
        case "add":
            return sum(r[0] for r in ranges), sum(r[1] for r in ranges)
        case "sub":
            return ranges[0][0] - sum(r[1] for r in ranges[1:]), ranges[0][1] - sum(r[0] for r in ranges[1:])
        case "mul":
            result = ranges[0]
            for other in ranges[1:]:
                corners = [_times(a, b) for a in result for b in other]
                result = min(corners), max(corners)
            return result
        case "div" if len(ranges) == 2 and ranges[0][0] >= 0 and ranges[1][0] >= 1:
            (low, high), (first, last) = ranges
            return _over(low, last), _over(high, first)
        case "mod" if ranges[1][0] >= 1:
            return 0, min(ranges[1][1] - 1, ranges[0][1] if ranges[0][0] >= 0 else _INFINITY)
        case "ite":
            return min(ranges[1][0], ranges[2][0]), max(ranges[1][1], ranges[2][1])
    return -_INFINITY, _INFINITY


def _narrow(expression: Expression, target: _Interval, intervals: dict[str, _Interval]) -> None:
    low, high = target
    if isinstance(expression, Constant):
        if not low <= expression.value <= high:
            raise _Empty
    elif isinstance(expression, Variable):
        first, last = intervals[expression.name]
        first, last = max(first, low), min(last, high)
        if first > last:
            raise _Empty
        intervals[expression.name] = first, last
    elif isinstance(expression, Lookup):
        keys = [k for k, v in zip(expression.keys, expression.values, strict=True) if low <= v <= high]
        if not keys:
            raise _Empty
        # The last value also stands for every index that is no key, so it gives no bound.
        if not low <= expression.values[-1] <= high:
            _narrow(expression.index, (min(keys), max(keys)), intervals)
    elif isinstance(expression, Apply):
        _narrow_operands(expression, target, intervals)


def _narrow_operands(expression: Apply, target: _Interval, intervals: dict[str, _Interval]) -> None:
    (low, high), operands = target, expression.operands
    ranges = [_range(operand, intervals) for operand in operands]
    match expression.operator:
        case "add":
            for i, operand in enumerate(operands):
                least = sum(r[0] for j, r in enumerate(ranges) if j != i)
                most = sum(r[1] for j, r in enumerate(ranges) if j != i)
                _narrow(operand, (low - most, high - least), intervals)
        case "sub" if len(operands) == 2:
            _narrow(operands[0], (low + ranges[1][0], high + ranges[1][1]), intervals)
            _narrow(operands[1], (ranges[0][0] - high, ranges[0][1] - low), intervals)
        case "mul":
            for i, operand in enumerate(operands):
                others = [r for j, r in enumerate(ranges) if j != i]
                if any(r[0] < 1 for r in others):
                    continue
                least, most = math.prod(int(r[0]) for r in others), math.prod(r[1] for r in others)
                # A product of a positive number is closest to zero with the least of it, farthest with the most.
                first = -_over(-low, most if low > 0 else least)
                _narrow(operand, (first, _over(high, least if high >= 0 else most)), intervals)
        case "div" if len(operands) == 2 and ranges[0][0] >= 0 and ranges[1][0] >= 1:
            _narrow(operands[0], (_times(max(low, 0), ranges[1][0]), _times(high + 1, ranges[1][1]) - 1), intervals)
            if low >= 1:
                _narrow(operands[1], (1, _over(ranges[0][1], low)), intervals)


def _times(a: float, b: float) -> float:
    return 0 if a == 0 or b == 0 else a * b


def _over(a: float, b: float) -> float:
    if math.isinf(a):
        return a
    return 0 if math.isinf(b) else a // b
