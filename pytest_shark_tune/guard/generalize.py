"""Generalizing with measurements: the configs of entries that differ in a size are compared at all of the sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.guard.sizes import tasks_at, unseen_tasks
from pytest_shark_tune.measurement.timing import GUARD_ROUND
from pytest_shark_tune.records.generalize import (
    MOST_REGRET,
    Family,
    Run,
    cover,
    general_record,
    regret,
    root_of,
)
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.tuning.runner import Entrants
from pytest_shark_tune.tuning.session import Session

__all__ = ["Generalized", "generalize"]

_ROUNDS = 3


class Generalized(NamedTuple):
    """The general entries that take the place of a family's."""

    records: tuple[WinnerRecord, ...]
    """Their records."""
    notes: tuple[str, ...]
    """What was measured, a sentence for each entry and each size that keeps its own."""


def generalize(family: Family, session: Session) -> Generalized:
    """Measure the configs of a family at its sizes, and make the fewest entries that serve them.

    An entry is then tried at sizes between, which nobody has measured: it must be correct there, and not slower than
    the default by more than the limit. If it is not, it is divided at that size.

    Raises:
        InputError: The compiler rejects an op.
    """
    ratios = _measure_all(family, session)
    records: list[WinnerRecord] = []
    notes: list[str] = []
    waiting = cover(ratios)
    served = {number for run in waiting for number in range(run.first, run.last + 1)}
    notes += [
        f"{record.dispatch} keeps its entry: no config that was tried serves it"
        for number, record in enumerate(family.records)
        if number not in served
    ]
    while waiting:
        run = waiting.pop(0)
        if run.first == run.last:
            notes.append(f"{family.records[run.first].dispatch} keeps its entry: no neighbour shares a config with it")
            continue
        record = general_record(family, run, ratios)
        wrong = _first_failure(record, family, session)
        if wrong is not None:
            size, why = wrong
            notes.append(f"{record.dispatch} is divided at {size}: {why}")
            waiting = [*_divided(run, family, size), *waiting]
            continue
        worst = max(regret(ratios[number], run.config) for number in range(run.first, run.last + 1))
        (span,) = root_of(record).loop_ranges
        notes.append(
            f"{record.dispatch}: {run.last - run.first + 1} entries become one for sizes of loop {span.loop} from "
            f"{span.low} to {span.high}, multiples of {span.multiple}; the most regret is {worst:.1%}"
        )
        records.append(record)
    return Generalized(tuple(records), tuple(notes))


def _measure_all(family: Family, session: Session) -> list[dict[str, float]]:
    """Return the speed of each config relative to the default's at each size, without the configs that fail there."""
    infos = dict.fromkeys((*family.configs, *(record.compilation_info for record in family.records)))
    ids = {info: f"config_{number}" for number, info in enumerate(infos)}
    configs = {identifier: info for info, identifier in ids.items()}
    roots = {f"size_{size}": root_of(each) for size, each in zip(family.sizes, family.records, strict=True)}
    tasks = tasks_at(roots, configs, session)
    entrants = []
    for size, record in zip(family.sizes, family.records, strict=True):
        if (task := tasks.get(f"size_{size}")) is not None:
            tried = dict.fromkeys((*family.configs, record.compilation_info))
            entrants.append(Entrants(task, [ids[info] for info in tried]))
    session.report(f"compiling {sum(len(each.names) for each in entrants)} candidates at {len(entrants)} sizes")
    _build(entrants, session)
    found = [_measure(entrants, number, session) for number in range(_ROUNDS)]
    ratios = []
    for size in family.sizes:
        task = tasks.get(f"size_{size}")
        logs = [rounds.get(task.name, {}) if task else {} for rounds in found]
        shared = set.intersection(*(set(part) for part in logs))
        ratios.append({configs[name]: math.exp(sum(part[name] for part in logs) / _ROUNDS) for name in sorted(shared)})
    return ratios


def _build(entrants: Sequence[Entrants], session: Session) -> None:
    """Compile all candidates. Failures are found again where the candidates are measured."""
    for task, names, *_ in entrants:
        session.run.publish(task, names)  # The builder compiles several of them at a time.
        for name in names:
            with suppress(CandidateFailed):
                session.builder.artifact(task, task.candidate(name))


def _measure(entrants: Sequence[Entrants], number: int, session: Session) -> dict[str, dict[str, float]]:
    """Return the logarithm of each candidate's speed relative to the default's, by dispatch, in one round."""
    session.report(f"measuring them: round {number + 1} of {_ROUNDS}")
    found: dict[str, dict[str, float]] = {}
    for name, result in session.runner.round_of_all(entrants, number, GUARD_ROUND).items():
        if not isinstance(result, CandidateFailed):
            found[name] = {each: math.log(measured.ratio) for each, measured in result.measured.items()}
    return found


def _first_failure(record: WinnerRecord, family: Family, session: Session) -> tuple[int, str] | None:
    """Return the first unseen size at which a general entry fails, with the reason; ``None`` if there is none."""
    session.report(f"trying {record.dispatch} at sizes that were not measured")
    for size, task in unseen_tasks(root_of(record), record.compilation_info, family.sizes, session).items():
        (candidate,) = task.candidates
        try:
            session.runner.check_members(task, candidate)
            ratio = session.runner.guard_round(task, candidate, 0).ratio
        except CandidateFailed as failure:
            return size, str(failure)
        if ratio < 1 / (1 + MOST_REGRET):
            return size, f"it has {ratio:.3f} times the default's speed"
    return None


def _divided(run: Run, family: Family, size: int) -> list[Run]:
    """Return the parts of a run on both sides of a size."""
    below = sum(known < size for known in family.sizes[run.first : run.last + 1])
    parts = (Run(run.first, run.first + below - 1, run.config), Run(run.first + below, run.last, run.config))
    return [part for part in parts if part.last >= part.first]
