from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import pytest

from pytest_shark_tune.search_space.domains import UnboundedKnob, domains_of
from pytest_shark_tune.search_space.expression import Apply, Constant, Expression, Lookup, Variable
from pytest_shark_tune.search_space.space import Constraint, Knob, SearchSpace, SpaceTooLarge
from tests.factories import solutions

A, B, H = Variable("a"), Variable("b"), Variable("h")


def le(left: Expression, right: Expression) -> Expression:
    return Apply("le", (left, right))


def multiple(number: Expression, of: Expression) -> Expression:
    return Apply("eq", (Apply("mod", (number, of)), Constant(0)))


def small_space() -> SearchSpace:
    """Pairs of 1 to 12 where a divides b and their product is at most 40."""
    return SearchSpace(
        pipeline="Toy",
        knobs=(Knob("b", tuple(range(1, 13))), Knob("a", tuple(range(1, 13)))),
        constraints=(
            Constraint(multiple(B, A), "b ({}) must be a multiple of a ({})", (B, A)),
            Constraint(le(Apply("mul", (A, B)), Constant(40)), "a * b must be at most 40"),
        ),
    )


def small_members() -> list[dict[str, int]]:
    pairs = itertools.product(range(1, 13), range(1, 13))
    return [{"b": b, "a": a} for b, a in pairs if b % a == 0 and a * b <= 40]


def large_space(knobs: int = 12, values: int = 12) -> SearchSpace:
    names = [f"k{index}" for index in range(knobs)]
    rising = [
        Constraint(le(Variable(one), Variable(other)), f"{one} <= {other}")
        for one, other in itertools.pairwise(names[: knobs // 2])
    ]
    return SearchSpace(
        pipeline="Huge", knobs=tuple(Knob(name, tuple(range(values))) for name in names), constraints=tuple(rising)
    )


def test_enumeration_is_complete_and_in_canonical_order() -> None:
    space = small_space()
    assert list(space) == small_members()
    assert len(space) == len(small_members())
    assert space.members().tolist() == [[knobs["b"], knobs["a"]] for knobs in small_members()]


def test_enumeration_equals_z3_with_blocking_clauses() -> None:
    space = small_space()
    assert solutions(space) == {tuple(row) for row in space.members().tolist()}


def test_membership_says_no_in_words() -> None:
    space = small_space()
    assert {"a": 3, "b": 9} in space
    assert space.violated({"a": 3, "b": 9}) == ()
    assert {"a": 4, "b": 9} not in space
    assert space.violated({"a": 4, "b": 9}) == ("b (9) must be a multiple of a (4)",)
    assert space.violated({"a": 5, "b": 11}) == ("b (11) must be a multiple of a (5)", "a * b must be at most 40")
    assert space.violated({"a": 1, "b": 13}) == ("b = 13 is not among the values that it can take",)
    assert space.violated({"a": 1}) == ("the knob b has no value",)
    assert space.violated({"a": 1, "b": 1, "c": 1}) == ("there is no knob c",)
    assert 3 not in space


def test_helpers_are_hidden_and_found() -> None:
    """b is a times some h from 2 to 3: the helper decides membership and never shows."""
    space = SearchSpace(
        pipeline="Toy",
        knobs=(Knob("a", (1, 2, 3)), Knob("b", tuple(range(1, 13)))),
        helpers=(Knob("h", (2, 3)),),
        constraints=(
            Constraint(Apply("eq", (B, Apply("mul", (A, H)))), "b == a * h"),
            Constraint(Apply("distinct", (A, Constant(3))), "a must not be 3"),
        ),
    )
    assert list(space) == [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 4}, {"a": 2, "b": 6}]
    assert space.violated({"a": 2, "b": 6}) == ()
    assert space.violated({"a": 2, "b": 5}) == ("no h can be found such that: b == a * h",)
    assert space.violated({"a": 3, "b": 5}) == ("a must not be 3",)


def test_a_sample_is_a_set_of_members_and_the_same_for_a_seed() -> None:
    space = small_space()
    drawn = space.sample(10, 7)
    assert drawn == space.sample(10, 7)
    assert drawn != space.sample(10, 8)
    assert all(knobs in space for knobs in drawn)
    assert len({tuple(knobs.items()) for knobs in drawn}) == 10
    everything = space.sample(10_000, 7)
    assert sorted(tuple(k.items()) for k in everything) == sorted(tuple(k.items()) for k in small_members())


def test_a_sample_is_uniform() -> None:
    space, draws = small_space(), 2000
    counts = Counter(tuple(space.sample(1, seed)[0].items()) for seed in range(draws))
    expected = draws / len(space)
    statistic = sum((counts[tuple(knobs.items())] - expected) ** 2 / expected for knobs in space)
    # 26 members: the 99.9th percentile of chi-squared with 25 degrees of freedom; the seeds are fixed.
    assert len(space) == 26
    assert statistic < 52.6


def test_a_space_too_large_says_so_and_still_samples() -> None:
    space = large_space()
    with pytest.raises(SpaceTooLarge, match="too many members to list"):
        len(space)
    with pytest.raises(SpaceTooLarge, match="sample from it"):
        space.members()
    assert space
    drawn = space.sample(300, 3)
    assert drawn == space.sample(300, 3)
    assert all(knobs in space for knobs in drawn)
    assert len({tuple(knobs.items()) for knobs in drawn}) == 300


def test_a_sample_of_a_space_too_large_is_uniform() -> None:
    """k0 to k5 rise: of the rising sixes of 0 to 11, those with k0 = 0 are C(16, 5) of C(17, 6)."""
    drawn = large_space().sample(3000, 11)
    share = sum(knobs["k0"] == 0 for knobs in drawn) / len(drawn)
    assert share == pytest.approx(4368 / 12376, abs=0.035)
    last = Counter(knobs["k11"] for knobs in drawn)
    assert max(last.values()) < 1.4 * 3000 / 12
    assert min(last.values()) > 0.6 * 3000 / 12


def test_a_large_space_with_hardly_a_member_is_told_not_searched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_shark_tune.search_space.space._MOST_DRAWS", 1 << 17)
    needle = Apply("eq", (Apply("add", tuple(Variable(f"k{i}") for i in range(14))), Constant(14 * 11)))
    space = large_space(14)
    rare = msgspec.structs.replace(space, constraints=(Constraint(needle, "all must be 11"),))
    with pytest.raises(SpaceTooLarge, match="fewer than the 5 asked for"):
        rare.sample(5, 0)


def test_a_contradiction_gives_an_empty_space() -> None:
    never = Constraint(Apply("lt", (A, A)), "a < a")
    space = SearchSpace(pipeline="Toy", knobs=(Knob("a", (1, 2)),), constraints=(never,))
    assert len(space) == 0
    assert not space
    assert space.sample(3, 0) == ()


def test_a_space_survives_being_written_down() -> None:
    space = small_space()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(space), type=SearchSpace) == space


@pytest.mark.parametrize(
    ("conditions", "domain"),
    [
        ([le(Constant(2), A), le(A, Constant(5))], (2, 3, 4, 5)),
        ([le(Constant(1), A), multiple(Constant(28), A)], (1, 2, 4, 7, 14, 28)),
        ([Apply("or", tuple(Apply("eq", (A, Constant(v))) for v in (4, 9, 1)))], (1, 4, 9)),
        ([Apply("eq", (Apply("mul", (A, Constant(3))), Constant(12)))], (4,)),
        ([Apply("eq", (Lookup(A, (0, 1, 2), (16, 32, 8)), Constant(16))), le(A, Constant(9))], (0,)),
        ([Apply("not", (Apply("gt", (A, Constant(3))),)), Apply("gt", (A, Constant(0)))], (1, 2, 3)),
        ([le(Constant(1), A), le(Apply("mul", (A, A)), Constant(50))], tuple(range(1, 8))),
        ([le(Constant(1), A), le(Apply("add", (A, Constant(3))), Constant(5))], (1, 2)),
        ([le(Constant(5), A), le(Apply("sub", (A, Constant(3))), Constant(4))], (5, 6, 7)),
        ([le(Constant(0), A), Apply("eq", (Apply("div", (A, Constant(4))), Constant(2)))], (8, 9, 10, 11)),
        ([Apply("eq", (Apply("mul", (A, Constant(3))), Constant(-6)))], (-2,)),
        ([le(Constant(-7), Apply("mul", (A, Constant(2)))), le(A, Constant(-1))], (-3, -2, -1)),
        ([Apply("eq", (A, Constant(1))), Apply("eq", (A, Constant(2)))], ()),
    ],
)
def test_domains_are_read_off_the_constraints(conditions: list[Expression], domain: tuple[int, ...]) -> None:
    assert domains_of(["a"], conditions) == {"a": domain}


def test_domains_follow_from_other_knobs() -> None:
    positive = [le(Constant(1), A), le(Constant(1), B), le(B, Constant(8))]
    assert domains_of(["a", "b"], [*positive, multiple(B, A)])["a"] == tuple(range(1, 9))
    product = Apply("eq", (Apply("mul", (A, B)), Constant(12)))
    assert domains_of(["a", "b"], [*positive, product]) == {"a": (2, 3, 4, 6, 12), "b": (1, 2, 3, 4, 6)}


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([le(Constant(1), A)], "no upper bound of a"),
        ([le(A, Constant(1))], "no lower bound of a"),
        ([le(Constant(0), A), le(A, Constant(1 << 40))], "more than .* values to a"),
    ],
)
def test_a_knob_without_bounds_is_told(conditions: list[Expression], message: str) -> None:
    with pytest.raises(UnboundedKnob, match=message):
        domains_of(["a"], conditions)


def test_many_are_told_apart_as_one_by_one() -> None:
    space = SearchSpace.of("Blocked", {"a": (1, 2, 4), "b": (1, 2, 4)}, "a * b <= 8")
    large = SearchSpace.of(
        "Large", {name: tuple(range(1, 65)) for name in "abcdef"}, "a * b <= 64", "c <= d", "e in (3, 5)"
    )
    for each in (space, large):
        tried: list[dict[str, int]] = [*each.sample(5, seed=1), dict.fromkeys(each.names, 3), {"a": 1}, {}]
        tried += [dict.fromkeys(each.names, 64), dict.fromkeys(each.names, 1 << 70)]
        assert each.holds(tried) == tuple(not each.violated(knobs) for knobs in tried)
        assert {True, False} == set(each.holds(tried))
