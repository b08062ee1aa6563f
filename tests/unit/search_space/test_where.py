from __future__ import annotations

import itertools

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import NoSpace, SearchSpace, SpaceRequest, SpaceTooLarge, narrowed
from pytest_shark_tune.search_space.where import conjuncts, parse_condition

SMALL = range(-3, 7)


def members(text: str) -> set[tuple[int, int]]:
    return {(knobs["a"], knobs["b"]) for knobs in SearchSpace.of("Toy", {"a": SMALL, "b": SMALL}, text)}


@pytest.mark.parametrize(
    "text",
    [
        "a >= 2 and b == 4",
        "a < b or not b > 1",
        "a + b * 2 - 1 <= 4",
        "a // 2 == b",
        "a % 3 == 1",
        "-a < b",
        "a - -2 != b",
        "0 <= a < b <= 5",
        "a in (1, 3, -2)",
        "a not in [b, 2]",
        "a in {4}",
        "(a == 1 or b == 1) and not (a == b)",
        "  a > 1  ",
    ],
)
def test_a_condition_means_what_it_means_in_python(text: str) -> None:
    expected = {(a, b) for a, b in itertools.product(SMALL, SMALL) if eval(text.strip(), {}, {"a": a, "b": b})}
    assert members(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no condition"),
        ("a >", "invalid syntax"),
        ("a", "'a' is a number where a condition is needed"),
        ("not a", "'a' is a number where a condition is needed"),
        ("a and b > 1", "'a' is a number"),
        ("(a > 1) + 1 == 2", "'a > 1' is a condition where a number is needed"),
        ("a > True", "'True' is not among"),
        ("a == 1.5", "'1.5' is not among"),
        ("a == 'x'", "is not among"),
        ("a ** 2 > 3", r"'a \*\* 2' is not among"),
        ("a / 2 > 3", "'a / 2' is not among"),
        ("a.b > 1", "'a.b' is not among"),
        ("__import__('os') == 1", "is not among"),
        ("a > 1 if a else 2", "is not among"),
        ("a is 3", "something else than"),
        ("a in b", "'b' is no list of values"),
        ("a in ()", "is no list of values"),
        ("a % 0 == 1", "not positive"),
        ("a // -2 == 1", "not positive"),
        ("a == 99999999999", "larger than"),
        ("a >= 1; b", "invalid syntax"),
        ("a\0 > 1", "null bytes"),
        ("(" * 300 + "a", "is no condition"),
        ("a" * 501, "too long"),
    ],
)
def test_what_is_no_condition_is_told_in_words(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_condition(text)


def test_conjuncts_are_the_parts_that_all_hold() -> None:
    assert len(conjuncts(parse_condition("a > 1 and (b > 2 and a < b) and (a == 1 or b == 1)"))) == 4


def test_a_condition_becomes_a_constraint_with_its_own_words() -> None:
    space = SearchSpace.of("Toy", {"a": SMALL, "b": SMALL}).where("a >= 2 and a != b")
    assert space.violated({"a": 3, "b": 3}) == ("a >= 2 and a != b",)
    assert space.knobs[0].domain == (2, 3, 4, 5, 6)
    assert space.knobs[1].domain == tuple(SMALL)
    with pytest.raises(InputError, match="no knob wg in the Toy space; it has a, b"):
        space.where("wg > 1")


def test_a_condition_on_a_space_too_large_still_samples() -> None:
    space = SearchSpace.of("Large", {f"k{index}": range(100) for index in range(6)})
    narrow = space.where("k0 == 7 and k1 < 3 and k5 > k4")
    with pytest.raises(SpaceTooLarge):
        len(narrow)
    drawn = narrow.sample(20, seed=1)
    assert len(drawn) == 20
    assert all(knobs["k0"] == 7 and knobs["k1"] < 3 and knobs["k5"] > knobs["k4"] for knobs in drawn)


WIDE = SearchSpace.of("Wide", {"wg_0": (32, 64, 128), "red_2": (2, 4)})
FLAT = SearchSpace.of("Flat", {"threads": (32, 64)})


def test_a_request_narrows_the_spaces_that_have_the_knobs() -> None:
    request = SpaceRequest(where=("wg_0 >= 64 and red_2 == 4",))
    wide, flat = narrowed([WIDE, FLAT], request, {"wg_0", "red_2", "threads"})
    assert list(wide) == [{"wg_0": 64, "red_2": 4}, {"wg_0": 128, "red_2": 4}]
    assert flat == FLAT


def test_a_space_of_which_nothing_is_left_goes_while_others_stay() -> None:
    assert narrowed([WIDE, FLAT], SpaceRequest(where=("wg_0 > 128",)), {"wg_0", "threads"}) == (FLAT,)
    with pytest.raises(NoSpace, match="--tune-restrict: wg_0 > 128 leaves no config of Wide"):
        narrowed([WIDE], SpaceRequest(where=("wg_0 > 128",)), {"wg_0"})


def test_conditions_add_up() -> None:
    (left,) = narrowed([WIDE], SpaceRequest(where=("wg_0 > 32", "wg_0 < 128")), {"wg_0"})
    assert [knobs["wg_0"] for knobs in left] == [64, 64]


def test_a_name_that_only_other_dispatches_know_changes_nothing_here() -> None:
    assert narrowed([FLAT], SpaceRequest(where=("wg_0 > 128",)), {"wg_0", "threads"}) == (FLAT,)
    with pytest.raises(NoSpace, match="wg_9 is a knob of no space; here there are red_2, wg_0"):
        narrowed([WIDE], SpaceRequest(where=("wg_9 > 1",)), {"wg_0", "red_2"})
