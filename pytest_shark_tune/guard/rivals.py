"""Pairs of dispatches and models as two releases of IREE have them: what is compared, with and without a spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.versions import OtherCompiler
from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan, RivalSubject
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system.cache import content_key

__all__ = ["rival_entries", "rival_plan", "with_spec"]

_OP = re.compile(r"= (?!linalg\.generic)(\w+\.\w+)")


def rival_plan(compiler: OtherCompiler, plan: Plan, rival: Plan | None) -> GuardPlan:
    """Return the plan for comparing this compiler's dispatches and models with another one's; see `rival_entries`."""
    return GuardPlan(
        key=content_key("rival", compiler.identity, [source.content for source in plan.sources]),
        spec_path=compiler.installation.name,
        spec="",
        entries=tuple(rival_entries(compiler, plan, rival)),
        plan=plan,
    )


def rival_entries(compiler: OtherCompiler, plan: Plan, rival: Plan | None) -> Iterator[GuardEntry]:
    """Yield the dispatches that two compilers have alike, and the models that can be run.

    Args:
        compiler: the other compiler.
        plan: the dispatches of this compiler.
        rival: those of the other one; ``None`` if they cannot be read, and then whole models are compared alone.
    """
    name = compiler.installation.name
    theirs = rival.tasks if rival else ()
    pairs = _pairs(plan.tasks, theirs)
    for task in plan.tasks:
        if (other := pairs.get(task.name)) is not None:
            subject = RivalSubject(compiler=name, task=task, rival=other, calls=_calls(task))
            yield GuardEntry(name=task.name, rival=subject)
    paired = {other.name for other in pairs.values()}
    for source in plan.sources:
        if source.is_op or len(source.run_whole) != 1:
            continue
        ours = tuple(task.name for task in plan.tasks if task.name not in pairs and _is_in(task, source))
        others = tuple(task.name for task in theirs if task.name not in paired and _is_in(task, source))
        unmatched = (ours if rival else (), others)
        yield GuardEntry(name=source.name, rival=RivalSubject(compiler=name, model=source.name, unmatched=unmatched))


def with_spec(pairs: GuardPlan, guarded: GuardPlan) -> GuardPlan | None:
    """Return a plan for comparing the models and the dispatches with a spec; ``None`` if the spec is for none of them.

    Args:
        pairs: the plan for comparing them without the spec.
        guarded: the plan for guarding the spec on the same sources.
    """
    configs: dict[str, Candidate] = {}
    for entry in guarded.entries:
        for task in entry.tasks:
            configs.setdefault(task.dispatch.key, task.candidates[0])
    entries = tuple(filter(None, (_with_config(entry, guarded, configs) for entry in pairs.entries)))
    if not any(entry.rival and entry.rival.task for entry in entries):
        return None
    return GuardPlan(
        key=content_key("rival", pairs.key, guarded.key),
        spec_path=f"{pairs.spec_path} with {Path(guarded.spec_path).name}",
        spec=guarded.spec,
        entries=entries,
        plan=guarded.plan,
    )


def _with_config(entry: GuardEntry, guarded: GuardPlan, configs: dict[str, Candidate]) -> GuardEntry | None:
    """An entry with the spec; ``None`` for a dispatch that the spec is not for."""
    subject = entry.rival
    assert subject is not None
    if subject.task is None or subject.rival is None:
        return msgspec.structs.replace(entry, rival=msgspec.structs.replace(subject, spec=guarded.spec))
    if (config := configs.get(subject.task.dispatch.key)) is None:
        return None
    ours, theirs = (
        msgspec.structs.replace(task, candidates=(msgspec.structs.replace(config, dispatch=task.name),))
        for task in (subject.task, subject.rival)
    )
    return msgspec.structs.replace(entry, rival=msgspec.structs.replace(subject, task=ours, rival=theirs))


def _calls(task: Task) -> dict[str, int]:
    """How often each model calls a dispatch."""
    calls: dict[str, int] = {}
    for member in task.dispatch.members:
        calls[member.source] = calls.get(member.source, 0) + member.calls
    return calls


def _is_in(task: Task, source: Source) -> bool:
    return any(member.source == source.name for member in task.dispatch.members)


def _pairs(ours: Sequence[Task], theirs: Sequence[Task]) -> dict[str, Task]:
    """The dispatches of the other compiler, by the names of those of this one.

    First come those of the same structure. Of the rest, two are a pair if they are the only ones that compute alike.
    """
    known = {task.dispatch.key: task for task in theirs}
    found = {task.name: known[task.dispatch.key] for task in ours if task.dispatch.key in known}
    left = _by_work(task for task in ours if task.name not in found)
    paired = {task.name for task in found.values()}
    others = _by_work(task for task in theirs if task.name not in paired)
    for work, tasks in left.items():
        if len(tasks) == 1 and len(others.get(work, ())) == 1:
            found[tasks[0].name] = others[work][0]
    return found


def _by_work(tasks: Iterator[Task]) -> dict[object, list[Task]]:
    found: dict[object, list[Task]] = {}
    for task in tasks:
        found.setdefault(_work(task.dispatch.root), []).append(task)
    return found


def _work(root: RootOp) -> object:
    """The work of an op, whatever releases do with dimensions of size one, and with the order of others."""
    loops = sorted((kind, size) for kind, size in zip(root.iterators, root.loops, strict=True) if size != 1)
    body = sorted(_OP.findall(root.pattern)) if root.kind == "other" else []
    tensors = [sorted(map(_bare, operands)) for operands in (root.inputs, root.outputs)]
    return (root.kind, root.open_loops, tuple(loops), repr(tensors), tuple(body))


def _bare(tensor: Tensor) -> tuple[str, list[int]]:
    return tensor.element, sorted(size for size in tensor.shape if size != 1)
