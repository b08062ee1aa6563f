"""Match predicates: the conditions of a matcher on an op, as plain data that can be shown and compared."""

from __future__ import annotations

from pytest_shark_tune.spec.predicate.predicate import Condition, MatchPredicate, OperandType, Relation, relation
from pytest_shark_tune.spec.predicate.reader import read_matcher
from pytest_shark_tune.spec.predicate.text import describe, differences

__all__ = [
    "Condition",
    "MatchPredicate",
    "OperandType",
    "Relation",
    "describe",
    "differences",
    "read_matcher",
    "relation",
]
