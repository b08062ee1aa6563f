"""Landscapes of real runs: the measurements of a run, as `shark-tune replay` reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.results.replay import Landscape, LandscapeCandidate, write_landscape
from pytest_shark_tune.results.store import ResultStore
from pytest_shark_tune.search_space.candidate import DEFAULT_ID

__all__ = ["landscape_of", "write_landscapes"]


def landscape_of(task: AnyTask, records: Sequence[Record], *, note: str = "") -> Landscape | None:
    """Return the landscape of a dispatch.

    The candidates that were tried stand in the plan's order. A duplicate has the samples of the candidate that has the
    same binary. The baseline is every sample of the default, those beside candidates included.

    Args:
        task: the dispatch or kernel.
        records: its records in the order taken.
        note: a remark to put behind the number of candidates.

    Returns:
        ``None`` if nothing was measured, so that there is nothing to replay.
    """
    known = {record.id: record for record in records}
    baseline = tuple(record.baseline_samples_us for record in records if record.baseline_samples_us)
    candidates = tuple(
        LandscapeCandidate(
            pipeline=record.pipeline,
            space=candidate.space,
            knobs=record.knobs,
            state=record.state,
            reason=record.reason,
            compile_s=record.compile_s,
            samples_us=_samples_of(record, known),
        )
        for candidate in task.candidates
        if (record := known.get(candidate.id))
    )
    if not baseline or not any(candidate.samples_us for candidate in candidates):
        return None
    about = records[0]
    return Landscape(
        dispatch=task.name,
        device=about.device,
        target=about.target,
        iree=about.iree,
        note=f"{len(candidates)} of {len(task.candidates)} candidates" + (f", {note}" if note else ""),
        vector_bytes=task.dispatch.target.cpu_vector_bytes if isinstance(task, Task) else 0,
        facts=task.facts_on(about.device) if isinstance(task, Task) else None,
        baseline_samples_us=baseline,
        candidates=candidates,
    )


def write_landscapes(path: Path, store: ResultStore, *, note: str = "") -> list[str]:
    """Write the landscape of a run to ``path``.

    If the run has several dispatches, a dispatch's file has its name behind the stem: ``a-NAME.json`` for ``a.json``. A
    file that cannot be written is among the result store's ``failures``.

    Args:
        path: the file.
        store: the results of the run.
        note: a remark for all landscapes.

    Returns:
        A sentence for each dispatch that names its file, or tells why there is none.
    """
    messages = []
    for task in store.tasks:
        landscape = landscape_of(task, store.records(task.name), note=note)
        if landscape is None:
            messages.append(f"no landscape of {task.name}: no candidate was measured")
            continue
        own = path
        if len(store.tasks) > 1:  # The name comes from the model's author and may hold anything.
            name = re.sub(r"[^\w.-]", "_", task.name)
            own = path.with_name(f"{path.stem}-{name}{path.suffix}")
        try:
            write_landscape(landscape, own)
            messages.append(f"landscape: {own}")
        except OSError as error:
            store.failures.append(error)
    return messages


def _samples_of(record: Record, known: dict[str, Record]) -> tuple[float, ...]:
    if record.state is not State.DUPLICATE:
        return record.samples_us
    owner = known.get(record.duplicate_of)
    if owner is None:
        return ()
    return owner.baseline_samples_us if owner.id == DEFAULT_ID else owner.samples_us
