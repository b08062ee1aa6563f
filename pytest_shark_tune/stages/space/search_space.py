"""A search space as a value: knobs with finite domains, constraints with a message each, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.stages.space.expression import Column, Expression, evaluate, to_z3, variables
from pytest_shark_tune.stages.space.join import TooManyRows, join

__all__ = ["Constraint", "Knob", "NoSpace", "SearchSpace", "SpaceTooLarge"]

ENUMERATION_LIMIT = 2_000_000
"""The most rows that an enumeration holds at any time; ten knobs of that many rows take 160 MB."""

_DRAWS = 1 << 16
_MOST_DRAWS = 1 << 25


class NoSpace(SharkTuneError):
    """No search space covers an op on a target; the message says why."""


class SpaceTooLarge(SharkTuneError):
    """A space has too many members to list, or too few of them among its assignments to draw from; it says which."""


class Knob(msgspec.Struct, frozen=True):
    """A knob and the values that it can take, ascending."""

    name: str
    domain: tuple[int, ...]


class Constraint(msgspec.Struct, frozen=True):
    """A condition that every member fulfils, with the message for those that do not.

    Each ``{}`` in ``message`` stands for the value of the expression at that place in ``shown``.
    """

    condition: Expression
    message: str
    shown: tuple[Expression, ...] = ()


class SearchSpace(msgspec.Struct, frozen=True, kw_only=True):
    """Every configuration of one pipeline that is worth a try, as the solutions of constraints over knobs.

    ``pipeline`` is its name without a dialect (``DoubleTilingExpert``). A member is a value for each of
    ``knobs`` for which values of ``helpers`` exist such that every constraint holds. The canonical order of
    members is lexicographic in the order of ``knobs``.

    ``pipeline_attribute`` and ``knob_dictionary`` are the texts of the attributes that a member's lowering config
    is made from; both are empty in a space that serves another compiler than IREE.
    """

    pipeline: str
    knobs: tuple[Knob, ...]
    constraints: tuple[Constraint, ...]
    helpers: tuple[Knob, ...] = ()
    pipeline_attribute: str = ""
    knob_dictionary: str = ""

    def __len__(self) -> int:
        """The number of members.

        Raises:
            SpaceTooLarge: there are too many to count by listing them.
        """
        return len(self._rows())

    def __iter__(self) -> Iterator[dict[str, int]]:
        """Every member, in canonical order; raises SpaceTooLarge like ``len``."""
        return map(self._as_knobs, self._rows())

    def __contains__(self, knobs: object) -> bool:
        """Whether ``knobs``, a mapping from every knob's name to a value, is a member."""
        return isinstance(knobs, Mapping) and not self.violated(knobs)

    def __bool__(self) -> bool:
        """Whether there is a member, without listing them all where there are too many to list."""
        try:
            return len(self) > 0
        except SpaceTooLarge:
            return True

    @property
    def names(self) -> tuple[str, ...]:
        """The knobs' names, in canonical order."""
        return tuple(knob.name for knob in self.knobs)

    def members(self) -> Column:
        """Every member as a row of an int64 array of shape ``(len(self), len(self.knobs))``, in canonical order.

        Raises:
            SpaceTooLarge: there are more than fit in memory at once; ``sample`` draws from such a space.
        """
        return self._rows().copy()

    def violated(self, knobs: Mapping[str, int]) -> tuple[str, ...]:
        """Why ``knobs`` is no member, one message in words for each reason; empty where it is one."""
        reasons = [f"the knob {name} has no value" for name in self.names if name not in knobs]
        reasons += [f"there is no knob {name}" for name in knobs if name not in self.names]
        if reasons:
            return tuple(reasons)
        columns = {name: np.array([knobs[name]], dtype=np.int64) for name in self.names}
        helpers = {helper.name for helper in self.helpers}
        open_constraints = []
        for constraint in self.constraints:
            if variables(constraint.condition) & helpers:
                open_constraints.append(constraint)
            elif not evaluate(constraint.condition, columns).all():
                reasons.append(_worded(constraint, columns))
        if not reasons and open_constraints:
            reasons += self._without_helpers(knobs, open_constraints)
        if not reasons:
            reasons += [
                f"{knob.name} = {knobs[knob.name]} is not among the values that it can take"
                for knob in self.knobs
                if knobs[knob.name] not in knob.domain
            ]
        return tuple(reasons)

    def _without_helpers(self, knobs: Mapping[str, int], constraints: Sequence[Constraint]) -> list[str]:
        given = {name: (int(knobs[name]),) for name in self.names}
        domains = given | {helper.name: helper.domain for helper in self.helpers}
        if len(join(domains, [c.condition for c in constraints], limit=ENUMERATION_LIMIT)):
            return []
        words = "; ".join(constraint.message for constraint in constraints)
        return [f"no {' and '.join(helper.name for helper in self.helpers)} can be found such that: {words}"]

    def sample(self, count: int, seed: int) -> tuple[dict[str, int], ...]:
        """``count`` different members, every set of them equally likely, the same for the same ``seed``.

        All members, shuffled, where there are no more than ``count``. A space too large to list is drawn from by
        rejection: a part of the knobs is enumerated, the rest drawn, and what violates a constraint dropped.

        Raises:
            SpaceTooLarge: the space can neither be listed nor be drawn from, as too few draws are members.
        """
        random = np.random.default_rng(seed)
        try:
            rows = self._rows()
        except SpaceTooLarge:
            return self._drawn(count, random)
        picked = random.permutation(len(rows))[:count]
        return tuple(map(self._as_knobs, rows[picked]))

    def smtlib(self) -> str:
        """The space as SMT-LIB: declarations of knobs and helpers, their domains and the constraints as asserts."""
        import z3

        solver = z3.Solver()
        for knob in (*self.knobs, *self.helpers):
            symbol = z3.Int(knob.name)
            solver.add(z3.Or(*(symbol == value for value in knob.domain)))
        for constraint in self.constraints:
            solver.add(to_z3(constraint.condition))
        return str(solver.to_smt2()).replace("(check-sat)\n", "")

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
                _keep(key, too_large := SpaceTooLarge(reason))
                raise too_large from error
            rows = _canonical(rows[:, : len(self.knobs)], unique=bool(self.helpers))
            rows.setflags(write=False)
            _keep(key, rows)
        return rows

    def _drawn(self, count: int, random: np.random.Generator) -> tuple[dict[str, int], ...]:
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
        """As many leading knobs as can be enumerated together, by the constraints that mention no other."""
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


# What enumerating recent spaces gave: a frozen struct cannot keep it, and every method asks for it.
_ROWS: dict[bytes, Column | SpaceTooLarge] = {}
_ROWS_KEPT = 8


def _keep(key: bytes, rows: Column | SpaceTooLarge) -> None:
    if len(_ROWS) >= _ROWS_KEPT:
        _ROWS.pop(next(iter(_ROWS)))
    _ROWS[key] = rows


def _canonical(rows: Column, *, unique: bool) -> Column:
    if unique:
        return np.unique(rows, axis=0)
    if not rows.shape[1]:
        return rows
    order: Column = rows[np.lexsort(rows.T[::-1])]
    return order


def _worded(constraint: Constraint, columns: Mapping[str, Column]) -> str:
    message = constraint.message
    for shown in constraint.shown:
        message = message.replace("{}", str(int(evaluate(shown, columns)[0])), 1)
    return message
