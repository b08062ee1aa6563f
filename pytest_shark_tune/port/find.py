"""The dispatch that an entry of an old spec is for: in models, or made of the op in the entry's record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import ConfigureFailed
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.standalone import standalone_op
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.port.read_old import OldEntry, OldSpec
from pytest_shark_tune.spec.read import mark_entries, with_configs
from pytest_shark_tune.spec.takers import applied_to

__all__ = ["find_in_models", "recorded_op"]

_NEUTRAL = tuple(
    f"#iree_codegen.compilation_info<lowering_config = {config}, "
    "translation_info = <pipeline = #iree_codegen.no_pipeline>>"
    for config in ("#iree_gpu.lowering_config<{}>", "#iree_gpu.lowering_config<{decomposition_config = {}}>")
)
"""Placeholders for the config of a spec that is only asked for matches: alone, and beside a decomposition."""


def find_in_models(entry: OldEntry, old: OldSpec, dispatches: Sequence[Dispatch]) -> Dispatch | None:
    """Return the dispatch of the models that an entry is for, by its record's structure or else by its matcher.

    Raises:
        InputError: the entry hands on more than a config and a decomposition.
    """
    root = entry.record.root if entry.record else None
    alike = (dispatch for dispatch in dispatches if root is not None and dispatch.key == root.key)
    if (found := next(alike, None)) is not None or not old.text:
        return found
    probe = _probe(old.text, entry.matcher)
    return next((dispatch for dispatch in dispatches if _is_matched(dispatch, probe)), None)


def recorded_op(entry: OldEntry, compiler: Compiler, processors: int) -> tuple[object, Dispatch] | None:
    """Return the source of the op in an entry's record, and the dispatch that is made of it; ``None`` without a record.

    Raises:
        InputError: compiled by itself, the op becomes another one.
    """
    if entry.record is None or entry.record.root is None:
        return None
    source = standalone_op(entry.record.dispatch, entry.record.root)
    for dispatch in extract_dispatches([read_source(source, Path())], compiler, processors).dispatches:
        if dispatch.key == entry.record.root.key:
            return source, dispatch
    raise InputError("compiled by itself, the recorded op becomes another one: give the MODEL that it is from")


def _probe(spec: str, matcher: str) -> str:
    """Return a spec of one entry with a placeholder for its config, to ask which dispatches the entry matches."""
    alone, beside = _NEUTRAL
    try:
        return mark_entries(with_configs(spec, {matcher: alone}))
    except InputError:
        return mark_entries(with_configs(spec, {matcher: beside}))


def _is_matched(dispatch: Dispatch, probe: str) -> bool:
    try:
        return bool(applied_to(dispatch, probe))
    except ConfigureFailed:  # It matches: only the config is refused.
        return True
