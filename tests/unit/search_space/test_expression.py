from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
import z3

from pytest_shark_tune.search_space.expression import (
    Apply,
    Constant,
    Expression,
    Lookup,
    Operator,
    Truth,
    Variable,
    evaluate,
    substitute,
    to_z3,
    variables,
)

X, Y = Variable("x"), Variable("y")
INTEGERS: tuple[Operator, ...] = ("add", "sub", "mul", "div", "mod")
COMPARISONS: tuple[Operator, ...] = ("lt", "le", "gt", "ge", "eq", "distinct")
CONNECTIVES: tuple[Operator, ...] = ("and", "or", "xor", "implies")


def random_integer(rng: random.Random, depth: int) -> Expression:
    if depth == 0:
        leaves: list[Expression] = [X, Y, Constant(rng.randint(-4, 4))]
        return rng.choice(leaves)
    kind = rng.randrange(8)
    if kind == 0:
        return Lookup(random_integer(rng, depth - 1), (0, 1, 5), (7, -2, 3))
    if kind == 1:
        return Apply("abs", (random_integer(rng, depth - 1),))
    if kind == 2:
        branches = random_integer(rng, depth - 1), random_integer(rng, depth - 1)
        return Apply("ite", (random_truth(rng, depth - 1), *branches))
    return Apply(rng.choice(INTEGERS), (random_integer(rng, depth - 1), random_integer(rng, depth - 1)))


def random_truth(rng: random.Random, depth: int) -> Expression:
    if depth == 0:
        leaves: list[Expression] = [Truth(True), Truth(False), Apply("le", (X, Y))]
        return rng.choice(leaves)
    kind = rng.randrange(4)
    if kind == 0:
        return Apply("not", (random_truth(rng, depth - 1),))
    if kind == 1:
        return Apply(rng.choice(CONNECTIVES), (random_truth(rng, depth - 1), random_truth(rng, depth - 1)))
    return Apply(rng.choice(COMPARISONS), (random_integer(rng, depth - 1), random_integer(rng, depth - 1)))


def z3_value(expression: Expression, values: dict[str, int]) -> Any:
    pairs = [(z3.Int(name), z3.IntVal(value)) for name, value in values.items()]
    term = z3.simplify(z3.substitute(to_z3(expression), *pairs))
    return z3.is_true(term) if z3.is_bool(term) else term.as_long()


@pytest.mark.parametrize("seed", range(60))
def test_numpy_and_z3_give_the_same_values(seed: int) -> None:
    rng = random.Random(seed)
    expression = random_truth(rng, 3) if seed % 2 else random_integer(rng, 3)
    rows = [{"x": rng.randint(-6, 6), "y": rng.randint(-6, 6)} for _ in range(6)]
    columns = {name: np.array([row[name] for row in rows], dtype=np.int64) for name in ("x", "y")}
    found = np.broadcast_to(evaluate(expression, columns), len(rows))
    assert found.tolist() == [z3_value(expression, row) for row in rows]


@pytest.mark.parametrize(("a", "b", "quotient", "remainder"), [
    (7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -3, 1), (-7, -2, 4, 1), (7, 0, 0, 7), (0, 3, 0, 0),
])  # fmt: skip
def test_a_remainder_is_never_negative(a: int, b: int, quotient: int, remainder: int) -> None:
    columns = {"x": np.array([a]), "y": np.array([b])}
    assert evaluate(Apply("div", (X, Y)), columns).tolist() == [quotient]
    assert evaluate(Apply("mod", (X, Y)), columns).tolist() == [remainder]


def test_operators_take_many_operands() -> None:
    columns = {"x": np.array([2, 3, 2]), "y": np.array([2, 4, 5])}
    assert evaluate(Apply("mul", (X, Y, Constant(10))), columns).tolist() == [40, 120, 100]
    assert evaluate(Apply("eq", (X, Y, Constant(2))), columns).tolist() == [True, False, False]
    assert evaluate(Apply("distinct", (X, Y, Constant(2))), columns).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(20))
def test_substituting_everything_computes_the_value(seed: int) -> None:
    rng = random.Random(seed)
    expression, values = random_integer(rng, 3), {"x": rng.randint(-5, 5), "y": rng.randint(-5, 5)}
    assert substitute(expression, values) == Constant(z3_value(expression, values))


def test_substituting_a_part_leaves_the_rest() -> None:
    expression = Apply("add", (X, Apply("mul", (Y, Constant(3)))))
    assert substitute(expression, {"y": 5}) == Apply("add", (X, Constant(15)))
    assert variables(substitute(expression, {"y": 5})) == {"x"}


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(KeyError):
        evaluate(Apply("add", (X, Y)), {"x": np.array([1])})


def test_a_tree_survives_being_written_down() -> None:
    expression = Apply("implies", (Apply("le", (X, Constant(3))), Apply("eq", (Lookup(Y, (0, 1), (4, 5)), X))))
    assert msgspec.json.decode(msgspec.json.encode(expression), type=Expression) == expression
