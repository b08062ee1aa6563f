"""Match predicates: the conditions of a matcher on an op, as plain data that can be shown and compared."""

from __future__ import annotations

from pytest_shark_tune.spec.predicate.predicate import Condition, OperandType, Question, Relation, relation
from pytest_shark_tune.spec.predicate.reader import read_questions
from pytest_shark_tune.spec.predicate.text import describe, differences

__all__ = ["Condition", "OperandType", "Question", "Relation", "describe", "differences", "read_questions", "relation"]
