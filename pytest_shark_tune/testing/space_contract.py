"""The contract of search spaces, as tests to run on every new space.

In a test module, derive a class with a name that pytest collects, and override the fixture ``space``::

    class TestMySpace(SpaceContract):
        @pytest.fixture
        def space(self) -> SearchSpace:
            return SearchSpace.of("Mine", {"tile": (8, 16, 32)}, "tile <= 16")

A fixture with parameters tests several spaces. Since z3 takes long to list a space, only slices of large spaces are
listed twice: some knobs have the values of a member, and the others are free.
"""

from __future__ import annotations

from functools import cache
from itertools import islice, pairwise

import msgspec
import numpy as np
import pytest

from pytest_shark_tune.search_space.smtlib import parse_smtlib
from pytest_shark_tune.search_space.space import SearchSpace, SpaceTooLarge

__all__ = ["SpaceContract"]

_SLICES = 3
_LARGEST_SLICE = 25
_SAMPLE = 50


class SpaceContract:
    """The tests, with the fixture ``space`` to override. An intentionally empty space does not belong here."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError("override the fixture space")

    def test_it_has_members(self, space: SearchSpace) -> None:
        """An empty space is no space: its builder must raise NoSpace with the reason instead."""
        assert space
        assert space.sample(1, seed=0)

    def test_knobs_are_named_once_and_have_finite_ascending_domains(self, space: SearchSpace) -> None:
        """Records and the canonical order depend on names and domains."""
        everyone = (*space.knobs, *space.helpers)
        assert len({knob.name for knob in everyone}) == len(everyone)
        for knob in everyone:
            assert list(knob.domain) == sorted(set(knob.domain)), knob.name

    def test_enumeration_equals_z3(self, space: SearchSpace) -> None:
        """The fast enumerator lists exactly the solutions that a solver finds in the space's SMT-LIB form."""
        for part in _slices(space):
            listed = {tuple(row) for row in part.members().tolist()}
            # One solution too many is enough to fail.
            assert _solutions(part, len(listed) + 1) == listed

    def test_enumeration_is_in_canonical_order_and_without_repeats(self, space: SearchSpace) -> None:
        """The order is lexicographic in the order of the knobs, so that equal spaces yield equal plans."""
        part = _slices(space)[0] if _is_too_large(space) else space
        rows = part.members().tolist()
        assert all(first < second for first, second in pairwise(rows))
        assert [tuple(knobs.values()) for knobs in islice(part, _SAMPLE)] == [tuple(row) for row in rows[:_SAMPLE]]

    def test_membership_agrees_with_enumeration(self, space: SearchSpace) -> None:
        """A member with one changed knob is a member exactly if it is listed."""
        random = np.random.default_rng(0)
        listed = None if _is_too_large(space) else {tuple(row) for row in space.members().tolist()}
        for knobs in space.sample(_SAMPLE // 2, seed=2):
            assert knobs in space
            knob = space.knobs[random.integers(len(space.knobs))]
            neighbour = knobs | {knob.name: int(random.choice(knob.domain))}
            if listed is not None:
                values = tuple(neighbour[name] for name in space.names)
                assert (neighbour in space) == (values in listed)

    def test_what_is_violated_is_said_in_words(self, space: SearchSpace) -> None:
        """A member violates nothing; other knobs have reasons with all gaps filled."""
        (member,) = space.sample(1, seed=3)
        assert space.violated(member) == ()
        for knob in space.knobs:
            outside = member | {knob.name: max(knob.domain) + 1}
            assert outside not in space
            assert all(reason and "{}" not in reason for reason in space.violated(outside))
            assert space.violated(outside)
            assert any(knob.name in reason for reason in space.violated(_without(member, knob.name)))
        assert any("no_such_knob" in reason for reason in space.violated(member | {"no_such_knob": 1}))

    def test_every_constraint_has_a_message(self, space: SearchSpace) -> None:
        """The message has a gap for each value that it shows."""
        for constraint in space.constraints:
            assert constraint.message.strip()
            assert constraint.message.count("{}") == len(constraint.shown)

    def test_a_sample_is_made_of_members_without_repeats(self, space: SearchSpace) -> None:
        """There are as many as requested, or all."""
        drawn = space.sample(_SAMPLE, seed=4)
        assert len({tuple(knobs.items()) for knobs in drawn}) == len(drawn)
        assert len(drawn) == (_SAMPLE if _is_too_large(space) else min(_SAMPLE, len(space)))
        assert all(tuple(knobs) == space.names and knobs in space for knobs in drawn)

    def test_a_sample_follows_its_seed(self, space: SearchSpace) -> None:
        """The same seed yields the same sample, and another seed another sample if there are enough members."""
        assert space.sample(_SAMPLE, seed=5) == space.sample(_SAMPLE, seed=5)
        if _is_too_large(space) or len(space) > 2 * _SAMPLE:
            assert space.sample(_SAMPLE, seed=5) != space.sample(_SAMPLE, seed=6)

    def test_it_survives_being_written_down(self, space: SearchSpace) -> None:
        """Plans are cached and read by other processes."""
        assert msgspec.json.decode(msgspec.json.encode(space), type=SearchSpace) == space

    def test_a_condition_narrows_it(self, space: SearchSpace) -> None:
        """``where`` keeps exactly the members that fulfil the condition."""
        (member,) = space.sample(1, seed=7)
        name = space.names[-1]
        narrower = space.where(f"{name} == {member[name]}")
        assert member in narrower
        if not _is_too_large(space):
            assert list(narrower) == [knobs for knobs in space if knobs[name] == member[name]]


@cache  # The answer takes counting the members, and several tests need it.
def _is_too_large(space: SearchSpace) -> bool:
    try:
        len(space)
    except SpaceTooLarge:
        return True
    return False


@cache
def _slices(space: SearchSpace) -> tuple[SearchSpace, ...]:
    """Return the space if it is small, else small parts of it."""
    if not _is_too_large(space) and len(space) <= _LARGEST_SLICE:
        return (space,)
    random = np.random.default_rng(1)
    parts = []
    for member in space.sample(_SLICES, seed=1):
        part = space
        for index in random.permutation(len(space.knobs)):
            name = space.knobs[index].name
            part = part.where(f"{name} == {member[name]}")
            if not _is_too_large(part) and len(part) <= _LARGEST_SLICE:
                break
        parts.append(part)
    return tuple(parts)


def _solutions(space: SearchSpace, most: int) -> set[tuple[int, ...]]:
    import z3

    solver = z3.Solver()
    solver.add(*parse_smtlib(space.smtlib()))
    symbols = [z3.Int(name) for name in space.names]
    found: set[tuple[int, ...]] = set()
    while len(found) < most and solver.check() == z3.sat:
        model = solver.model()
        values = tuple(model.eval(symbol, model_completion=True).as_long() for symbol in symbols)
        found.add(values)
        solver.add(z3.Or(*(symbol != value for symbol, value in zip(symbols, values, strict=True))))
    return found


def _without(knobs: dict[str, int], name: str) -> dict[str, int]:
    return {key: value for key, value in knobs.items() if key != name}
