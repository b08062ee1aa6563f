"""Sizes inside the ranges of general entries: sizes that nobody has measured are drawn, and their dispatches made."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from pytest_shark_tune.dispatch.types import LoopRange, RootOp
from pytest_shark_tune.errors import CheckFailed
from pytest_shark_tune.guard.plan import GuardEntry
from pytest_shark_tune.ops.standalone import resized, standalone_op
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.search_space.candidate import applied_candidate, default_candidate
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.spec.takers import takers
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session

__all__ = ["draw_sizes", "tasks_at", "unseen_tasks", "unseen_tasks_of"]

_DRAWN = 3
"""How many unseen sizes of an entry are drawn."""


def draw_sizes(span: LoopRange, seen: Collection[int], seed: int, count: int = _DRAWN) -> tuple[int, ...]:
    """Draw different sizes in a range that are not among ``seen``; fewer if there are not that many."""
    first, last = -(-span.low // span.multiple), span.high // span.multiple
    rng = random.Random(seed)
    free = {size // span.multiple for size in seen}
    if last - first < 4 * (count + len(free)):
        left = [number for number in range(first, last + 1) if number not in free]
        drawn = rng.sample(left, min(count, len(left)))
    else:
        found: dict[int, None] = {}
        while len(found) < count:
            number = rng.randint(first, last)
            if number not in free:
                found[number] = None
        drawn = list(found)
    return tuple(sorted(number * span.multiple for number in drawn))


def tasks_at(roots: Mapping[str, RootOp], configs: Mapping[str, str], session: Session) -> dict[str, Task]:
    """Make the dispatch of each root op by itself, with configs as its candidates.

    Args:
        roots: The root ops, by a name.
        configs: The compilation infos, by the id of the candidate.
        session: Its compiler makes the dispatches.

    Returns:
        The tasks by the name of the root op. Ops of which the compiler makes something else have none.

    Raises:
        InputError: The compiler rejects an op.
    """
    sources = [read_source(standalone_op(name, root), Path()) for name, root in roots.items()]
    dispatches = extract_dispatches(sources, session.compiler, processors()).dispatches
    by_key = {dispatch.key: dispatch for dispatch in dispatches}
    found = {}
    for name, root in roots.items():
        if (dispatch := by_key.get(root.key)) is not None:
            candidates = tuple(
                applied_candidate(dispatch.name, info, identifier=identifier, knobs={})
                for identifier, info in configs.items()
            )
            found[name] = Task(
                dispatch=dispatch, default=default_candidate(dispatch), candidates=candidates, space_size=None
            )
    return found


def unseen_tasks(root: RootOp, compilation_info: str, seen: Iterable[int], session: Session) -> dict[int, Task]:
    """Draw sizes in the range of an entry, and make the dispatches at these sizes with the entry's config.

    Args:
        root: The root op of the entry's record.
        compilation_info: The entry's config.
        seen: The sizes that were measured.
        session: Its seed draws the sizes, and its compiler makes the dispatches.

    Raises:
        InputError: The compiler rejects an op.
    """
    found: dict[int, Task] = {}
    for span in root.loop_ranges:
        sizes = draw_sizes(span, set(seen), session.settings.seed)
        roots = {f"size_{size}": resized(root, span.loop, size) for size in sizes}
        tasks = tasks_at(roots, {"entry": compilation_info}, session)
        found |= {size: tasks[f"size_{size}"] for size in sizes if f"size_{size}" in tasks}
    return found


def unseen_tasks_of(entry: GuardEntry, spec: str, session: Session) -> Iterator[Task]:
    """Draw sizes in the range of a guarded entry, and yield the dispatches that it takes there.

    Sizes that an entry before it takes do not concern it.

    Args:
        entry: The entry. One for a single size has no such dispatches.
        spec: The text of its spec.
        session: Its seed draws the sizes, and its compiler makes the dispatches.

    Raises:
        CheckFailed: No entry of the spec takes a size in the range.
        InputError: The compiler rejects an op.
    """
    root = entry.record.root if entry.record else None
    if root is None or not root.loop_ranges:
        return
    seen = {root.loops[span.loop] for span in root.loop_ranges}
    matchers = [row.matcher for row in read_spec(spec)]
    for size, task in unseen_tasks(root, entry.compilation_info, seen, session).items():
        taken = [matcher for matcher, _ in takers(task.dispatch, spec, matchers)]
        if not taken:
            raise CheckFailed(f"{entry.matcher} does not take size {size}, which lies in its range")
        if taken == [entry.matcher]:
            yield task
