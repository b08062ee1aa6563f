"""Applicability: which ops an entry of a spec is applied to, and why it is not applied to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pytest_shark_tune.compiler.configure import ConfigureFailed
from pytest_shark_tune.compiler.flags import SPEC_FLAG
from pytest_shark_tune.errors import CandidateFailed, CheckFailed, InputError
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.spec.apply import Placement, apply_spec
from pytest_shark_tune.spec.predicate import MatchPredicate, differences
from pytest_shark_tune.spec.read import mark_entries, read_predicates, select_entries
from pytest_shark_tune.spec.takers import applied_to
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.builder import Builder

__all__ = ["Applicability"]

_BY_FLAG = "flag"


class _Application(msgspec.Struct, frozen=True):
    """The application of a spec to a source, without the resulting module."""

    placements: tuple[Placement, ...] = msgspec.field(default=(), name="placed")
    """Where entries apply."""
    dropped: tuple[Placement, ...] = msgspec.field(default=(), name="lost")
    """Where the compiler dropped the config of an entry afterwards."""
    flag_error: str = ""
    """Why iree-compile's own flag fails; empty if it works."""
    error: str = ""
    """Why the spec cannot be applied at all; empty if it can."""

    @property
    def failed(self) -> bool:
        """Whether the compiler failed."""
        return bool(self.error or self.flag_error)


class Applicability:
    """Checks where entries apply, if the spec is applied by ``route`` (see `RunSettings`).

    The application of a spec to a source is cached, since the checks of all its entries need it.
    """

    def __init__(self, builder: Builder, cache: Cache, route: str) -> None:
        self._builder = builder
        self._cache = cache
        self._route = route

    def check(self, guarded: GuardPlan, entry: GuardEntry) -> list[str]:
        """Check that an entry applies to exactly its ops.

        Returns:
            Notes on its dispatches and sources.

        Raises:
            CheckFailed: it does not.
        """
        target = self._builder.compiler.target
        if self._route == _BY_FLAG and not target.loads_specs:
            raise CheckFailed(
                f"{target.backend} silently ignores iree-compile {SPEC_FLAG}: build with shark-tune compile, and "
                "guard with --tune-guard-route compile"
            )
        marked = mark_entries(guarded.spec)
        notes = [note for task in entry.tasks for note in self._check_in(task, guarded, entry, marked)]
        is_anywhere = False
        for source in guarded.plan.sources:
            hit, said = self._hits(source, guarded, entry)
            is_anywhere = is_anywhere or bool(hit)
            notes += said
        if not is_anywhere:
            raise CheckFailed(_why_nowhere(guarded, entry))
        return notes

    def _check_in(self, task: Task, guarded: GuardPlan, entry: GuardEntry, marked: str) -> list[str]:
        """Check the entry in one of its dispatches, and return notes."""
        (candidate,) = task.candidates
        try:
            taken = {applied.entry: applied.compilation_info for applied in applied_to(task.dispatch, marked)}
        except ConfigureFailed as error:
            raise CheckFailed(f"the compiler refuses it on {task.name}: {error}") from error
        if entry.matcher not in taken:
            raise CheckFailed(_why_not_in(task, guarded, entry, list(taken)))
        if taken[entry.matcher] != candidate.compilation_info:
            raise CheckFailed(f"{task.name} gets {taken[entry.matcher]} of it instead of {candidate.compilation_info}")
        default = task.default
        try:
            tuned, plain = self._builder.artifact(task, candidate), self._builder.artifact(task, default)
        except CandidateFailed as failure:
            raise CheckFailed(f"it does not compile for {task.name}: {failure}") from failure
        if tuned.sha256 != plain.sha256:
            return []
        if (default.pipeline, default.config) != (candidate.pipeline, candidate.config):
            raise CheckFailed(
                f"the backend ignores the config: the binary of {task.name} is the default's, byte for byte. Take the "
                "entry out, or tune the dispatch again with --tune"
            )
        return [f"no longer needed: the compiler chooses the same config for {task.name} by itself"]

    def _hits(self, source: Source, guarded: GuardPlan, entry: GuardEntry) -> tuple[set[str], list[str]]:
        """Check the executables of a source that the entry applies to; return them, and notes."""
        application = self._application(source, guarded, entry)
        placements = [placement for placement in application.placements if placement.entry == entry.matcher]
        hit = {placement.symbol for placement in placements}
        recorded = {op.symbol for op in (entry.record.ops if entry.record else ()) if op.source == source.name}
        members = (member for task in entry.tasks for member in task.dispatch.members)
        alike = {member.symbol for member in members if member.source == source.name}
        missed, extra = (recorded or alike) - hit, hit - recorded if recorded else set()
        notes = []
        if missed and len(missed) == len(extra) and extra <= alike and not missed & alike:
            notes.append(f"{_join_symbols(missed)} in {source.name} is called {_join_symbols(extra)} by now")
        elif missed:
            symbol = min(missed)
            why = _why_missed(symbol, source, application, guarded, entry)
            raise CheckFailed(
                f"it does not apply to {_join_symbols(missed)} in the whole of {source.name}: {why}. Tune again with "
                "--tune"
            )
        elif extra:
            raise CheckFailed(
                f"in the whole of {source.name} it applies to {_join_symbols(extra)} as well, which its record does "
                "not list: tune again with --tune, so that it is checked there too"
            )
        return hit, notes + self._by_route(source, placements, application, guarded, entry)

    def _by_route(
        self,
        source: Source,
        placements: Sequence[Placement],
        application: _Application,
        guarded: GuardPlan,
        entry: GuardEntry,
    ) -> list[str]:
        """Check the entry with iree-compile's own flag, and return notes."""
        if application.flag_error:
            alone = self._run(guarded, source, select_entries(guarded.spec, [entry.matcher]))
            if alone.flag_error:
                raise CheckFailed(f"iree-compile {SPEC_FLAG} fails on {source.name} with it: {alone.flag_error}")
        left = sorted({placement.symbol for placement in placements if not placement.by_flag})
        if not left or not self._builder.compiler.target.loads_specs:
            return []
        said = f"only shark-tune compile applies it to {', '.join(left)} in {source.name}"
        if self._route == _BY_FLAG:
            raise CheckFailed(f"iree-compile {SPEC_FLAG} does not apply it: {said}")
        return [said]

    def _application(self, source: Source, guarded: GuardPlan, entry: GuardEntry) -> _Application:
        """The application of the spec to a source.

        Raises:
            CheckFailed: the spec cannot be applied, because of this entry or another one.
        """
        application = self._run(guarded, source, guarded.spec)
        if application.error:
            alone = self._run(guarded, source, select_entries(guarded.spec, [entry.matcher]))
            raise CheckFailed(
                alone.error or f"no entry of the spec applies, because of another entry: {application.error}"
            )
        return application

    def _run(self, guarded: GuardPlan, source: Source, spec: str) -> _Application:
        def make() -> _Application:
            try:
                application = apply_spec(source, spec, self._builder.compiler)
            except InputError as error:
                return _Application(error=str(error))
            return _Application(application.placements, application.dropped, application.flag_error)

        key = content_key("application", guarded.key, source.name, spec)
        # An error may be the fault of a busy machine.
        return self._cache.get_or_make("checks", key, _Application, make, lasts=lambda done: not done.failed)


def _join_symbols(symbols: Iterable[str]) -> str:
    return ", ".join(sorted(symbols))


def _why_not_in(task: Task, guarded: GuardPlan, entry: GuardEntry, taken: Sequence[str]) -> str:
    """Why the entry does not apply to one of its dispatches, to which those of ``taken`` apply."""
    if taken:
        alone = applied_to(task.dispatch, mark_entries(select_entries(guarded.spec, [entry.matcher])))
        if alone:
            return (
                f"it is never reached on {task.name}: {', '.join(taken)} before it in the spec matches the same "
                "op. Take one of the two out, or put this one in front"
            )
    return (
        f"its matcher does not match {task.name}, for which it was recorded: {_differences(task, guarded, entry)}. If "
        "the spec was edited, take it from version control again, or tune the dispatch again with --tune"
    )


def _why_missed(symbol: str, source: Source, application: _Application, guarded: GuardPlan, entry: GuardEntry) -> str:
    """Why the entry does not apply to an executable of a source."""
    if any(dropped.entry == entry.matcher and dropped.symbol == symbol for dropped in application.dropped):
        return "the compiler drops the config afterwards"
    if others := [placement.entry for placement in application.placements if placement.symbol == symbol]:
        return f"{', '.join(others)} before it in the spec matches the same op"
    for task in guarded.plan.tasks:
        if any(member.source == source.name and member.symbol == symbol for member in task.dispatch.members):
            return f"{task.name}, the op there, differs: {_differences(task, guarded, entry)}"
    for dispatch in guarded.plan.untunable:
        if dispatch.source == source.name and dispatch.name == symbol:
            return f"it cannot be checked: {dispatch.reason}"
    return f"there is no such op any more; {_nearest(guarded, entry)}"


def _why_nowhere(guarded: GuardPlan, entry: GuardEntry) -> str:
    sources = ", ".join(source.name for source in guarded.plan.sources)
    return (
        f"it never matches: it applies to no op of {sources}; {_nearest(guarded, entry)}. Take the entry out, or "
        "tune again with --tune"
    )


def _nearest(guarded: GuardPlan, entry: GuardEntry) -> str:
    """Names the dispatch that is most like the entry's own, and how it differs."""
    kind = _predicate_of(guarded, entry).kind
    taken = {task.name for task in entry.tasks}
    alike = [task for task in guarded.plan.tasks if task.dispatch.root.kind == kind and task.name not in taken]
    if not alike:
        return f"there is no other {kind} among the dispatches"
    found = min(alike, key=lambda task: len(differences(_predicate_of(guarded, entry), task.dispatch.root)))
    return f"the nearest dispatch is {found.name}: {_differences(found, guarded, entry)}"


def _differences(task: Task, guarded: GuardPlan, entry: GuardEntry) -> str:
    found = differences(_predicate_of(guarded, entry), task.dispatch.root)
    return "; ".join(found) or "in something that cannot be named"


def _predicate_of(guarded: GuardPlan, entry: GuardEntry) -> MatchPredicate:
    return next(predicate for predicate in read_predicates(guarded.spec) if predicate.matcher == entry.matcher)
