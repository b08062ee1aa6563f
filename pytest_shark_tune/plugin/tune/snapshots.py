"""The snapshots beside the suites at the beginning of a run: entries that are up to date are not tuned again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.plugin.reporting import end_run
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.records.reconcile import Requirements, Subject, Update, look_back, write_incumbents
from pytest_shark_tune.results.store import Ledger
from pytest_shark_tune.spec.build import dropped_prints
from pytest_shark_tune.tuning.manifest import Part

__all__ = ["reconcile"]


def reconcile(setup: Setup, store: Ledger, by_dispatch: Mapping[str, Mapping[int, Part]]) -> Update:
    """Keep the entries of snapshots that are up to date, and report why the others are tuned again.

    Args:
        setup: this process's share of the run.
        store: the results of the run, to which the entries that are kept are added.
        by_dispatch: the entries of the test manifest by the name of their dispatch.
    """
    if setup.bundle is not None:  # Snapshots are brought up to date where specs are made.
        return Update()
    options, session = setup.options, setup.session
    required = Requirements(
        target=str(options.target),
        setting=session.setting,
        iree=session.compiler.version,
        device=setup.settings.device_name,
        candidates=options.candidates,
        fresh=options.fresh,
    )
    update = look_back(_subjects(setup, store, by_dispatch), required, store.snapshot_of)
    for name, record in update.kept.items() if not setup.is_dry else ():
        store.keep(next(iter(by_dispatch[name].values())).plan, record)
    for name in by_dispatch:
        task = store.task(name)
        if isinstance(task, Task) and name not in update.kept and (own := session.starter_candidate(task)):
            update.add_starter(name, own)
    if update.incumbents or update.starters:
        try:
            write_incumbents(setup.settings.exchange, update)
        except OSError as error:
            end_run(setup.storage.explain(error) or str(error), returncode=1)
    dropped = (f"{options.starter}: {sentence}" for sentence in dropped_prints(setup.settings.starter))
    for line in chain(dropped, update.words()):
        setup.report(line)
    return update


def _subjects(setup: Setup, store: Ledger, by_dispatch: Mapping[str, Mapping[int, Part]]) -> Iterator[Subject]:
    """The dispatches of the suites, once for every suite that has them."""
    suites = {entry.suite for entries in by_dispatch.values() for entry in entries.values()} - {""}
    tasks = {suite: store.tasks_of(suite) for suite in suites}
    for name, entries in by_dispatch.items():
        for suite in dict.fromkeys(entry.suite for entry in entries.values()):
            if task := tasks.get(suite, {}).get(name):
                is_ours = all(entry.is_ours for entry in entries.values() if entry.suite == suite)
                yield Subject(task, str(setup.root / suite), is_ours=is_ours)
