"""Configs of another IREE release, fitted to this release's constraints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from pytest_shark_tune.compiler.compiler import compiler_version, first_error
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.allowed import ignored_entry
from pytest_shark_tune.plan.spaces import NO_SPACE, search_spaces
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.port.read_old import OldEntry
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space import PIPELINE_OPTIONS, NoSpace, SearchSpace, SpaceRequest, opened, options_of
from pytest_shark_tune.search_space.candidate import Candidate, applied_candidate, default_candidate, make_candidates
from pytest_shark_tune.search_space.config_reader import Reading, option_values, read_knobs
from pytest_shark_tune.search_space.config_writer import cpu_compilation_info, gpu_compilation_info
from pytest_shark_tune.search_space.nearest import nearest_member
from pytest_shark_tune.tuning.session import Session

__all__ = ["PortStatus", "PortedEntry", "keep_unplaced", "port_entry"]


class PortStatus(StrEnum):
    """The outcome for an entry."""

    SAME = "same config"
    NEAREST = "nearest config"
    KEPT = "kept as it is"
    NOT_PORTED = "not ported"
    RETUNED = "tuned anew"


class PortedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for one entry of the old spec."""

    name: str
    status: PortStatus
    matcher: str = ""
    dispatch: str = ""
    """The name of the dispatch that the entry is for; empty if none was found."""
    changes: tuple[str, ...] = ()
    """The differences between the old config and the new one, in words."""
    reason: str = ""
    """The reason why the entry is lost."""
    compilation_info: str = ""
    """The new config."""
    record: WinnerRecord | None = None

    @classmethod
    def not_ported(cls, entry: OldEntry, reason: str, dispatch: str = "") -> PortedEntry:
        """Return the outcome for an entry that cannot be ported."""
        return cls(
            name=entry.name, status=PortStatus.NOT_PORTED, matcher=entry.matcher, dispatch=dispatch, reason=reason
        )

    def as_not_ported(self, reason: str) -> PortedEntry:
        """Return the outcome for the same entry, not ported after all."""
        return msgspec.structs.replace(self, status=PortStatus.NOT_PORTED, reason=reason)


def keep_unplaced(entry: OldEntry, target: Target) -> PortedEntry:
    """Return the outcome for an entry that has neither a record nor a model: it is kept if this IREE has its config."""
    try:
        info = _info_of(entry, target)
    except InputError as error:
        reason = f"without a record only a MODEL tells what it is for, and {error}"
        return PortedEntry.not_ported(entry, reason)
    return PortedEntry(name=entry.name, status=PortStatus.KEPT, matcher=entry.matcher, compilation_info=info)


def _info_of(entry: OldEntry, target: Target) -> str:
    """Return the compilation info of an entry, written anew if this IREE does not parse it.

    Raises:
        InputError: this IREE has no such config.
    """
    if entry.compilation_info or entry.config is None:
        if not entry.compilation_info:
            raise InputError("its config does not parse here")
        return entry.compilation_info
    return (cpu_compilation_info if target.shares_processor else gpu_compilation_info)(entry.config)


def port_entry(entry: OldEntry, dispatch: Dispatch, session: Session) -> PortedEntry:
    """Return the entry with the config of this release's spaces that is nearest to its old one.

    Args:
        entry: the old entry.
        dispatch: the dispatch that it is for.
        session: compiles.
    """
    compiler = session.compiler
    if entry.config is None and entry.record is None:
        return PortedEntry.not_ported(entry, "it attaches no config", dispatch.name)
    pipeline = entry.config.pipeline if entry.config else entry.record.pipeline if entry.record else ""
    spaces: Sequence[SearchSpace] = ()
    reason = ""
    try:
        spaces = search_spaces(dispatch, compiler)
        fitting = [space for space in spaces if space.pipeline == pipeline]
        variants = [variant for space in fitting for variant in _variants(space, entry, compiler.target.backend)]
        fits = [_fit(variant, entry) for variant in variants]
        if not fits:
            there = ", ".join(dict.fromkeys(space.pipeline for space in spaces))
            reason = f"there is no pipeline {pipeline} for {dispatch.name} any more; it has {there}"
    except NO_SPACE as error:
        said = first_error(error) if isinstance(error, CommandFailed) else str(error)
        fits, reason = [], f"no config can be made for {dispatch.name}: {said}"
    best = min(fits, key=lambda fit: (not fit.is_same, len(fit.changes)), default=None)
    # Spaces leave out configs that the compiler takes, even those of the spec that IREE itself ships.
    if (best is None or not best.is_same) and (kept := _keep_config(entry, dispatch, spaces, session)):
        return kept
    if best is None:
        return PortedEntry.not_ported(entry, reason, dispatch.name)
    return _with_config(entry, dispatch, best, compiler.target)


def _keep_config(
    entry: OldEntry, dispatch: Dispatch, spaces: Sequence[SearchSpace], session: Session
) -> PortedEntry | None:
    """Return the entry with its old config if that has an attribute, compiles, and no part of it is ignored."""
    target = session.compiler.target
    record = entry.record
    try:
        candidate = applied_candidate(
            dispatch.name,
            _info_of(entry, target),
            identifier=record.id if record else "ported",
            knobs=record.knobs if record else {},
        )
        task = Task(dispatch=dispatch, default=default_candidate(dispatch), candidates=(candidate,), space_size=None)
        session.builder.artifact(task, candidate)
    except (InputError, CandidateFailed):
        return None
    if ignored_entry(session.builder, task, spaces):
        return None
    return _outcome(entry, dispatch, candidate, PortStatus.KEPT, target)


class _Fit(msgspec.Struct, frozen=True):
    """The nearest member of a space to an old config."""

    space: SearchSpace
    knobs: dict[str, int]
    changes: tuple[str, ...]
    """The differences to the old config, in words."""

    @property
    def is_same(self) -> bool:
        """Whether the config equals the old one."""
        return not self.changes


def _variants(space: SearchSpace, entry: OldEntry, backend: str) -> Iterator[SearchSpace]:
    """Yield the space and, if it pins options that the old config sets otherwise, the space with these open."""
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
    return _Fit(space, member, (*reading.differences, *_knob_changes(wanted, member, violated)))


def _knob_changes(wanted: Mapping[str, int], member: Mapping[str, int], violated: Sequence[str]) -> Iterator[str]:
    for name, value in member.items():
        if name not in wanted:
            yield f"{name}: {value}, because the old config does not tell"
        elif wanted[name] != value:
            about = [reason for reason in violated if name in reason] or violated
            because = f", because {'; '.join(about)}" if about else ""
            yield f"{name}: {wanted[name]} -> {value}{because}"


def _with_config(entry: OldEntry, dispatch: Dispatch, fit: _Fit, target: Target) -> PortedEntry:
    (candidate,) = make_candidates(dispatch.name, _root(entry.record, dispatch), fit.space, [fit.knobs])
    outcome = _outcome(entry, dispatch, candidate, PortStatus.SAME if fit.is_same else PortStatus.NEAREST, target)
    return msgspec.structs.replace(outcome, changes=fit.changes)


def _outcome(
    entry: OldEntry, dispatch: Dispatch, candidate: Candidate, status: PortStatus, target: Target
) -> PortedEntry:
    """Return the outcome for an entry that gets the config of ``candidate``."""
    return PortedEntry(
        name=entry.name,
        status=status,
        matcher=entry.matcher,
        dispatch=dispatch.name,
        compilation_info=candidate.compilation_info,
        record=_new_record(entry.record, dispatch, candidate, status, str(target)) if entry.record else None,
    )


def _root(record: WinnerRecord | None, dispatch: Dispatch) -> RootOp:
    """Return the recorded root op if a matcher takes it for the dispatch's: ids are made of it."""
    recorded = record.root if record else None
    return recorded if recorded and recorded.key == dispatch.key else dispatch.root


def _new_record(
    record: WinnerRecord, dispatch: Dispatch, candidate: Candidate, status: PortStatus, target: str
) -> WinnerRecord:
    """Return the record of the new entry. Figures, and the release of IREE they are of, stay if the config does."""
    changed = msgspec.structs.replace(
        record,
        id=candidate.id,
        root=_root(record, dispatch),
        pipeline=candidate.pipeline,
        knobs=candidate.knobs,
        config=candidate.config,
        compilation_info=candidate.compilation_info,
    )
    if status is not PortStatus.NEAREST and record.target == target:
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
        fingerprint="",
        target=target,
        iree=compiler_version(),
    )
