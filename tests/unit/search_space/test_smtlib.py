from __future__ import annotations

import pytest
import z3

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import SearchSpace, UnboundedKnob

TILES = "(declare-const tile Int) (declare-const unroll Int)"
DOMAINS = {"tile": range(1, 33), "unroll": (1, 2, 4)}


def test_a_space_is_read_from_smtlib() -> None:
    text = f"{TILES} (assert (= (mod 32 tile) 0)) (assert (=> (> tile 4) (= unroll 1)))"
    space = SearchSpace.from_smtlib(text, DOMAINS, pipeline="Mine")
    assert space.names == ("tile", "unroll")
    assert [tuple(knobs.values()) for knobs in space] == [
        (tile, unroll) for tile in (1, 2, 4, 8, 16, 32) for unroll in (1, 2, 4) if tile <= 4 or unroll == 1
    ]
    (reason,) = space.violated({"tile": 8, "unroll": 2})
    assert "tile > 4" in reason


def test_definitions_and_operators_of_every_kind_are_read() -> None:
    text = f"""{TILES}
      (define-fun twice ((x Int)) Int (* 2 x))
      (assert (or (= unroll 1) (xor (= tile 4) (= tile 8)) false))
      (assert (let ((sum (+ tile unroll (- 1)))) (and (<= 4 sum 9) (distinct tile unroll 6))))
      (assert (ite (< tile (twice unroll)) (not (= (div tile 3) (abs (- 1)))) (>= tile 2)))
    """
    space = SearchSpace.from_smtlib(text, DOMAINS, pipeline="Mine")

    def holds(tile: int, unroll: int) -> bool:
        first = unroll == 1 or ((tile == 4) != (tile == 8))
        second = 4 <= tile + unroll - 1 <= 9 and len({tile, unroll, 6}) == 3
        third = tile // 3 != 1 if tile < 2 * unroll else tile >= 2
        return first and second and third

    expected = [(tile, unroll) for tile in range(1, 33) for unroll in (1, 2, 4) if holds(tile, unroll)]
    assert expected
    assert [tuple(knobs.values()) for knobs in space] == expected


def test_the_text_form_is_read_back() -> None:
    space = SearchSpace.of("Mine", {"tile": range(33), "unroll": (1, 2, 4)}, "tile % unroll == 0", "12 % tile == 0")
    text = space.smtlib()
    assert "; tile % unroll == 0" in text
    again = SearchSpace.from_smtlib(text, {knob.name: knob.domain for knob in space.knobs}, pipeline="Mine")
    assert list(again) == list(space)


def test_constants_that_are_no_knobs_become_helpers() -> None:
    text = "(declare-const n Int) (declare-const half Int) (assert (= n (* 2 half))) (assert (<= 0 half 3))"
    space = SearchSpace.from_smtlib(text, {"n": range(10)}, pipeline="Mine")
    assert [helper.name for helper in space.helpers] == ["half"]
    assert [knobs["n"] for knobs in space] == [0, 2, 4, 6]


def test_z3_terms_come_with_messages_in_words() -> None:
    tile, unroll = z3.Ints("tile unroll")
    space = SearchSpace.from_z3({"the unroll factor must divide the tile": tile % unroll == 0}, DOMAINS, pipeline="M")
    assert space.violated({"tile": 3, "unroll": 2}) == ("the unroll factor must divide the tile",)
    bare = SearchSpace.from_z3([tile % unroll == 0], DOMAINS, pipeline="M")
    assert list(bare) == list(space)
    assert bare.violated({"tile": 3, "unroll": 2}) == ("tile%unroll == 0",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(assert", "not SMT-LIB that z3 reads"),
        ("(declare-const x Real) (assert (> x 1.0))", "neither a whole number nor a truth value"),
        ("(declare-const x Bool) (assert x)", "x is a truth value"),
        ("(declare-fun f (Int) Int) (declare-const a Int) (assert (> (f a) 1))", "f in .* is no operator"),
        ("(declare-const a Int) (assert (forall ((x Int)) (> x a)))", "neither a whole number nor"),
    ],
)
def test_what_is_no_integer_arithmetic_is_told(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        SearchSpace.from_smtlib(text, {"a": (1, 2)}, pipeline="Mine")


def test_a_helper_without_bounds_is_told() -> None:
    with pytest.raises(UnboundedKnob, match="upper bound of h"):
        SearchSpace.from_smtlib("(declare-const h Int) (assert (> h 1))", {"a": (1, 2)}, pipeline="Mine")


@pytest.mark.parametrize("values", [(), (1.5,), ("8",), (True,), (1 << 70,)])
def test_a_knob_has_whole_numbers_to_take(values: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="the knob tile"):
        SearchSpace.of("Mine", {"tile": values})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [2.0, "2", None, True, 1 << 70])
def test_a_value_that_is_no_whole_number_is_no_member(value: object) -> None:
    space = SearchSpace.of("Mine", {"tile": (1, 2)})
    (reason,) = space.violated({"tile": value})  # type: ignore[dict-item]
    assert "is not a whole number" in reason
    assert {"tile": value} not in space
