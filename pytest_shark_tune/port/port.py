"""Porting: a spec that another release of IREE wrote, made anew for this one.

Configs are carried over as knobs. What an entry's config was made with is read from its attribute, or from its record
where this release does not parse it; the constraints that this release states for the same op say whether those knobs
are still a config, and which is nearest if not.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import ConfigureFailed
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan, applied_to
from pytest_shark_tune.guard.speed import RUN_ALPHA
from pytest_shark_tune.guard.verdict import Outcome, Promise
from pytest_shark_tune.ops.standalone import lone_op
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.port.fit import Fate, PortedEntry, _lost, _ported, _without_dispatch
from pytest_shark_tune.port.read_old import OldEntry, OldSpec
from pytest_shark_tune.records.snapshot import (
    read_records,
    write_spec,
)
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import mark_entries, with_configs
from pytest_shark_tune.system import journal, process
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.tuning.session import Session

__all__ = ["port", "retuned"]

_TUNE_TIMEOUT_S = 24 * 3600.0
_NEUTRAL = tuple(
    f"#iree_codegen.compilation_info<lowering_config = {config}, "
    "translation_info = <pipeline = #iree_codegen.no_pipeline>>"
    for config in ("#iree_gpu.lowering_config<{}>", "#iree_gpu.lowering_config<{decomposition_config = {}}>")
)
"""Configs that stand for any while it is only asked what matches, without and with a decomposition beside it."""


# What is there.


# From entry to entry.


def port(
    old: OldSpec,
    new: Path,
    models: Sequence[object],
    session: Session,
    *,
    processors: int,
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[PortedEntry, ...]:
    """Write the port of ``old`` to ``new``, records beside it, and tell what became of each entry.

    What an entry is for is looked for among the dispatches of ``models``, each as `plan.read_source` takes it;
    without any a recorded entry's op is compiled by itself, and one without a record is kept where it parses. What
    comes out is held to its promises, those that take a device where ``session`` has one and there are models; an entry
    that breaks one is lost.

    Raises:
        InputError: a model cannot be read or compiled, or what is said of one is said of none.
    """
    compiler = session.compiler
    given = [read_source(each, Path(), session.settings.models) for each in models]
    if problem := session.settings.models.stray(given):
        raise InputError(problem)
    dispatches = extract_dispatches(given, compiler, processors, tell).dispatches if models else ()
    lone: list[object] = []
    drafts = []
    for entry in old.entries:
        tell(f"porting {entry.name}")
        try:
            dispatch = _in_models(entry, old, dispatches) if models else _alone(entry, compiler, processors, lone)
        except InputError as reason:
            drafts.append(_lost(entry, str(reason)))
            continue
        drafts.append(_ported(entry, dispatch, session) if dispatch else _without_dispatch(entry, bool(models)))
    with scratch_folder() as folder:
        checked = tuple(_checked(drafts, old, folder / new.name, models or lone, session, tell, whole=bool(models)))
    _write(new, checked, old)
    return checked


def _in_models(entry: OldEntry, old: OldSpec, dispatches: Sequence[Dispatch]) -> Dispatch | None:
    """The dispatch of the models that an entry is for: by its record's structure, else by what its matcher takes."""
    root = entry.record.root if entry.record else None
    if root is not None:
        found = next((each for each in dispatches if each.key == root.key), None)
        if found is not None:
            return found
    if not old.text:
        return None
    probe = _probe(old.text, entry.matcher)
    return next((each for each in dispatches if _takes(each, probe)), None)


def _probe(spec: str, matcher: str) -> str:
    """A spec of one entry that tells what it matches, whatever config it has.

    Raises:
        InputError: the entry hands on more than a config and a decomposition.
    """
    alone, beside = _NEUTRAL
    try:
        return mark_entries(with_configs(spec, {matcher: alone}))
    except InputError:
        return mark_entries(with_configs(spec, {matcher: beside}))


def _takes(dispatch: Dispatch, probe: str) -> bool:
    try:
        return bool(applied_to(dispatch, probe))
    except ConfigureFailed:  # It matches: what is refused is the config.
        return True


def _alone(entry: OldEntry, compiler: Compiler, processors: int, lone: list[object]) -> Dispatch | None:
    """The dispatch that comes of a recorded root op alone, whose source is added to ``lone``.

    Raises:
        InputError: there is none, or its root op is another one.
    """
    if entry.record is None or entry.record.root is None:
        return None
    source = lone_op(entry.record.dispatch, entry.record.root)
    found = extract_dispatches([read_source(source, Path())], compiler, processors).dispatches
    dispatch = next((each for each in found if each.key == entry.record.root.key), None)
    if dispatch is None:
        raise InputError("compiled by itself, the recorded op becomes another one: give the MODEL that it is from")
    lone.append(source)
    return dispatch


# What is written.


def _write(path: Path, ported: Iterable[PortedEntry], old: OldSpec) -> None:
    """Write the spec of the entries that are not lost, recorded ones first.

    Without any there is no file, unless it is the old spec itself, which then stays.
    """
    kept = [each for each in ported if each.fate is not Fate.LOST]
    if not kept and path.exists() and path.samefile(old.path):
        return
    winners = [each.record for each in kept if each.record]
    others = {each.matcher: each.compilation_info for each in kept if not each.record}
    starter = with_configs(old.text, others) if others else None
    write_spec(path, winners, starter)
    if starter and not winners:
        journal.replace_file(path, link_spec(starter).encode())


def _checked(
    drafts: Sequence[PortedEntry],
    old: OldSpec,
    path: Path,
    sources: Sequence[object],
    session: Session,
    tell: Callable[[str], None],
    *,
    whole: bool,
) -> Iterator[PortedEntry]:
    """The drafts, those of them lost that break a promise; ``whole`` says that ``sources`` are all they are for."""
    _write(path, drafts, old)
    if not path.exists():
        yield from drafts
        return
    guarded = session.guard_plan(sources, Path(), path)
    for draft in drafts:
        if draft.fate is Fate.LOST:
            yield draft
            continue
        entry = _guarded(draft, guarded)
        if entry is None:
            yield msgspec.structs.replace(draft, fate=Fate.LOST, reason="an entry before it asks the very same")
            continue
        tell(f"checking {draft.name}")
        reason = _broken(entry, guarded, session, whole=whole)
        yield msgspec.structs.replace(draft, fate=Fate.LOST, reason=reason) if reason else draft


def _guarded(draft: PortedEntry, guarded: GuardPlan) -> GuardEntry | None:
    """The entry of the written spec that a draft became."""
    return next(
        (
            each
            for each in guarded.entries
            if (each.record == draft.record if draft.record else each.record is None and each.matcher == draft.matcher)
        ),
        None,
    )


def _broken(entry: GuardEntry, guarded: GuardPlan, session: Session, *, whole: bool) -> str:
    """The first promise that the entry breaks, in words; of one whose op is not known it is only asked to parse."""
    promises: Iterable[Promise] = Promise
    if not whole:
        promises = [each for each in Promise if each.is_static] if entry.record else [Promise.PARSES]
    alpha = RUN_ALPHA / len(guarded.entries)
    for promise in promises:
        verdict = session.look(guarded, entry, promise, alpha=alpha)
        if verdict.outcome is Outcome.BROKEN:
            return verdict.reason.removeprefix(f"{entry.name} of {guarded.spec_path}: ")
    return ""


# What could not be ported.


def retuned(
    ported: Sequence[PortedEntry],
    new: Path,
    old: OldSpec,
    models: Sequence[Path],
    target: str,
    options: Sequence[str],
    tell: Callable[[str], None],
) -> tuple[PortedEntry, ...]:
    """Tune what was lost, but for what is for no dispatch, with ``pytest --tune``; write the winners into ``new`` too.

    ``options`` are pytest's. ``tell`` is told what is tuned.

    Raises:
        InputError: pytest did not come to an end.
    """
    lost = sorted({each.dispatch for each in ported if each.fate is Fate.LOST and each.dispatch})
    if not lost:
        return tuple(ported)
    with scratch_folder() as folder:
        out = folder / "tuned"
        command = [sys.executable, "-m", "pytest", *map(str, models), "--tune", "--tune-target", target]
        chosen = [*(f"[{name}-" for name in lost), "[spec]"]  # With the bracket: names may end others.
        command += ["--tune-out", str(out), "-k", " or ".join(chosen)]
        command += options
        tell(f"tuning {', '.join(lost)} anew; this takes a while")
        try:
            process.run(command, timeout_s=_TUNE_TIMEOUT_S)
        except CommandFailed as error:
            raise InputError(f"--retune: {error}; to see why: {shlex.join(command)}") from error
        winners = {each.dispatch: each for each in read_records(out / "spec.mlir")}
    result = tuple(
        _retuned(each, winners) if each.fate is Fate.LOST and each.dispatch in lost else each for each in ported
    )
    _write(new, result, old)
    return result


def _retuned(entry: PortedEntry, winners: Mapping[str, WinnerRecord]) -> PortedEntry:
    record = winners.get(entry.dispatch)
    if record is None:
        return msgspec.structs.replace(entry, reason=f"{entry.reason}; tuned anew, nothing was faster than the default")
    return msgspec.structs.replace(
        entry, fate=Fate.RETUNED, record=record, changes=(), reason="", compilation_info=record.compilation_info
    )
