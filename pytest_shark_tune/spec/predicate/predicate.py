"""What a question is, and how the ops that one asks for lie to those of another."""

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
    "OperandType",
    "Question",
    "Relation",
    "both",
    "exactly",
    "relation",
    "sizes_cover",
    "steps_cover",
    "type_covers",
]

Relation = Literal["equal", "covers", "covered", "overlaps", "apart", "unknown"]
"""How the ops that one matcher matches lie to those of another: ``covers`` says that the first matches all of them."""

CLASSES = {
    "contraction": ("batch", "m", "n", "k"),
    "convolution": ("batch", "output_image", "output_channel", "filter_loop", "input_channel", "depth"),
    "attention": ("batch", "m", "n", "k1", "k2"),
}
"""The classes of dimensions that IREE's matcher of a kind tells, in its order; behind a convolution's come `STEPS`."""
STEPS = ("strides", "dilations")
ANY = -1
"""The step, and in a matcher the size, that stands for any."""
ATTENTIONS = (ATTENTION, ONLINE_ATTENTION)
_LINALG = ("contraction", "convolution")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a dimension: at least ``low``, at most ``high`` (``None``: any), a multiple of ``step``."""

    low: int = 0
    high: int | None = None
    step: int = 1

    @property
    def exact(self) -> int | None:
        """The one size that fulfils this, if there is just one."""
        return self.low if self.low == self.high else None


class OperandType(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an operand's type; ``element`` is empty and ``sizes`` is ``None`` where they may be anything.

    ``element`` is the element type of a tensor, else the whole type. ``bounds`` are conditions on dimensions of an
    operand whose rank is not known.
    """

    element: str = ""
    sizes: tuple[Condition, ...] | None = None
    bounds: dict[int, Condition] = {}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What one matcher asks of an op.

    ``matcher`` is the symbol's name. ``kind`` is as a `RootOp` has it, where ``convolution`` may be a pooling and
    ``other`` anything, unless there are ``attributes``; ``op`` is the op's name where one is asked for. ``inputs`` and
    ``outputs`` are element types in the order of the operands, ``maps`` the texts of the indexing maps. ``sizes`` has a
    condition for each dimension of each class (``batch``, ``m``, ``n``, ``k``, ... as in `RootOp`), in order; a class
    that is missing may be anything. In ``strides`` and ``dilations`` -1 is any. ``operands`` are what is asked of
    operands' types, by position, beyond what ``inputs``, ``outputs`` and ``sizes`` say. ``body`` is a hash that is
    equal for equal bodies, ``attributes`` are the texts of all attributes that the op must have, ``None`` where it may
    have any. ``unread`` names the transform ops that ask something that is not read here: a matcher that has any never
    surely covers another, unless they are alike in every op, as those of equal ``fingerprint`` are.
    """

    matcher: str
    kind: str
    op: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    sizes: dict[str, tuple[Condition, ...]] = {}
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    operands: dict[int, OperandType] = {}
    body: str = ""
    attributes: dict[str, str] | None = None
    unread: tuple[str, ...] = ()
    fingerprint: str = ""


def relation(first: Question, second: Question) -> Relation:
    """How the ops that ``first`` matches lie to those that ``second`` matches.

    ``covers``, ``covered``, ``equal`` and ``apart`` are said only where they are sure; ``overlaps`` where neither
    covers the other and nothing that is read keeps them apart; ``unknown`` where something is not read.
    """
    if first.fingerprint == second.fingerprint:
        return "equal"
    if _are_apart(first, second):
        return "apart"
    covers, covered = _covers(first, second), _covers(second, first)
    if covers or covered:
        return "equal" if covers and covered else "covers" if covers else "covered"
    return "unknown" if first.unread or second.unread else "overlaps"


def _are_apart(first: Question, second: Question) -> bool:
    """Whether no op can be matched by both. An op that is compared whole is of its kind for sure, also of none."""
    pair = (first, second)
    if first.kind != second.kind and all(each.kind != "other" or each.attributes is not None for each in pair):
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
            _types_apart(first.operands[each], second.operands[each])
            for each in first.operands.keys() & second.operands.keys()
        )
    )


def _covers(first: Question, second: Question) -> bool:
    """Whether ``first`` surely matches all that ``second`` matches."""
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
        and all(steps_cover(getattr(first, name), getattr(second, name)) for name in STEPS)
        and all(name in second.sizes and sizes_cover(asked, second.sizes[name]) for name, asked in first.sizes.items())
        and all(
            position in second.operands and type_covers(asked, second.operands[position])
            for position, asked in first.operands.items()
        )
    )


def _steps_apart(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    if not first or not second:
        return False
    if len(first) != len(second):
        return True
    return any(one != other and ANY not in (one, other) for one, other in zip(first, second, strict=True))


def steps_cover(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether all steps that ``second`` allows are allowed by ``first``, which allows any if it is empty."""
    if not first:
        return True
    return len(first) == len(second) and all(one in (ANY, two) for one, two in zip(first, second, strict=True))


def _sizes_apart(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    if len(first) != len(second):
        return True
    return any(_is_empty(both(one, other)) for one, other in zip(first, second, strict=True))


def sizes_cover(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    """Whether all sizes, one for each condition, that fulfil ``second`` fulfil ``first``."""
    return len(first) == len(second) and all(_holds_for(*pair) for pair in zip(first, second, strict=True))


def _types_apart(first: OperandType, second: OperandType) -> bool:
    if first.element and second.element and first.element != second.element:
        return True
    return first.sizes is not None and second.sizes is not None and _sizes_apart(first.sizes, second.sizes)


def type_covers(first: OperandType, second: OperandType) -> bool:
    """Whether all types that ``second`` asks for are ones that ``first`` asks for."""
    if first.element not in ("", second.element):
        return False
    if first.sizes is not None:
        return second.sizes is not None and sizes_cover(first.sizes, second.sizes)
    known = dict(enumerate(second.sizes)) if second.sizes is not None else second.bounds
    return all(dim in known and _holds_for(asked, known[dim]) for dim, asked in first.bounds.items())


def exactly(size: int) -> Condition:
    """The condition that only this size fulfils."""
    return Condition(low=size, high=size)


def both(one: Condition, other: Condition) -> Condition:
    """The condition that holds where both do, with bounds that are multiples themselves."""
    step = math.lcm(one.step, other.step)
    low = max(one.low, other.low)
    highs = [each.high for each in (one, other) if each.high is not None]
    high = min(highs) if highs else None
    low = -(-low // step) * step
    if high is not None:
        high = high // step * step
    return Condition(low=low, high=high, step=1 if low == high else step)


def _is_empty(condition: Condition) -> bool:
    return condition.high is not None and condition.low > condition.high


def _holds_for(wide: Condition, narrow: Condition) -> bool:
    """Whether all sizes that fulfil ``narrow`` fulfil ``wide``."""
    return both(wide, narrow) == both(narrow, narrow)
