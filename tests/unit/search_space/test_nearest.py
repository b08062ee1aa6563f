from __future__ import annotations

import pytest

from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.nearest import nearest_member

SPACE = SearchSpace.of("Toy", {"a": (1, 2, 4, 8, 16), "b": (1, 2, 4, 8, 16), "c": (0, 1)}, "a * b <= 32")


def test_a_member_is_nearest_to_itself() -> None:
    for member in SPACE:
        assert nearest_member(SPACE, member) == member


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        # One knob that changes much is nearer than two that change little.
        ({"a": 16, "b": 16, "c": 1}, {"a": 2, "b": 16, "c": 1}),
        # Of one knob's values the one of the smallest ratio; what is not a value at all counts too.
        ({"a": 6, "b": 2, "c": 0}, {"a": 8, "b": 2, "c": 0}),
        ({"a": 100, "b": 1, "c": 0}, {"a": 16, "b": 1, "c": 0}),
        # What is not wanted at all is free, and of equals the first is taken.
        ({"a": 4}, {"a": 4, "b": 1, "c": 0}),
        ({"b": 3}, {"a": 1, "b": 4, "c": 0}),
    ],
)
def test_the_fewest_knobs_change_and_the_least(wanted: dict[str, int], nearest: dict[str, int]) -> None:
    assert nearest_member(SPACE, wanted) == nearest


def test_a_space_too_large_to_list_is_drawn_from() -> None:
    large = SearchSpace.of("Large", {f"k{index}": range(12) for index in range(8)}, "k0 <= k1 <= k2 <= k3 <= k4")
    wanted = dict.fromkeys(large.names, 3)
    found = nearest_member(large, wanted)
    assert found in large
    assert found == nearest_member(large, wanted)


def test_an_empty_space_has_none() -> None:
    with pytest.raises(ValueError, match="the Toy space has no member"):
        nearest_member(SPACE.where("a > 4").where("a < 4"), {"a": 1})
