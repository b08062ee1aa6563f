"""Porting: a spec that another release of IREE wrote, made anew for this one.

Configs are carried over as knobs. What an entry's config was made with is read from its attribute, or from its record
where this release does not parse it; the constraints that this release states for the same op say whether those knobs
are still a config, and which is nearest if not.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version, first_error
from pytest_shark_tune.compiler.configure import ConfigureFailed
from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError, SpecNotParsed, SpecRefused
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan, applied_to
from pytest_shark_tune.guard.speed import RUN_ALPHA
from pytest_shark_tune.guard.verdict import Outcome, Promise
from pytest_shark_tune.ops.standalone import lone_op
from pytest_shark_tune.plan.extract import extract
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import NO_SPACE, emitted_constraints, search_spaces, stated_spaces
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.snapshot import (
    read_records,
    read_text,
    recorded_targets,
    records_of,
    records_path,
    write_spec,
)
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space import PIPELINE_OPTIONS, NoSpace, SearchSpace, SpaceRequest, opened, options_of
from pytest_shark_tune.search_space.candidate import Candidate, applied_candidate, default_candidate, make_candidates
from pytest_shark_tune.search_space.config_reader import ReadConfig, Reading, option_values, read_config, read_knobs
from pytest_shark_tune.search_space.config_writer import cpu_compilation_info
from pytest_shark_tune.search_space.cpu.tiling import BACKEND as CPU
from pytest_shark_tune.search_space.nearest import nearest_member
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import mark_entries, named_configs, read_spec, with_configs
from pytest_shark_tune.system import journal, process
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.tools import old_spec
from pytest_shark_tune.tuning.session import Session

__all__ = ["Fate", "OldEntry", "OldSpec", "PortedEntry", "port", "read_old", "retuned", "target_of"]

_READER_TIMEOUT_S = 120.0
_TUNE_TIMEOUT_S = 24 * 3600.0
_NEUTRAL = tuple(
    f"#iree_codegen.compilation_info<lowering_config = {config}, "
    "translation_info = <pipeline = #iree_codegen.no_pipeline>>"
    for config in ("#iree_gpu.lowering_config<{}>", "#iree_gpu.lowering_config<{decomposition_config = {}}>")
)
"""Configs that stand for any while it is only asked what matches, without and with a decomposition beside it."""


class Fate(StrEnum):
    """What became of an entry."""

    SAME = "same config"
    NEAREST = "nearest config"
    KEPT = "kept as it is"
    LOST = "not ported"
    RETUNED = "tuned anew"


class OldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the old spec; ``matcher`` is empty where the spec is known from its records alone.

    ``compilation_info`` is empty where this IREE does not parse it, and ``config`` is ``None`` where nobody could read
    it.
    """

    name: str
    matcher: str = ""
    compilation_info: str = ""
    config: ReadConfig | None = None
    record: WinnerRecord | None = None


class OldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The spec at ``path`` as this IREE can read it: its entries and, if its matchers could be read, its text.

    Configs may stand in the text as mere names.
    """

    path: Path
    entries: tuple[OldEntry, ...]
    text: str = ""


class PortedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an entry, with its new config; ``changes`` are in words, and so is ``reason`` where it is lost.

    ``dispatch`` is the name of what it is for, empty where that was not found.
    """

    name: str
    fate: Fate
    matcher: str = ""
    dispatch: str = ""
    changes: tuple[str, ...] = ()
    reason: str = ""
    compilation_info: str = ""
    record: WinnerRecord | None = None


# What is there.


def read_old(path: Path, python: Path | None, *, timeout_s: float = _READER_TIMEOUT_S) -> OldSpec:
    """Read a spec and the records beside it; ``python`` runs in an environment with the IREE that wrote it.

    Raises:
        InputError: the file cannot be read, or nobody parses it and there are no records.
    """
    text = read_text(path)
    records = [each for each in read_records(path) if each.root is not None]
    try:
        rows = read_spec(text)
    except SpecRefused as error:
        raise InputError(f"{path}: {error}") from error
    except InputError as error:
        if python is not None:
            return _read_elsewhere(path, text, python, records, timeout_s)
        if records:
            return OldSpec(path=path, entries=tuple(map(_recorded_entry, records)))
        said = error.problem if isinstance(error, SpecNotParsed) else error
        raise InputError(
            f"{path}: {said}. It has no records in {records_path(path).name} either: give --from-python "
            "/path/to/python of an environment with the IREE that wrote it"
        ) from error
    return OldSpec(
        path=path,
        text=text,
        entries=tuple(
            OldEntry(
                name=record.dispatch if record else row.matcher,
                matcher=row.matcher,
                compilation_info=row.compilation_info,
                config=read_config(row.compilation_info) if row.compilation_info else None,
                record=record,
            )
            for row, record in zip(rows, records_of(rows, records), strict=True)
        ),
    )


def _recorded_entry(record: WinnerRecord) -> OldEntry:
    try:
        config, info = read_config(record.compilation_info), record.compilation_info
    except InputError:
        config, info = None, ""
    return OldEntry(name=record.dispatch, compilation_info=info, config=config, record=record)


class _ConfigElsewhere(msgspec.Struct, frozen=True):
    """A `ReadConfig`, whose recursive type cannot be decoded."""

    pipeline: str
    tree: dict[str, Any]


class _Elsewhere(msgspec.Struct, frozen=True):
    """What the reader in another environment writes."""

    iree: str
    spec: str
    configs: dict[str, _ConfigElsewhere]


def _read_elsewhere(path: Path, text: str, python: Path, records: Sequence[WinnerRecord], timeout_s: float) -> OldSpec:
    try:
        done = process.run([str(python), str(Path(old_spec.__file__))], stdin=text, timeout_s=timeout_s)
        read = msgspec.json.decode(done.stdout, type=_Elsewhere)
    except CommandFailed as error:
        raise InputError(f"--from-python {python}: it cannot read {path}: {error.stderr.strip() or error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"--from-python {python}: what it says of {path} is not understood: {error}") from error
    rows = read_spec(read.spec)
    configs = {name: ReadConfig(pipeline=each.pipeline, tree=each.tree) for name, each in read.configs.items()}
    names = named_configs(read.spec)
    found = dict(zip((row.matcher for row in rows), records_of(rows, records), strict=True))
    return OldSpec(
        path=path,
        text=read.spec,
        entries=tuple(
            OldEntry(
                name=record.dispatch if record else matcher,
                matcher=matcher,
                config=configs.get(names.get(matcher, "")),
                record=record,
            )
            for matcher, record in found.items()
        ),
    )


def target_of(path: Path) -> str | None:
    """The target that a spec's records are of, where there are any and they agree."""
    targets = recorded_targets(path)
    return targets.pop() if len(targets) == 1 else None


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
    dispatches = extract(given, compiler, processors, tell).dispatches if models else ()
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
    found = extract([read_source(source, Path())], compiler, processors).dispatches
    dispatch = next((each for each in found if each.key == entry.record.root.key), None)
    if dispatch is None:
        raise InputError("compiled by itself, the recorded op becomes another one: give the MODEL that it is from")
    lone.append(source)
    return dispatch


def _without_dispatch(entry: OldEntry, has_models: bool) -> PortedEntry:
    if has_models:
        return _lost(entry, "it matches no dispatch of the models")
    if not entry.compilation_info:
        return _lost(entry, "its config does not parse here, and without a record only a MODEL tells what it is for")
    return PortedEntry(name=entry.name, fate=Fate.KEPT, matcher=entry.matcher, compilation_info=entry.compilation_info)


def _lost(entry: OldEntry, reason: str, dispatch: str = "") -> PortedEntry:
    return PortedEntry(name=entry.name, fate=Fate.LOST, matcher=entry.matcher, dispatch=dispatch, reason=reason)


def _ported(entry: OldEntry, dispatch: Dispatch, session: Session) -> PortedEntry:
    """The entry with the config of this release's spaces that is nearest to its old one."""
    compiler = session.compiler
    if entry.config is None and entry.record is None:
        return _lost(entry, "it attaches no config", dispatch.name)
    pipeline = entry.config.pipeline if entry.config else entry.record.pipeline if entry.record else ""
    try:
        spaces = search_spaces(dispatch, compiler)
        fitting = [space for space in spaces if space.pipeline == pipeline]
        variants = [variant for space in fitting for variant in _variants(space, entry, compiler.target.backend)]
        fits = [_fit(variant, entry) for variant in variants]
    except NO_SPACE as error:
        said = first_error(error) if isinstance(error, CommandFailed) else str(error)
        return _lost(entry, f"no config can be made for {dispatch.name}: {said}", dispatch.name)
    if not fitting:
        there = ", ".join(dict.fromkeys(space.pipeline for space in spaces))
        return _lost(
            entry, f"there is no pipeline {pipeline} for {dispatch.name} any more; it has {there}", dispatch.name
        )
    best = min(fits, key=lambda fit: (not fit.is_same, len(fit.changes)))
    # What the compiler states is binding; the spaces that we build leave out what is not worth a try, too.
    if (
        not best.is_same
        and not stated_spaces(emitted_constraints(dispatch, compiler))
        and (kept := _kept(entry, dispatch, session))
    ):
        return kept
    return _with_config(entry, dispatch, best, str(compiler.target))


def _kept(entry: OldEntry, dispatch: Dispatch, session: Session) -> PortedEntry | None:
    """The entry with its old config, where that can be written down and compiles."""
    target = session.compiler.target
    record = entry.record
    info = entry.compilation_info
    try:
        if not info and entry.config and target.backend == CPU:
            info = cpu_compilation_info(entry.config)
        candidate = applied_candidate(
            dispatch.name,
            info,
            identifier=record.id if record else "ported",
            knobs=record.knobs if record else {},
        )
        task = Task(dispatch=dispatch, default=default_candidate(dispatch), candidates=(candidate,), space_size=None)
        session.artifact(task, candidate)
    except (InputError, CandidateFailed):
        return None
    if record is not None:
        is_same = record.target == str(target)
        record = _new_record(record, dispatch, candidate, is_same=is_same, target=str(target))
    return PortedEntry(
        name=entry.name,
        fate=Fate.KEPT,
        matcher=entry.matcher,
        dispatch=dispatch.name,
        compilation_info=candidate.compilation_info,
        record=record,
    )


class _Fit(msgspec.Struct, frozen=True):
    """How an old config comes out in a space: as the member ``knobs``, with ``changes`` in words."""

    space: SearchSpace
    knobs: dict[str, int]
    changes: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether the config says what the old one said."""
        return not self.changes


def _variants(space: SearchSpace, entry: OldEntry, backend: str) -> Iterator[SearchSpace]:
    """The space as it is and, where the old config has options that it pins, with these open."""
    yield space
    recorded = entry.record.knobs if entry.record else {}
    options = {name: value for name, value in recorded.items() if name in PIPELINE_OPTIONS}
    options |= option_values(entry.config) if entry.config else {}
    domains = {knob.name: knob.domain for knob in space.knobs}
    asked: dict[str, tuple[int, ...]] = {
        name: (value,)
        for name, value in options.items()
        if name in options_of(backend) and value not in domains.get(name, ())
    }
    if asked:
        try:
            yield from opened([space], SpaceRequest(knobs=asked), backend)
        except NoSpace:
            return


def _fit(space: SearchSpace, entry: OldEntry) -> _Fit:
    if entry.config:
        reading = read_knobs(space, entry.config)
    else:
        assert entry.record is not None
        recorded = entry.record.knobs
        others = [name for name in recorded if name not in space.names]
        reading = Reading(
            knobs={name: recorded[name] for name in space.names if name in recorded},
            differences=tuple(f"there is no knob {name} any more, which was {recorded[name]}" for name in others),
        )
    wanted = reading.knobs
    is_whole = len(wanted) == len(space.names)
    violated = space.violated(wanted) if is_whole else ()
    member = nearest_member(space, wanted) if violated or not is_whole else wanted
    return _Fit(space, member, (*reading.differences, *_changes(wanted, member, violated)))


def _changes(wanted: Mapping[str, int], member: Mapping[str, int], violated: Sequence[str]) -> Iterator[str]:
    for name, value in member.items():
        if name not in wanted:
            yield f"{name}: {value}, because the old config does not tell"
        elif wanted[name] != value:
            about = [reason for reason in violated if name in reason] or violated
            because = f", because {'; '.join(about)}" if about else ""
            yield f"{name}: {wanted[name]} -> {value}{because}"


def _with_config(entry: OldEntry, dispatch: Dispatch, fit: _Fit, target: str) -> PortedEntry:
    (candidate,) = make_candidates(dispatch.name, _root(entry.record, dispatch), fit.space, [fit.knobs])
    record = entry.record
    if record is not None:
        record = _new_record(
            record, dispatch, candidate, is_same=fit.is_same and record.target == target, target=target
        )
    return PortedEntry(
        name=entry.name,
        fate=Fate.SAME if fit.is_same else Fate.NEAREST,
        matcher=entry.matcher,
        dispatch=dispatch.name,
        changes=fit.changes,
        compilation_info=candidate.compilation_info,
        record=record,
    )


def _root(record: WinnerRecord | None, dispatch: Dispatch) -> RootOp:
    """The recorded root op where a matcher does not tell it from the dispatch's: ids are made of it."""
    recorded = record.root if record else None
    return recorded if recorded and recorded.key == dispatch.key else dispatch.root


def _new_record(
    record: WinnerRecord, dispatch: Dispatch, candidate: Candidate, *, is_same: bool, target: str
) -> WinnerRecord:
    """The record of the new entry. Figures stay, and with them the release they were taken with, if the config does."""
    changed = msgspec.structs.replace(
        record,
        id=candidate.id,
        root=_root(record, dispatch),
        pipeline=candidate.pipeline,
        knobs=candidate.knobs,
        config=candidate.config,
        compilation_info=candidate.compilation_info,
    )
    if is_same:
        return changed
    return msgspec.structs.replace(
        changed,
        compile_s=None,
        samples_us=(),
        baseline_samples_us=(),
        ratio=None,
        ratio_low=None,
        ratio_high=None,
        blocks=0,
        repeated=0,
        note=f"ported from IREE {record.iree}, not measured since",
        setting="",
        target=target,
        iree=compiler_version(),
    )


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
