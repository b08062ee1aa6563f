"""A search space as a value: knobs with finite domains, and constraints with messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pytest_shark_tune.dispatch.reasons import NoSpace, SpaceTooLarge
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space.domains import domains_of
from pytest_shark_tune.search_space.enumeration import TooManyRows, join
from pytest_shark_tune.search_space.expression import (
    Apply,
    Column,
    Constant,
    Expression,
    Truth,
    Variable,
    evaluate,
    to_z3,
    variables,
)
from pytest_shark_tune.search_space.smtlib import expression_of, parse_smtlib, text_of
from pytest_shark_tune.search_space.where import conjuncts, parse_condition

__all__ = ["Constraint", "Knob", "NoSpace", "SearchSpace", "SpaceTooLarge"]

ENUMERATION_LIMIT = 2_000_000
"""The most rows of an enumeration at any time; ten knobs of that many rows take 160 MB."""

_DRAWS = 1 << 16
_MOST_DRAWS = 1 << 25


class Knob(msgspec.Struct, frozen=True):
    """A knob."""

    name: str
    domain: tuple[int, ...]
    """The values that it can take, in ascending order."""


class Constraint(msgspec.Struct, frozen=True):
    """A condition that every member fulfils."""

    condition: Expression
    message: str
    """The message for assignments that violate it. Its ``{}`` stand for the values of ``shown``."""
    shown: tuple[Expression, ...] = ()


class SearchSpace(msgspec.Struct, frozen=True, kw_only=True):
    """All configs of one pipeline that are worth a try, as the solutions of constraints over knobs.

    A member is a value for each knob for which values of the helpers exist such that every constraint holds. The
    canonical order of members is lexicographic in the order of ``knobs``.
    """

    pipeline: str
    """The name of the pipeline, without its dialect (``DoubleTilingExpert``)."""
    knobs: tuple[Knob, ...]
    constraints: tuple[Constraint, ...]
    helpers: tuple[Knob, ...] = ()
    """Variables that only constraints mention."""
    pipeline_attribute: str = ""
    """The text of the pipeline's attribute; empty if the space serves another compiler than IREE."""
    knob_dictionary: str = ""
    """The text of the attribute that lowering configs are made from; empty for other compilers than IREE."""

    @classmethod
    def of(cls, pipeline: str, knobs: Mapping[str, Iterable[int]], *conditions: str) -> SearchSpace:
        """Make a space for any compiler.

        Args:
            pipeline: The name of the space.
            knobs: The values of each knob.
            conditions: Conditions as for ``where``.

        Raises:
            InputError: A knob has no value or a value that is no whole number, or a condition cannot be read.
        """
        space = cls(pipeline=pipeline, knobs=_check_knobs(knobs), constraints=())
        for condition in conditions:
            space = space.where(condition)
        return space

    @classmethod
    def from_smtlib(cls, text: str, domains: Mapping[str, Iterable[int]], *, pipeline: str) -> SearchSpace:
        """Make a space from an SMT-LIB script over integers.

        Args:
            text: The script. The message of an assert is the assert itself.
            domains: The values of each knob, in canonical order. Other constants of the script become helpers, with
                domains derived from the asserts.
            pipeline: The name of the space.

        Raises:
            InputError: z3 does not read the text, it has other values than integers, or a knob has no value.
            UnboundedKnob: The asserts leave a helper without bounds.
        """
        return cls.from_z3(parse_smtlib(text), domains, pipeline=pipeline)

    @classmethod
    def from_z3(
        cls, asserts: Mapping[str, Any] | Iterable[Any], domains: Mapping[str, Iterable[int]], *, pipeline: str
    ) -> SearchSpace:
        """Make a space from z3 terms.

        Args:
            asserts: The terms, or a mapping from messages to terms. The default message is the term itself.
            domains: As for ``from_smtlib``.
            pipeline: The name of the space.

        Raises:
            InputError: A term has other values than integers, or a knob has no value.
            UnboundedKnob: The terms leave a helper without bounds.
        """
        worded = asserts.items() if isinstance(asserts, Mapping) else [(text_of(term), term) for term in asserts]
        constraints = tuple(Constraint(expression_of(term), message) for message, term in worded)
        knobs = _check_knobs(domains)
        mentioned = sorted({name for constraint in constraints for name in variables(constraint.condition)})
        helpers = [name for name in mentioned if name not in domains]
        conditions = [*map(_among, knobs), *(constraint.condition for constraint in constraints)]
        found = domains_of([*domains, *helpers], conditions) if helpers else {}
        return cls(
            pipeline=pipeline,
            knobs=knobs,
            constraints=constraints,
            helpers=tuple(Knob(name, found[name]) for name in helpers),
        )

    def where(self, condition: str | Expression) -> SearchSpace:
        """Return the space of members that fulfil a further condition, such as ``"wg_0 >= 64 and red_2 in (4, 8)"``.

        Raises:
            InputError: The text is no condition, or it contains a name that is no knob of this space.
        """
        expression = parse_condition(condition) if isinstance(condition, str) else condition
        for name in sorted(variables(expression)):
            if name not in self.names:
                raise InputError(
                    f"there is no knob {name} in the {self.pipeline} space; it has {', '.join(self.names)}"
                )
        message = condition.strip() if isinstance(condition, str) else text_of(to_z3(expression))
        # A condition on one knob restricts its domain at once, so that fewer draws from a large space are rejected.
        knobs = tuple(
            msgspec.structs.replace(knob, domain=_restrict(knob, part))
            if (part := [term for term in conjuncts(expression) if variables(term) == {knob.name}])
            else knob
            for knob in self.knobs
        )
        constraint = Constraint(expression, message)
        return msgspec.structs.replace(self, knobs=knobs, constraints=(*self.constraints, constraint))

    def __len__(self) -> int:
        """Return the number of members.

        Raises:
            SpaceTooLarge: There are too many members to list.
        """
        return len(self._rows())

    def __iter__(self) -> Iterator[dict[str, int]]:
        """Yield every member in canonical order; raises SpaceTooLarge like ``len``."""
        return map(self._as_knobs, self._rows())

    def __contains__(self, knobs: object) -> bool:
        """Return whether ``knobs``, a mapping from the names of all knobs to values, is a member."""
        return isinstance(knobs, Mapping) and not self.violated(knobs)

    def __bool__(self) -> bool:
        """Return whether there is a member; a space with too many members to list has members."""
        try:
            return len(self) > 0
        except SpaceTooLarge:
            return True

    @property
    def names(self) -> tuple[str, ...]:
        """The knobs' names, in canonical order."""
        return tuple(knob.name for knob in self.knobs)

    def members(self) -> Column:
        """Return all members as rows of an int64 array of shape ``(len(self), len(self.knobs))``, in canonical order.

        Raises:
            SpaceTooLarge: There are too many members to list; ``sample`` draws from such a space.
        """
        return self._rows().copy()

    def violated(self, knobs: Mapping[str, int]) -> tuple[str, ...]:
        """Return the reasons why ``knobs`` is no member, as messages; empty for a member."""
        reasons = [f"the knob {name} has no value" for name in self.names if name not in knobs]
        reasons += [f"there is no knob {name}" for name in knobs if name not in self.names]
        reasons += [
            f"{name} = {value!r} is not a whole number of at most 63 bits"
            for name, value in knobs.items()
            if not _is_integer(value)
        ]
        if reasons:
            return tuple(reasons)
        columns = {name: np.array([knobs[name]], dtype=np.int64) for name in self.names}
        helpers = {helper.name for helper in self.helpers}
        open_constraints = []
        for constraint in self.constraints:
            if variables(constraint.condition) & helpers:
                open_constraints.append(constraint)
            elif not evaluate(constraint.condition, columns).all():
                reasons.append(_filled_message(constraint, columns))
        if not reasons and open_constraints:
            reasons += self._without_helpers(knobs, open_constraints)
        if not reasons:
            reasons += [
                f"{knob.name} = {knobs[knob.name]} is not among the values that it can take"
                for knob in self.knobs
                if knobs[knob.name] not in knob.domain
            ]
        return tuple(reasons)

    def holds(self, knob_sets: Sequence[Mapping[str, int]]) -> tuple[bool, ...]:
        """Return for each of ``knob_sets`` whether it is a member, faster than by `violated`."""
        names = set(self.names)
        sound = [set(knobs) == names and all(map(_is_integer, knobs.values())) for knobs in knob_sets]
        rows = [tuple(knobs[name] for name in self.names) for knobs, fits in zip(knob_sets, sound, strict=True) if fits]
        answers = iter(self._hold(rows))
        return tuple(fits and next(answers) for fits in sound)

    def _hold(self, rows: Sequence[tuple[int, ...]]) -> Iterable[bool]:
        try:
            listed = set(map(tuple, self._rows().tolist()))
        except SpaceTooLarge:
            if self.helpers:
                return [not self.violated(dict(zip(self.names, row, strict=True))) for row in rows]
            table = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.names))
            columns = {name: table[:, position] for position, name in enumerate(self.names)}
            good = np.ones(len(rows), dtype=bool)
            for condition in (*map(_among, self.knobs), *(constraint.condition for constraint in self.constraints)):
                good &= np.broadcast_to(evaluate(condition, columns), good.shape)
            return good.tolist()
        return [row in listed for row in rows]

    def _without_helpers(self, knobs: Mapping[str, int], constraints: Sequence[Constraint]) -> list[str]:
        given = {name: (int(knobs[name]),) for name in self.names}
        domains = given | {helper.name: helper.domain for helper in self.helpers}
        if len(join(domains, [c.condition for c in constraints], limit=ENUMERATION_LIMIT)):
            return []
        words = "; ".join(constraint.message for constraint in constraints)
        return [f"no {' and '.join(helper.name for helper in self.helpers)} can be found such that: {words}"]

    def sample(self, count: int, seed: int) -> tuple[dict[str, int], ...]:
        """Draw different members; every set of that size is equally likely.

        A space too large to list is sampled by rejection: some knobs are enumerated, the others are drawn, and
        assignments that violate a constraint are dropped.

        Args:
            count: The number of members. If there are fewer, all are returned, shuffled.
            seed: The same seed yields the same members.

        Raises:
            SpaceTooLarge: The space can neither be listed nor be sampled, since too few draws are members.
        """
        random = np.random.default_rng(seed)
        try:
            rows = self._rows()
        except SpaceTooLarge:
            return self._draw(count, random)
        picked = random.permutation(len(rows))[:count]
        return tuple(map(self._as_knobs, rows[picked]))

    def smtlib(self) -> str:
        """Return the space as SMT-LIB: declarations of knobs and helpers, and asserts for domains and constraints.

        A comment with its message precedes an assert.
        """
        import z3

        everyone = (*self.knobs, *self.helpers)
        lines = [z3.Int(knob.name).decl().sexpr() for knob in everyone]
        for knob in everyone:
            lines += [f"; the values of {knob.name}", f"(assert {to_z3(_among(knob)).sexpr()})"]
        for constraint in self.constraints:
            lines += [f"; {' '.join(constraint.message.split())}", f"(assert {to_z3(constraint.condition).sexpr()})"]
        return "\n".join(lines) + "\n"

    def _as_knobs(self, row: Column) -> dict[str, int]:
        return dict(zip(self.names, row.tolist(), strict=True))

    def _rows(self) -> Column:
        key = msgspec.msgpack.encode(self)
        if isinstance(rows := _ROWS.get(key), SpaceTooLarge):
            raise rows
        if rows is None:
            domains = {knob.name: knob.domain for knob in (*self.knobs, *self.helpers)}
            try:
                rows = join(domains, [c.condition for c in self.constraints], limit=ENUMERATION_LIMIT)
            except TooManyRows as error:
                reason = f"the {self.pipeline} space has too many members to list ({error}); sample from it instead"
                _store_rows(key, too_large := SpaceTooLarge(reason))
                raise too_large from error
            rows = _canonical_rows(rows[:, : len(self.knobs)], unique=bool(self.helpers))
            rows.setflags(write=False)
            _store_rows(key, rows)
        return rows

    def _draw(self, count: int, random: np.random.Generator) -> tuple[dict[str, int], ...]:
        if self.helpers:
            raise SpaceTooLarge(f"the {self.pipeline} space is too large to list, and helpers make drawing uneven")
        domains = {knob.name: np.array(knob.domain, dtype=np.int64) for knob in self.knobs}
        conditions = sorted((c.condition for c in self.constraints), key=lambda c: len(variables(c)))
        listed, rows = self._largest_part()
        found: dict[tuple[int, ...], None] = {}
        draws = 0
        while len(found) < count:
            if draws >= _MOST_DRAWS:
                raise SpaceTooLarge(
                    f"the {self.pipeline} space is too large to list, and of {draws} assignments drawn only "
                    f"{len(found)} different ones were members, fewer than the {count} asked for"
                )
            draws += _DRAWS
            taken = rows[random.integers(len(rows), size=_DRAWS)]
            columns = {name: taken[:, position] for position, name in enumerate(listed)}
            for name in domains.keys() - listed:
                columns[name] = np.empty(0, dtype=np.int64)
            for name in self.names:
                if name not in listed:
                    columns[name] = random.choice(domains[name], size=_DRAWS)
            for condition in conditions:
                holds = np.broadcast_to(evaluate(condition, columns), columns[self.names[0]].shape)
                columns = {name: column[holds] for name, column in columns.items()}
            members = np.stack([columns[name] for name in self.names], axis=1)
            found.update(dict.fromkeys(map(tuple, members.tolist())))
        return tuple(dict(zip(self.names, row, strict=True)) for row in list(found)[:count])

    def _largest_part(self) -> tuple[tuple[str, ...], Column]:
        """Enumerate as many leading knobs as possible, under the constraints that mention no others."""
        best: tuple[tuple[str, ...], Column] = ((), np.zeros((1, 0), dtype=np.int64))
        for length in range(1, len(self.knobs)):
            part = self.knobs[:length]
            names = {knob.name for knob in part}
            conditions = [c.condition for c in self.constraints if variables(c.condition) <= names]
            if math.prod(len(knob.domain) for knob in part) > 1 << 62:
                break
            try:
                rows = join({knob.name: knob.domain for knob in part}, conditions, limit=ENUMERATION_LIMIT // 4)
            except TooManyRows:
                break
            if not len(rows):
                raise SpaceTooLarge(f"the {self.pipeline} space has no member")
            best = tuple(knob.name for knob in part), rows
        return best


def _check_knobs(domains: Mapping[str, Iterable[int]]) -> tuple[Knob, ...]:
    knobs = []
    for name, given in domains.items():
        values = tuple(given)
        if not values:
            raise InputError(f"the knob {name} has no value to take")
        for value in values:
            if not _is_integer(value):
                raise InputError(f"the knob {name} cannot be {value!r}: values are whole numbers of at most 63 bits")
        knobs.append(Knob(name, tuple(sorted({int(value) for value in values}))))
    return tuple(knobs)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < 1 << 63


def _among(knob: Knob) -> Expression:
    """Return the condition that a knob takes one of its values."""
    equal = tuple(Apply("eq", (Variable(knob.name), Constant(value))) for value in knob.domain)
    return Apply("or", equal) if equal else Truth(False)


def _restrict(knob: Knob, conditions: Sequence[Expression]) -> tuple[int, ...]:
    column = np.array(knob.domain, dtype=np.int64)
    for condition in conditions:
        column = column[np.broadcast_to(evaluate(condition, {knob.name: column}), column.shape)]
    return tuple(column.tolist())


_ROWS: dict[bytes, Column | SpaceTooLarge] = {}
"""The results of enumerating recent spaces: every method needs them, and a frozen struct cannot store them."""
_ROWS_KEPT = 8


def _store_rows(key: bytes, rows: Column | SpaceTooLarge) -> None:
    if len(_ROWS) >= _ROWS_KEPT:
        _ROWS.pop(next(iter(_ROWS)))
    _ROWS[key] = rows


def _canonical_rows(rows: Column, *, unique: bool) -> Column:
    if unique:
        return np.unique(rows, axis=0)
    if not rows.shape[1]:
        return rows
    order: Column = rows[np.lexsort(rows.T[::-1])]
    return order


def _filled_message(constraint: Constraint, columns: Mapping[str, Column]) -> str:
    message = constraint.message
    for shown in constraint.shown:
        message = message.replace("{}", str(int(evaluate(shown, columns)[0])), 1)
    return message
