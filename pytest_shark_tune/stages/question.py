"""Questions: what a matcher of any spec asks of an op, as plain data that can be shown and compared."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_shark_tune.stages.dispatch import RootOp

__all__ = ["Condition", "Question", "Relation", "describe", "differences", "read_questions", "relation"]

Relation = Literal["equal", "covers", "covered", "overlaps", "apart", "unknown"]
"""How the ops that one matcher matches lie to those of another: ``covers`` says that the first matches all of them."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a dimension: at least ``low``, at most ``high`` (``None``: any), a multiple of ``step``."""

    low: int = 0
    high: int | None = None
    step: int = 1


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What one matcher asks of an op.

    ``matcher`` is the symbol's name. ``kind`` is as a `RootOp` has it, ``op`` the op's name where one is asked for.
    ``inputs`` and ``outputs`` are element types in the order of the operands, ``maps`` the texts of the indexing
    maps. ``sizes`` has a condition for each dimension of each class (``batch``, ``m``, ``n``, ``k``, ... as in
    `RootOp`), in order; a class that is missing may be anything. ``operands`` are the types that operands must be
    cast-compatible with, by position. ``body`` is a text that is equal for equal bodies. ``unread`` names the
    transform ops that ask something that is not read here: a matcher that has any never surely covers another.
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
    operands: dict[int, str] = {}
    body: str = ""
    unread: tuple[str, ...] = ()


def read_questions(spec: str) -> tuple[Question, ...]:
    """What each matcher of a spec asks, in the order in which they are tried, as ``spec.read_spec`` lists them.

    Raises:
        InputError: the text is no tuning spec.
    """
    raise NotImplementedError


def relation(first: Question, second: Question) -> Relation:
    """How the ops that ``first`` matches lie to those that ``second`` matches."""
    raise NotImplementedError


def differences(question: Question, root: RootOp) -> tuple[str, ...]:
    """In what ``root`` differs from what is asked, in words; empty where it would match as far as is read.

    As in ``its lhs has elements f16 instead of f32`` or ``its k is 256 instead of 512``.
    """
    raise NotImplementedError


def describe(question: Question) -> str:
    """What is matched, in a few words: ``contraction 512x512x512 f32, f32 -> f32``; bounds as ``m in 1..64``."""
    raise NotImplementedError
