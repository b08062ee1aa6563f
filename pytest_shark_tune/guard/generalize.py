"""Generalizing with measurements: the configs of entries that differ in a size are compared at all of the sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.guard.sizes import tasks_at, unseen_tasks
from pytest_shark_tune.measurement.timing import GUARD_ROUND
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.generalize import (
    Family,
    Regret,
    Run,
    cover,
    general_record,
    joint_regret,
    regret_of,
    root_of,
)
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.tuning.runner import Entrants
from pytest_shark_tune.tuning.session import Session

__all__ = ["Generalized", "generalize"]

_FIRST_ROUNDS = 3
_MOST_ROUNDS_IN_ALL = 48


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
    measured = _Measured.begin(family, session)
    records: list[WinnerRecord] = []
    notes: list[str] = []
    waiting = measured.fewest_runs()
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
        record = general_record(family, run, measured.logs)
        wrong = _first_failure(record, family, session)
        if wrong is not None:
            size, why = wrong
            notes.append(f"{record.dispatch} is divided at {size}: {why}")
            waiting = [*_divided(run, family, size), *waiting]
            continue
        regrets = measured.regrets()
        worst = max((regrets[number][run.config] for number in range(run.first, run.last + 1)), key=lambda r: r.centre)
        (span,) = root_of(record).loop_ranges
        notes.append(
            f"{record.dispatch}: {run.last - run.first + 1} entries become one for sizes of loop {span.loop} from "
            f"{span.low} to {span.high}, multiples of {span.multiple}; the regret is {joint_regret(regrets, run).text} "
            f"on average, and at most {worst.text} at a size"
        )
        records.append(record)
    return Generalized(tuple(records), tuple(notes))


class _Measured:
    """What was measured of a family so far: more is measured where it decides.

    Args:
        family: The family.
        session: It measures.
        tasks: The dispatch of each size, if the compiler makes it of the op.
        ids: The ids of the configs as candidates.
    """

    def __init__(self, family: Family, session: Session, tasks: Sequence[Task | None], ids: Mapping[str, str]) -> None:
        self._family = family
        self._session = session
        self._tasks = tasks
        self._ids = ids
        self._rounds = 0
        self.logs: list[dict[str, dict[int, float]]] = [{} for _ in tasks]
        """The logarithms of the speeds by size, config and round."""

    @classmethod
    def begin(cls, family: Family, session: Session) -> _Measured:
        """Compile the configs of a family at its sizes, and measure all of them.

        Raises:
            InputError: The compiler rejects an op.
        """
        infos = dict.fromkeys((*family.configs, *(record.compilation_info for record in family.records)))
        ids = {info: f"config_{number}" for number, info in enumerate(infos)}
        configs = {identifier: info for info, identifier in ids.items()}
        roots = {f"size_{size}": root_of(each) for size, each in zip(family.sizes, family.records, strict=True)}
        tasks = tasks_at(roots, configs, session)
        measured = cls(family, session, [tasks.get(name) for name in roots], ids)
        everything = [set(family.configs)] * len(roots)
        entrants = measured._entrants(everything)
        session.report(f"compiling {sum(len(each.names) for each in entrants)} candidates at {len(entrants)} sizes")
        _build(entrants, session)
        for _ in range(_FIRST_ROUNDS):
            measured._measure(everything)
        return measured

    def regrets(self) -> list[dict[str, Regret]]:
        """Return the regret of each config that runs, by size."""
        return [
            {config: regret_of(logs, config, record.compilation_info) for config in logs}
            for logs, record in zip(self.logs, self._family.records, strict=True)
        ]

    def fewest_runs(self) -> list[Run]:
        """Return the fewest runs. Those that seem to be are measured further until no config in them is in doubt."""
        while True:
            regrets = self.regrets()
            runs = cover(regrets)
            wanted: list[set[str]] = [set() for _ in regrets]
            for run in runs:
                for number in range(run.first, run.last + 1):
                    if regrets[number][run.config].is_open and run.first < run.last:
                        wanted[number].add(run.config)
            if not any(wanted) or self._rounds >= _MOST_ROUNDS_IN_ALL:
                return runs
            self._measure(wanted)

    def _measure(self, wanted: Sequence[Collection[str]]) -> None:
        """Measure configs at sizes for a round, each beside the size's own and the default."""
        self._session.report(f"measuring them: round {self._rounds + 1}")
        names = {identifier: info for info, identifier in self._ids.items()}
        results = self._session.runner.round_of_all(self._entrants(wanted), self._rounds, GUARD_ROUND)
        for task, logs, configs in zip(self._tasks, self.logs, wanted, strict=True):
            result = results.get(task.name) if task is not None and configs else None
            if result is None or isinstance(result, CandidateFailed):
                continue
            for identifier, measurement in result.measured.items():
                logs.setdefault(names[identifier], {})[self._rounds] = math.log(measurement.ratio)
            for identifier in result.failed:
                logs.pop(names[identifier], None)
        self._rounds += 1

    def _entrants(self, wanted: Sequence[Collection[str]]) -> list[Entrants]:
        found = []
        for task, record, configs in zip(self._tasks, self._family.records, wanted, strict=True):
            if task is not None and configs:
                names = dict.fromkeys(self._ids[info] for info in (*sorted(configs), record.compilation_info))
                found.append(Entrants(task, list(names)))
        return found


def _build(entrants: Sequence[Entrants], session: Session) -> None:
    """Compile all candidates. Failures are found again where the candidates are measured."""
    for task, names, *_ in entrants:
        session.run.publish(task, names)  # The builder compiles several of them at a time.
        for name in names:
            with suppress(CandidateFailed):
                session.builder.artifact(task, task.candidate(name))


def _first_failure(record: WinnerRecord, family: Family, session: Session) -> tuple[int, str] | None:
    """Return the first unseen size at which a general entry fails, with the reason; ``None`` if there is none."""
    session.report(f"trying {record.dispatch} at sizes that were not measured")
    for size, task in unseen_tasks(root_of(record), record.compilation_info, family.sizes, session).items():
        (candidate,) = task.candidates
        try:
            session.runner.check_members(task, candidate)
            logs: list[float] = []
            while not logs or (Regret.of(logs).is_open and logs[0] > 0):
                logs.append(-math.log(session.runner.guard_round(task, candidate, len(logs)).ratio))
        except CandidateFailed as failure:
            return size, str(failure)
        if (found := Regret.of(logs)).is_missed:
            return size, f"it has {math.exp(-found.centre):.3f} times the default's speed"
    return None


def _divided(run: Run, family: Family, size: int) -> list[Run]:
    """Return the parts of a run on both sides of a size."""
    below = sum(known < size for known in family.sizes[run.first : run.last + 1])
    parts = (Run(run.first, run.first + below - 1, run.config), Run(run.first + below, run.last, run.config))
    return [part for part in parts if part.last >= part.first]
