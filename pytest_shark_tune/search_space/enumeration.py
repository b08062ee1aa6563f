"""Enumerating all assignments that fulfil constraints, by joining one variable at a time over numpy columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pytest_shark_tune.search_space.expression import Apply, Column, Expression, Variable, evaluate, variables

__all__ = ["TooManyRows", "join"]

_PROBES = 24
_CHUNK = 1 << 20


class TooManyRows(Exception):
    """More partial assignments fulfil the constraints than the caller allows."""


class _Scoped:
    """A condition with its variables, which are computed once."""

    def __init__(self, condition: Expression) -> None:
        self.condition = condition
        self.names = variables(condition)


def join(domains: Mapping[str, Sequence[int]], conditions: Iterable[Expression], *, limit: int) -> Column:
    """Enumerate the assignments that fulfil all conditions.

    The next variable to join is the one that leaves the fewest rows, estimated from a few rows. A variable that a
    condition sets equal to known variables is computed instead of joined. A condition filters as soon as its variables
    are bound.

    Args:
        domains: The values of each variable.
        conditions: The conditions.
        limit: The most rows at any time.

    Returns:
        One row per assignment, in no particular order, with columns in the order of ``domains``.

    Raises:
        TooManyRows: There were more than ``limit`` rows.
    """
    values = {name: np.array(domain, dtype=np.int64) for name, domain in domains.items()}
    waiting = [_Scoped(condition) for condition in conditions]
    bound: dict[str, Column] = {}
    length = 1
    if any(not scoped.names and not evaluate(scoped.condition, {}).all() for scoped in waiting):
        return np.empty((0, len(values)), dtype=np.int64)
    waiting = [scoped for scoped in waiting if scoped.names]
    while len(bound) < len(values):
        name = _next_variable(values, bound, waiting, length)
        ready = [scoped for scoped in waiting if name in scoped.names and scoped.names <= bound.keys() | {name}]
        waiting = [scoped for scoped in waiting if scoped not in ready]
        bound, length = _extend(bound, length, name, values[name], ready, limit)
    return np.stack([bound[name] for name in values], axis=1) if values else np.zeros((1, 0), dtype=np.int64)


def _next_variable(
    values: Mapping[str, Column], bound: Mapping[str, Column], waiting: Sequence[_Scoped], length: int
) -> str:
    left = [name for name in values if name not in bound]
    if len(left) == 1 or not length:
        return left[0]
    picks = np.unique(np.linspace(0, length - 1, _PROBES).astype(np.int64))
    probed = {name: column[picks] for name, column in bound.items()}
    sizes: dict[str, float] = {}
    for name in left:
        ready = [scoped for scoped in waiting if name in scoped.names and scoped.names <= bound.keys() | {name}]
        if not ready and bound:
            sizes[name] = float(len(values[name]))
            continue
        _, kept = _extend(probed, len(picks) if bound else 1, name, values[name], ready, _CHUNK * _PROBES)
        sizes[name] = kept / (len(picks) if bound else 1)
    # Among equals, the variable in most conditions comes first, so that they filter earlier.
    return min(left, key=lambda name: (sizes[name], -sum(name in scoped.names for scoped in waiting)))


def _extend(
    bound: Mapping[str, Column], length: int, name: str, domain: Column, ready: Sequence[_Scoped], limit: int
) -> tuple[dict[str, Column], int]:
    for scoped in ready:
        if (computed := _definition(scoped.condition, name)) is not None and variables(computed) <= bound.keys():
            column = np.broadcast_to(evaluate(computed, bound), length)
            extended = {**bound, name: column}
            return _filter(extended, np.isin(column, domain), [other for other in ready if other is not scoped])
    step = max(1, _CHUNK // max(1, len(domain)))
    parts: list[dict[str, Column]] = []
    total = 0
    for start in range(0, length, step):
        count = min(step, length - start)
        rows = {key: np.repeat(column[start : start + count], len(domain)) for key, column in bound.items()}
        rows[name] = np.tile(domain, count)
        part, kept = _filter(rows, None, ready)
        total += kept
        if total > limit:
            raise TooManyRows(f"more than {limit} partial assignments when {name} is joined")
        parts.append(part)
    if not parts:
        return {key: np.empty(0, dtype=np.int64) for key in (*bound, name)}, 0
    return {key: np.concatenate([part[key] for part in parts]) for key in (*bound, name)}, total


def _filter(rows: dict[str, Column], holds: Column | None, ready: Sequence[_Scoped]) -> tuple[dict[str, Column], int]:
    length = max(len(column) for column in rows.values())
    if holds is not None:
        rows = {key: column[holds] for key, column in rows.items()}
        length = int(holds.sum())
    for scoped in sorted(ready, key=lambda scoped: len(scoped.names)):
        kept = np.broadcast_to(evaluate(scoped.condition, rows), length)
        if not kept.all():
            rows = {key: column[kept] for key, column in rows.items()}
            length = math.prod(next(iter(rows.values())).shape)
    return rows, length


def _definition(condition: Expression, name: str) -> Expression | None:
    """Return the expression that ``condition`` sets equal to ``name``, or ``None``."""
    match condition:
        case Apply(operator="eq", operands=(Variable(name=found), other)) if found == name:
            return None if name in variables(other) else other
        case Apply(operator="eq", operands=(other, Variable(name=found))) if found == name:
            return None if name in variables(other) else other
    return None
