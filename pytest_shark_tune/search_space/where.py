"""Reading conditions over knobs from a user's text, such as ``wg_0 >= 64 and red_2 in (4, 8)``.

The syntax is Python's. The text is parsed and never evaluated: everything except integer arithmetic, comparisons and
logic is refused with a message.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space.expression import Apply, Constant, Expression, Operator, Variable

__all__ = ["conjuncts", "parse_condition"]

_LONGEST_TEXT = 500
_LARGEST_NUMBER = (1 << 31) - 1
_ARITHMETIC: dict[type[ast.operator], Operator] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "div",
    ast.Mod: "mod",
}
_COMPARISONS: dict[type[ast.cmpop], Operator] = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "distinct",
}
_LOGIC: dict[type[ast.boolop], Operator] = {ast.And: "and", ast.Or: "or"}
_SYNTAX = "comparisons, and, or, not, in (...), + - * // % and parentheses"


def parse_condition(text: str) -> Expression:
    """Read a condition: comparisons of integer arithmetic over knobs, joined by ``and``, ``or`` and ``not``.

    ``//`` and ``%`` are those of `Apply`: by zero they yield 0 and the dividend. A constant divisor must be positive,
    so that they agree with Python's.

    Raises:
        InputError: The text is no such condition. The message shows the offending part.
    """
    if len(text) > _LONGEST_TEXT:
        raise InputError(f"a condition of {len(text)} characters is too long; {_LONGEST_TEXT} are the most")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _ConditionReader(text.strip()).truth(tree.body)
    except SyntaxError as error:
        raise InputError(f"{text!r} is no condition: {error.msg}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise InputError(f"{text!r} is no condition: {error}") from error


def conjuncts(condition: Expression) -> tuple[Expression, ...]:
    """Return the operands of the outermost ``and`` of a condition, or the condition itself."""
    if isinstance(condition, Apply) and condition.operator == "and":
        return tuple(part for operand in condition.operands for part in conjuncts(operand))
    return (condition,)


class _ConditionReader:
    """Reads the syntax tree of one text, which messages quote."""

    def __init__(self, text: str) -> None:
        self._text = text

    def truth(self, node: ast.expr) -> Expression:
        match node:
            case ast.BoolOp(op=op, values=values):
                return Apply(_LOGIC[type(op)], tuple(map(self.truth, values)))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Apply("not", (self.truth(operand),))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip(pairwise([left, *comparators]), ops, strict=True)
                parts = tuple(self._comparison(a, op, b) for (a, b), op in pairs)
                return parts[0] if len(parts) == 1 else Apply("and", parts)
            case ast.Name() | ast.Constant() | ast.BinOp() | ast.UnaryOp():
                raise self._refusal(node, "is a number where a condition is needed: compare it with something")
            case _:
                raise self._refusal(node, f"is not among what a condition may have: {_SYNTAX}")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Expression:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
                raise self._refusal(right, "is no list of values such as (4, 8)")
            found = self._among(self.number(left), [self.number(element) for element in right.elts])
            return found if isinstance(op, ast.In) else Apply("not", (found,))
        if type(op) not in _COMPARISONS:
            raise self._refusal(left, "is compared with something else than < <= > >= == != in")
        return Apply(_COMPARISONS[type(op)], (self.number(left), self.number(right)))

    def _among(self, value: Expression, choices: Sequence[Expression]) -> Expression:
        equal = tuple(Apply("eq", (value, choice)) for choice in choices)
        return equal[0] if len(equal) == 1 else Apply("or", equal)

    def number(self, node: ast.expr) -> Expression:
        match node:
            case ast.Name(id=name):
                return Variable(name)
            case ast.Constant(value=int() as value) if not isinstance(value, bool):
                if value > _LARGEST_NUMBER:
                    raise self._refusal(node, f"is larger than {_LARGEST_NUMBER}")
                return Constant(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int()) as operand):
                number = self.number(operand)
                assert isinstance(number, Constant)
                return Constant(-number.value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Apply("sub", (Constant(0), self.number(operand)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                divisor = self.number(right)
                if isinstance(op, ast.FloorDiv | ast.Mod) and isinstance(divisor, Constant) and divisor.value <= 0:
                    raise self._refusal(node, "divides by a number that is not positive")
                return Apply(_ARITHMETIC[type(op)], (self.number(left), divisor))
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                raise self._refusal(node, "is a condition where a number is needed")
            case _:
                raise self._refusal(node, f"is not among what a condition may have: {_SYNTAX}")

    def _refusal(self, node: ast.expr, reason: str) -> InputError:
        shown = ast.get_source_segment(self._text, node) or self._text
        return InputError(f"{self._text!r} is no condition: {shown!r} {reason}")
