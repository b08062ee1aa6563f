"""The forms of a model in a plan: sources that are made of a model and a form, and plans of several forms joined."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.dispatch.fused import special_ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.forms.mlir_rewrites import rewrite_mlir
from pytest_shark_tune.forms.onnx_rewrites import REWRITES, rewrite_onnx
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.system.cleanup import scratch_directory

__all__ = ["form_source", "has_forms", "joined_plan", "part_of"]


def has_forms(source: Source, plan: Plan) -> bool:
    """Return whether the forms of a source can be compared: it is a model with one function and several dispatches."""
    symbols = {member.symbol for task in plan.tasks for member in task.dispatch.members if member.source == source.name}
    symbols |= {entry.name for entry in plan.untunable if entry.source == source.name}
    is_plain = source.is_model and source.form.is_default and not source.points
    return is_plain and len(source.run_whole) == 1 and len(symbols) > 1


def form_source(model: Source, form: Form) -> Source | None:
    """Make the source of a model in a form.

    Returns:
        The source; ``None`` if the form's rewrites change nothing in the model and it has no flags of its own.

    Raises:
        InputError: a rewrite is unknown, or needs an ONNX model, or the rewritten model cannot be imported.
        CommandFailed: the import ran out of time.
    """
    text = _rewritten(model, form.rewrites) if form.rewrites else model.text
    if text is None:
        return None
    return replace(model, name=form.source_name(model.name), model=model.model_name, text=text, form=form)


def _rewritten(model: Source, names: Sequence[str]) -> str | None:
    """The text of a model with rewrites of its graph and then of the imported module; ``None`` if nothing changes."""
    of_graph = [name for name in names if name in REWRITES]
    of_module = [name for name in names if name not in REWRITES]
    text = _with_new_graph(model, of_graph) if of_graph else None
    rewritten, counts = rewrite_mlir(text or model.text, of_module)
    return rewritten if any(counts.values()) else text


def _with_new_graph(model: Source, names: Sequence[str]) -> str | None:
    if Path(model.path).suffix != ".onnx":
        raise InputError(f"the rewrites {', '.join(names)} need an ONNX model, which {model.name} is not")
    with scratch_directory() as directory:
        path = directory / "model.onnx"
        results = rewrite_onnx(Path(model.path), path, names, shapes=model.shapes)
        return import_onnx(path) if any(result.nodes for result in results) else None


def part_of(plan: Plan, sources: Collection[str]) -> Plan:
    """Return the plan with only the dispatches of the sources of these names."""
    own = ((task, [member for member in task.dispatch.members if member.source in sources]) for task in plan.tasks)
    known = tuple(task for task in plan.defaults if any(member.source in sources for member in task.dispatch.members))
    tasks = tuple(task.with_members(members) for task, members in own if members)
    return replace(plan, tasks=tasks, defaults=known)


def joined_plan(plan: Plan, kept: Iterable[Plan]) -> Plan:
    """Join plans of sources and forms of models, so that equal dispatches are tuned once.

    Two forms of one model share a root op only where the same special ops are fused with it. A config that fails
    beside those of one form would be lost for the other, though only one form is kept. With several models one spec
    has to hold for them all.

    Args:
        plan: The plan with all models as they are, which gives sources, kernels and dispatches that cannot be tuned.
        kept: The plans with the dispatches that are tuned.
    """
    tasks: dict[tuple[object, ...], Task] = {}
    sources = {source.name: source for source in plan.sources}
    untunable = {(entry.source, entry.name): entry for entry in plan.untunable}
    names: dict[str, tuple[object, ...]] = {}
    defaults: list[Task] = []
    kept = tuple(kept)
    is_one_model = len({source.model_name for part in kept for source in part.sources}) == 1
    for part in kept:
        defaults += part.defaults
        sources |= {source.name: source for source in part.sources}
        untunable |= {(entry.source, entry.name): entry for entry in part.untunable}
        for task in part.tasks:
            modules = [member.module for member in task.dispatch.members]
            fused = {special_ops(module.text) for module in modules} if is_one_model else ()
            key = (task.dispatch.root.structure, modules[0].flags, frozenset(fused))
            known = tasks.get(key)
            if known is None:
                tasks[key] = _with_own_name(task, key, names)
            else:
                present = {(member.source, member.symbol) for member in known.dispatch.members}
                more = [found for found in task.dispatch.members if (found.source, found.symbol) not in present]
                tasks[key] = known.with_members((*known.dispatch.members, *more))
    tuned = {member.source for task in tasks.values() for member in task.dispatch.members}
    in_forms = {source.model_name for source in sources.values() if source.model}
    return replace(
        plan,
        sources=tuple(sources.values()),
        tasks=tuple(tasks.values()),
        defaults=tuple(defaults),
        # A model's default form that is not tuned is there to be compared with.
        untunable=tuple(one for one in untunable.values() if one.source in tuned or one.source not in in_forms),
    )


def _with_own_name(task: Task, key: tuple[object, ...], names: dict[str, tuple[object, ...]]) -> Task:
    """The task, with a number after its name if another structure has the name."""
    name, number = task.name, 1
    while names.setdefault(name, key) != key:
        number += 1
        name = f"{task.name}_{number}"
    return task.renamed(name)
