"""Match predicates, and how the ops that one predicate matches relate to those of another."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from pytest_shark_tune.dispatch.types import ATTENTION, ONLINE_ATTENTION

__all__ = [
    "ANY",
    "ATTENTIONS",
    "CLASSES",
    "STEPS",
    "Condition",
    "MatchPredicate",
    "OperandType",
    "Relation",
    "both",
    "exactly",
    "relation",
    "sizes_subsume",
    "steps_subsume",
    "type_subsumes",
]

Relation = Literal["equal", "covers", "covered", "overlaps", "apart", "unknown"]
"""How the ops that one predicate matches relate to those of another.

``covers`` means that the first predicate matches all ops that the second matches, ``covered`` the reverse.
"""

CLASSES = {
    "contraction": ("batch", "m", "n", "k"),
    "convolution": ("batch", "output_image", "output_channel", "filter_loop", "input_channel", "depth"),
    "attention": ("batch", "m", "n", "k1", "k2"),
}
"""The classes of dimensions that IREE's matcher of a kind returns, in its order; convolutions have `STEPS` too."""
STEPS = ("strides", "dilations")
ANY = -1
"""The step, and in a matcher the size, that means any."""
ATTENTIONS = (ATTENTION, ONLINE_ATTENTION)
_LINALG = ("contraction", "convolution")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on the size of a dimension."""

    low: int = 0
    """The least size."""
    high: int | None = None
    """The largest size, ``None`` if there is no limit."""
    step: int = 1
    """The size must be a multiple of this."""

    @property
    def exact(self) -> int | None:
        """The size, if only one size fulfils the condition."""
        return self.low if self.low == self.high else None


class OperandType(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on the type of an operand."""

    element: str = ""
    """The element type of a tensor or the whole type of a scalar, empty if it may be any."""
    sizes: tuple[Condition, ...] | None = None
    """The conditions on all dimensions, ``None`` if they may have any size."""
    bounds: dict[int, Condition] = {}
    """The conditions on single dimensions of an operand of unknown rank."""


class MatchPredicate(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of one matcher on an op. An empty field is no condition."""

    matcher: str
    """The name of the matcher."""
    kind: str
    """A kind of `RootOp`. ``convolution`` includes pooling. ``other`` is any kind, unless there are ``attributes``."""
    op: str = ""
    """The name of the op."""
    inputs: tuple[str, ...] = ()
    """The element types of the inputs."""
    outputs: tuple[str, ...] = ()
    """The element types of the outputs."""
    maps: tuple[str, ...] = ()
    """The texts of the indexing maps."""
    sizes: dict[str, tuple[Condition, ...]] = {}
    """A condition for each dimension of each class (``batch``, ``m``, ``n``, ``k``, ... as in `RootOp`), in order."""
    strides: tuple[int, ...] = ()
    """The strides, of which -1 is any."""
    dilations: tuple[int, ...] = ()
    """The dilations, of which -1 is any."""
    operands: dict[int, OperandType] = {}
    """Further conditions on the types of operands, by position."""
    body: str = ""
    """A hash that is equal for equal bodies."""
    attributes: dict[str, str] | None = None
    """The texts of all attributes of the op, ``None`` if it may have any."""
    unread: tuple[str, ...] = ()
    """The transform ops with conditions that are not read here.

    A matcher with such ops is never said to cover another, unless both are equal in every op.
    """
    digest: str = ""
    """A hash that is equal for matchers that are equal in every op."""


def relation(first: MatchPredicate, second: MatchPredicate) -> Relation:
    """Return how the ops that ``first`` matches relate to those that ``second`` matches.

    Returns:
        ``covers``, ``covered``, ``equal`` or ``apart`` if that is certain; ``overlaps`` if neither covers the other and
        no condition keeps them apart; ``unknown`` if a condition was not read.
    """
    if first.digest == second.digest:
        return "equal"
    if _are_apart(first, second):
        return "apart"
    subsumes, subsumed = _subsumes(first, second), _subsumes(second, first)
    if subsumes or subsumed:
        return "equal" if subsumes and subsumed else "covers" if subsumes else "covered"
    return "unknown" if first.unread or second.unread else "overlaps"


def _are_apart(first: MatchPredicate, second: MatchPredicate) -> bool:
    """Return whether no op matches both. The kind of an op that is compared as a whole is certain, even ``other``."""
    pair = (first, second)
    if first.kind != second.kind and all(one.kind != "other" or one.attributes is not None for one in pair):
        return True
    if first.op and second.op and first.op != second.op:
        return True
    if any(one.kind in _LINALG and other.op in ATTENTIONS for one, other in (pair, pair[::-1])):
        return True
    if first.maps and second.maps and first.maps != second.maps:
        return True
    if first.body and second.body and first.body != second.body:
        return True
    if None not in (first.attributes, second.attributes) and first.attributes != second.attributes:
        return True
    return (
        any(one != other for one, other in zip(first.inputs, second.inputs, strict=False))
        or any(one != other for one, other in zip(first.outputs, second.outputs, strict=False))
        or any(_steps_apart(getattr(first, name), getattr(second, name)) for name in STEPS)
        or any(_sizes_apart(first.sizes[name], second.sizes[name]) for name in first.sizes.keys() & second.sizes.keys())
        or any(
            _types_apart(first.operands[position], second.operands[position])
            for position in first.operands.keys() & second.operands.keys()
        )
    )


def _subsumes(first: MatchPredicate, second: MatchPredicate) -> bool:
    """Return whether ``first`` certainly matches all ops that ``second`` matches."""
    if first.unread or (first.kind not in ("other", second.kind)):
        return False
    wanted = ("op", "maps", "body")
    if any(getattr(first, name) and getattr(first, name) != getattr(second, name) for name in wanted):
        return False
    if first.attributes is not None and first.attributes != second.attributes:
        return False
    return (
        second.inputs[: len(first.inputs)] == first.inputs
        and second.outputs[: len(first.outputs)] == first.outputs
        and all(steps_subsume(getattr(first, name), getattr(second, name)) for name in STEPS)
        and all(
            name in second.sizes and sizes_subsume(asked, second.sizes[name]) for name, asked in first.sizes.items()
        )
        and all(
            position in second.operands and type_subsumes(asked, second.operands[position])
            for position, asked in first.operands.items()
        )
    )


def _steps_apart(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    if not first or not second:
        return False
    if len(first) != len(second):
        return True
    return any(one != other and ANY not in (one, other) for one, other in zip(first, second, strict=True))


def steps_subsume(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Return whether ``first`` allows all steps that ``second`` allows; an empty tuple allows any."""
    if not first:
        return True
    return len(first) == len(second) and all(one in (ANY, two) for one, two in zip(first, second, strict=True))


def _sizes_apart(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    if len(first) != len(second):
        return True
    joint = map(both, first, second)
    return any(condition.high is not None and condition.low > condition.high for condition in joint)


def sizes_subsume(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    """Return whether all sizes that fulfil the conditions ``second`` fulfil ``first`` too."""
    return len(first) == len(second) and all(_holds_for(*pair) for pair in zip(first, second, strict=True))


def _types_apart(first: OperandType, second: OperandType) -> bool:
    if first.element and second.element and first.element != second.element:
        return True
    return first.sizes is not None and second.sizes is not None and _sizes_apart(first.sizes, second.sizes)


def type_subsumes(first: OperandType, second: OperandType) -> bool:
    """Return whether all types that fulfil ``second`` fulfil ``first`` too."""
    if first.element not in ("", second.element):
        return False
    if first.sizes is not None:
        return second.sizes is not None and sizes_subsume(first.sizes, second.sizes)
    known = dict(enumerate(second.sizes)) if second.sizes is not None else second.bounds
    return all(dim in known and _holds_for(asked, known[dim]) for dim, asked in first.bounds.items())


def exactly(size: int) -> Condition:
    """Return the condition that only this size fulfils."""
    return Condition(low=size, high=size)


def both(one: Condition, other: Condition) -> Condition:
    """Return the conjunction of two conditions, with bounds that are multiples of its step.

    The size of an open dimension is below all others, and still fulfils a condition that asks nothing.
    """
    one, other = (other if one == Condition() else one), (one if other == Condition() else other)
    step = math.lcm(one.step, other.step)
    low = max(one.low, other.low)
    highs = [condition.high for condition in (one, other) if condition.high is not None]
    high = min(highs) if highs else None
    low = -(-low // step) * step
    if high is not None:
        high = high // step * step
    return Condition(low=low, high=high, step=1 if low == high else step)


def _holds_for(wide: Condition, narrow: Condition) -> bool:
    """Return whether all sizes that fulfil ``narrow`` fulfil ``wide`` too."""
    return both(wide, narrow) == both(narrow, narrow)
