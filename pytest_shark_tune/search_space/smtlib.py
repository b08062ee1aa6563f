"""Reading SMT-LIB and z3 terms into expressions, for spaces of other compilers than IREE."""

from __future__ import annotations

from typing import Any

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space.expression import Apply, Constant, Expression, Operator, Truth, Variable

__all__ = ["expression_of", "parse_smtlib", "text_of"]


def parse_smtlib(text: str) -> tuple[Any, ...]:
    """Return the asserts of an SMT-LIB script as z3 terms in order, with definitions expanded.

    Raises:
        InputError: z3 does not read the text.
    """
    import z3

    try:
        return tuple(z3.parse_smt2_string(text))
    except z3.Z3Exception as error:
        said = error.value.decode(errors="replace") if isinstance(error.value, bytes) else str(error.value)
        raise InputError(f"not SMT-LIB that z3 reads: {' '.join(said.split())}") from error


def text_of(term: Any) -> str:
    """Return a z3 term on one line, as z3 prints it: the message of an assert without a message."""
    return " ".join(str(term).split())


def expression_of(term: Any) -> Expression:
    """Convert a z3 term over integers to an expression; its constants become variables.

    SMT-LIB leaves division by zero undefined, and an expression does not, see `Apply`.

    Raises:
        InputError: The term holds something else than integers, truth values and their operators.
    """
    import z3

    operators: dict[int, Operator] = {
        z3.Z3_OP_ADD: "add",
        z3.Z3_OP_SUB: "sub",
        z3.Z3_OP_MUL: "mul",
        z3.Z3_OP_IDIV: "div",
        z3.Z3_OP_MOD: "mod",
        z3.Z3_OP_LT: "lt",
        z3.Z3_OP_LE: "le",
        z3.Z3_OP_GT: "gt",
        z3.Z3_OP_GE: "ge",
        z3.Z3_OP_EQ: "eq",
        z3.Z3_OP_DISTINCT: "distinct",
        z3.Z3_OP_AND: "and",
        z3.Z3_OP_OR: "or",
        z3.Z3_OP_XOR: "xor",
        z3.Z3_OP_NOT: "not",
        z3.Z3_OP_IMPLIES: "implies",
        z3.Z3_OP_ITE: "ite",
    }
    seen: dict[int, Expression] = {}

    def read(node: Any) -> Expression:
        known = seen.get(node.get_id())
        if known is None:
            known = seen[node.get_id()] = convert(node)
        return known

    def convert(node: Any) -> Expression:
        if not z3.is_app(node) or not (z3.is_int(node) or z3.is_bool(node)):
            raise InputError(f"{text_of(node)} is neither a whole number nor a truth value")
        if z3.is_int_value(node):
            return Constant(node.as_long())
        if z3.is_true(node) or z3.is_false(node):
            return Truth(z3.is_true(node))
        if z3.is_const(node):
            if not z3.is_int(node):
                raise InputError(f"{text_of(node)} is a truth value; knobs and helpers are whole numbers")
            return Variable(str(node.decl().name()))
        operands = tuple(map(read, node.children()))
        kind = node.decl().kind()
        if kind == z3.Z3_OP_UMINUS:
            return Apply("sub", (Constant(0), *operands))
        if node.decl().name() == "abs":
            return Apply("abs", operands)
        if kind not in operators:
            raise InputError(f"{node.decl().name()} in {text_of(node)} is no operator of a search space")
        return Apply(operators[kind], operands)

    return read(term)
