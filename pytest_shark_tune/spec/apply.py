"""Applying a tuning spec to a whole model, on any backend, with proof of its effect.

A spec is applied to the sources of executables. The compiler rewrites some ops (convolutions without a batch, softmax,
attention) before it chooses configs and dumps dispatches, so an entry that was tuned on the dump matches nothing in the
sources. Such executables are configured first, get the spec late, and then replace their sources: this is the state
that was measured during tuning.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from pytest_shark_tune.compiler import configure
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.refusals import why_rejected
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.spec.read import mark_entries, read_spec

__all__ = ["Application", "Placement", "SpecNotApplicable", "apply_spec"]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec applied to one op."""

    symbol: str
    """The name of the executable."""
    op: str
    entry: str
    """The name of the matcher."""
    compilation_info: str
    late: bool
    """Whether the entry matches only after the compiler has rewritten the op."""
    by_flag: bool
    """Whether ``iree-compile --iree-codegen-tuning-spec-path`` applies the entry to this op too."""


class SpecNotApplicable(InputError):
    """The compiler accepts the model, but refuses the spec or one of its configs."""


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """A model with a spec applied."""

    text: str
    """The model at phase ``executable-sources``, with the spec."""
    sources: str
    """The model at phase ``executable-sources``, without the spec."""
    placements: tuple[Placement, ...]
    """The entries that are applied."""
    dropped: tuple[Placement, ...]
    """Entries with a config that the compiler dropped afterwards; their executables have the default config."""
    unmatched: tuple[str, ...]
    """The entries that are applied nowhere, in the spec's order."""
    flag_error: str = ""
    """The reason why iree-compile fails if it gets the spec by its own flag; empty if it does not fail."""


def apply_spec(source: Source, spec: str, compiler: Compiler) -> Application:
    """Apply ``spec`` to a whole model, or to one benchmark module.

    Raises:
        SpecNotApplicable: The compiler rejects the spec or one of its configs.
        InputError: The compiler rejects the model.
    """
    compiler = compiler.for_models.with_flags(source.form.flags)
    marked = mark_entries(spec)
    try:
        sources = configure.strip(source.text) if source.is_benchmark else _lowered(source.name, source.text, compiler)
    except CommandFailed as error:
        raise source.refused(error) from error
    try:
        return _apply(source.name, sources, spec, marked, compiler)
    except CommandFailed as error:
        raise SpecNotApplicable(f"{source.label}: {why_rejected(error)}") from error
    except configure.ConfigureFailed as error:
        raise SpecNotApplicable(f"{source.name}: {error}") from error


_SOURCES, _CONFIGURATIONS = "executable-sources", "executable-configurations"


@lru_cache(maxsize=1)  # Several specs are tried on a model, and its lowering takes longest.
def _lowered(name: str, text: str, compiler: Compiler) -> str:
    return compiler.lower(text, to=_SOURCES, name=name)


def _apply(name: str, sources: str, spec: str, marked: str, compiler: Compiler) -> Application:
    def chosen(text: str) -> str:
        return compiler.lower(text, to=_CONFIGURATIONS, since=_SOURCES, name=name)

    bare = configure.executables_alone(sources)
    early = configure.configure_with(bare, marked)
    text = configure.replace_executables(bare, early.text, _symbols(op for op in early.applied if op.entry))
    configurations = chosen(text)
    kept, dropped = _survivors(early.applied, configurations)
    if dropped:
        text = configure.replace_executables(text, bare, _symbols(dropped))
        configurations = chosen(text)
    taken = set(_symbols(kept))
    late = configure.configure_with(configurations, marked)
    late_matches = [op for op in late.applied if op.entry and op.symbol not in taken]
    late_survivors: list[configure.Applied] = []
    if late_matches:
        before = text
        text = configure.replace_executables(text, late.text, _symbols(late_matches))
        late_survivors, late_dropped = _survivors(late_matches, chosen(text))
        if late_dropped:
            text = configure.replace_executables(text, before, _symbols(late_dropped))
        dropped = [op for op in dropped if op.symbol not in _symbols(late_survivors)] + late_dropped
    by_flag: set[tuple[str, str, str]] = set()
    flag_error = ""
    if compiler.target.loads_specs:
        try:
            configured_by_flag = compiler.configure_by_flag(bare, marked, name=name)
            by_flag = {(op.symbol, op.entry, op.compilation_info) for op in configure.read_configs(configured_by_flag)}
        except CommandFailed as error:
            flag_error = first_error(error)

    def placement(op: configure.Applied, *, is_late: bool) -> Placement:
        return Placement(
            symbol=op.symbol,
            op=op.op,
            entry=op.entry,
            compilation_info=op.compilation_info,
            late=is_late,
            by_flag=(op.symbol, op.entry, op.compilation_info) in by_flag,
        )

    everywhere = [
        *(placement(op, is_late=False) for op in kept),
        *(placement(op, is_late=True) for op in late_survivors),
    ]
    order = {op.symbol: position for position, op in enumerate(configure.read_configs(configurations))}
    used = {found.entry for found in everywhere}
    return Application(
        text=configure.replace_executables(sources, text, _symbols(kept + late_survivors)),
        sources=sources,
        placements=tuple(sorted(everywhere, key=lambda found: order.get(found.symbol, -1))),
        dropped=tuple(placement(op, is_late=op in late_matches) for op in dropped),
        unmatched=tuple(row.matcher for row in read_spec(spec) if row.matcher not in used),
        flag_error=flag_error,
    )


def _survivors(
    applied: Iterable[configure.Applied], configurations: str
) -> tuple[list[configure.Applied], list[configure.Applied]]:
    """Split the ops that took an entry's config: those that still have it after all configs are chosen, and the rest.

    The mark is no evidence: an op that the compiler rewrites may keep its attributes and lose its config, or neither.
    """
    there = {(op.symbol, op.compilation_info) for op in configure.read_configs(configurations)}
    kept: list[configure.Applied] = []
    dropped: list[configure.Applied] = []
    for op in applied:
        if op.entry:
            (kept if (op.symbol, op.compilation_info) in there else dropped).append(op)
    return kept, dropped


def _symbols(applied: Iterable[configure.Applied]) -> list[str]:
    return list(dict.fromkeys(op.symbol for op in applied))
