"""A tuning spec applied to a whole model, on any backend, with the proof of what it did.

A spec is applied to the sources of executables. Some ops are rewritten between that point and the one where
configs are chosen and dispatches are dumped (convolutions without a batch, softmax, attention), so an entry that was
tuned on the dump matches nothing in the sources. Such executables are configured first, the spec is applied to
them late, and they take the place of their sources: just what was measured when they were tuned.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, first_error, why_rejected
from pytest_shark_tune.compiler.configure import (
    Applied,
    Configured,
    ConfigureFailed,
    configure_with,
    executables_alone,
    read_configs,
    replace_executables,
    strip,
)
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.spec.read import mark_entries, read_spec

__all__ = ["Application", "Placement", "SpecNotApplicable", "apply_spec"]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a spec in force on one op: ``symbol`` is the executable's name, ``entry`` the matcher's.

    ``late`` says that the entry matches only after the compiler rewrote the op; ``by_flag`` that
    ``iree-compile --iree-codegen-tuning-spec-path`` applies it to this op as well.
    """

    symbol: str
    op: str
    entry: str
    compilation_info: str
    late: bool
    by_flag: bool


class SpecNotApplicable(InputError):
    """The compiler takes the model, and refuses the spec or one of its configs."""


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """A model with a spec in force: ``text`` is at phase ``executable-sources``, ``sources`` the same without the spec.

    ``lost`` holds placements whose config the compiler dropped afterwards; those executables have their default config.
    ``unmatched`` names the entries that are in force nowhere, in the spec's order. ``flag_error`` says why
    iree-compile fails when it is given the spec by its own flag, and is empty where it does not.
    """

    text: str
    sources: str
    placed: tuple[Placement, ...]
    lost: tuple[Placement, ...]
    unmatched: tuple[str, ...]
    flag_error: str = ""


def apply_spec(source: Source, spec: str, compiler: Compiler) -> Application:
    """Put ``spec`` in force in a whole model, or in one benchmark module.

    Raises:
        SpecNotApplicable: the compiler rejects the spec or one of its configs.
        InputError: the compiler rejects the model.
    """
    compiler = compiler.for_models
    marked = mark_entries(spec)
    try:
        sources = strip(source.text) if source.is_benchmark else _lowered(source.name, source.text, compiler)
    except CommandFailed as error:
        raise InputError(f"{source.name}: {why_rejected(error)}") from error
    try:
        return _apply(source.name, sources, spec, marked, compiler)
    except CommandFailed as error:
        raise SpecNotApplicable(f"{source.name}: {why_rejected(error)}") from error
    except ConfigureFailed as error:
        raise SpecNotApplicable(f"{source.name}: {error}") from error


_SOURCES, _CONFIGURATIONS = "executable-sources", "executable-configurations"


@lru_cache(maxsize=1)  # One spec after another is tried on a model, whose lowering takes longest.
def _lowered(name: str, text: str, compiler: Compiler) -> str:
    return compiler.lower(text, to=_SOURCES, name=name)


def _apply(name: str, sources: str, spec: str, marked: str, compiler: Compiler) -> Application:
    def chosen(text: str) -> str:
        return compiler.lower(text, to=_CONFIGURATIONS, since=_SOURCES, name=name)

    bare = executables_alone(sources)
    early = configure_with(bare, marked)
    text = replace_executables(bare, early.text, _symbols(each for each in early.applied if each.entry))
    configurations = chosen(text)
    kept, lost = _survivors(early, configurations)
    if lost:
        text = replace_executables(text, bare, _symbols(lost))
        configurations = chosen(text)
    taken = set(_symbols(kept))
    late = configure_with(configurations, marked)
    late_applied = [each for each in late.applied if each.entry and each.symbol not in taken]
    late_kept: list[Applied] = []
    if late_applied:
        before = text
        text = replace_executables(text, late.text, _symbols(late_applied))
        late_kept, late_lost = _survivors(msgspec.structs.replace(late, applied=tuple(late_applied)), chosen(text))
        if late_lost:
            text = replace_executables(text, before, _symbols(late_lost))
        lost = [each for each in lost if each.symbol not in _symbols(late_kept)] + late_lost
    by_flag: set[tuple[str, str, str]] = set()
    flag_error = ""
    if compiler.target.loads_specs:
        try:
            configured_by_flag = compiler.configure_by_flag(bare, marked, name=name)
            by_flag = {(each.symbol, each.entry, each.compilation_info) for each in read_configs(configured_by_flag)}
        except CommandFailed as error:
            flag_error = first_error(error)

    def placed(each: Applied, *, is_late: bool) -> Placement:
        return Placement(
            symbol=each.symbol,
            op=each.op,
            entry=each.entry,
            compilation_info=each.compilation_info,
            late=is_late,
            by_flag=(each.symbol, each.entry, each.compilation_info) in by_flag,
        )

    everywhere = [*(placed(each, is_late=False) for each in kept), *(placed(each, is_late=True) for each in late_kept)]
    order = {applied.symbol: position for position, applied in enumerate(read_configs(configurations))}
    used = {each.entry for each in everywhere}
    return Application(
        text=replace_executables(sources, text, _symbols(kept + late_kept)),
        sources=sources,
        placed=tuple(sorted(everywhere, key=lambda each: order.get(each.symbol, -1))),
        lost=tuple(placed(each, is_late=each in late_applied) for each in lost),
        unmatched=tuple(row.matcher for row in read_spec(spec) if row.matcher not in used),
        flag_error=flag_error,
    )


def _survivors(configured: Configured, configurations: str) -> tuple[list[Applied], list[Applied]]:
    """Part the ops that took an entry's config: those that still have it once all configs are chosen, and the rest.

    The mark does not tell: an op that the compiler rewrites may keep its attributes and lose its config, or neither.
    """
    there = {(each.symbol, each.compilation_info) for each in read_configs(configurations)}
    kept: list[Applied] = []
    lost: list[Applied] = []
    for each in configured.applied:
        if each.entry:
            (kept if (each.symbol, each.compilation_info) in there else lost).append(each)
    return kept, lost


def _symbols(applied: Iterable[Applied]) -> list[str]:
    return list(dict.fromkeys(each.symbol for each in applied))
