"""Promises: looks at what a spec entry promises, each with the tools that tuning uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat

import msgspec

from pytest_shark_tune.apply import Placement, apply_spec
from pytest_shark_tune.bench import Bench
from pytest_shark_tune.builds import Builds
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guardplan import GuardEntry, GuardPlan, applied_to
from pytest_shark_tune.plan import Source, Task, search_spaces
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.stages.artifact import Artifact, ConfigureFailed
from pytest_shark_tune.stages.guard import Outcome, Promise, Terms, Verdict, hold_gate
from pytest_shark_tune.stages.question import Question, differences, read_questions
from pytest_shark_tune.stages.space import Knob, NoSpace, SearchSpace, UnboundedKnob, UnreadableConstraints
from pytest_shark_tune.stages.space.reading import knobs_of
from pytest_shark_tune.stages.spec import mark_entries, select_entries
from pytest_shark_tune.tools.cache import Cache, content_key
from pytest_shark_tune.tools.compiler import compiler_version, first_error

__all__ = ["OWN_DOMAINS", "Promises"]

OWN_DOMAINS = ("llvm-cpu", "vulkan")
"""Backends whose spaces we make: that a value is not among those worth a try there says nothing about the compiler."""
_FLAG = "--iree-codegen-tuning-spec-path"
_BY_FLAG = "flag"
_NO_SPACE = (CommandFailed, NoSpace, UnboundedKnob, UnreadableConstraints)


class _Broken(Exception):
    """A promise that is not kept; the message says why, in words."""


class _Untold(Exception):
    """A promise that cannot be looked at; the message says why, in words."""


class _Application(msgspec.Struct, frozen=True):
    """What a spec does to a source, without the module that comes of it; ``error`` says why nothing does."""

    placed: tuple[Placement, ...] = ()
    lost: tuple[Placement, ...] = ()
    flag_error: str = ""
    error: str = ""


class Promises:
    """Looks at promises for one process of a run. Static ones are looked at once and kept in the cache."""

    def __init__(self, settings: RunSettings, cache: Cache, builds: Builds, bench: Bench) -> None:
        self._settings = settings
        self._cache = cache
        self._builds = builds
        self._bench = bench

    def look(
        self,
        guarded: GuardPlan,
        entry: GuardEntry,
        promise: Promise,
        artifact: Artifact | None = None,
        *,
        alpha: float,
    ) -> Verdict:
        """What became of ``promise``; ``artifact`` is that of the entry's first task.

        ``alpha`` is the probability of a false alarm that this entry's speed promise has, of the whole run's.
        """
        for earlier in Promise:
            if earlier is promise:
                break
            if earlier.is_static and self._static(guarded, entry, earlier).outcome is Outcome.BROKEN:
                return _verdict(entry, promise, Outcome.SKIPPED, reason=f"see [{entry.name}-{earlier}]")
        if promise.is_static:
            return self._static(guarded, entry, promise)
        look = self._correct if promise is Promise.CORRECT else self._fast
        try:
            self._check_device(entry)
            verdict = look(entry, artifact, alpha)
            return msgspec.structs.replace(verdict, reason=verdict.reason and _named(verdict.reason, guarded, entry))
        except _Broken as reason:
            return _verdict(entry, promise, Outcome.BROKEN, reason=_named(reason, guarded, entry))
        except _Untold as reason:
            return _verdict(entry, promise, Outcome.SKIPPED, reason=str(reason))

    # Promises that are looked at without a device.

    def _static(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> Verdict:
        key = content_key("promise", guarded.key, entry.name, promise, self._settings.route)
        return self._cache.get_or_make("checks", key, Verdict, lambda: self._look_static(guarded, entry, promise))

    def _look_static(self, guarded: GuardPlan, entry: GuardEntry, promise: Promise) -> Verdict:
        look = {Promise.PARSES: _parses, Promise.ALLOWED: self._allowed, Promise.APPLIES: self._applies}[promise]
        try:
            notes = look(guarded, entry)
        except _Broken as reason:
            return _verdict(entry, promise, Outcome.BROKEN, reason=_named(reason, guarded, entry))
        except _Untold as reason:
            return _verdict(entry, promise, Outcome.SKIPPED, reason=str(reason))
        return _verdict(entry, promise, Outcome.KEPT, note="; ".join(dict.fromkeys(notes)))

    def _allowed(self, guarded: GuardPlan, entry: GuardEntry) -> list[str]:
        if not entry.tasks:
            raise _Untold(f"it is for no dispatch here: see [{entry.name}-{Promise.APPLIES}]")
        return [note for task in entry.tasks for note in self._allowed_in(task, entry)]

    def _allowed_in(self, task: Task, entry: GuardEntry) -> Iterator[str]:
        """Notes on what the constraints of a dispatch do not tell of the entry's config, and compiling it does."""
        (candidate,) = task.candidates
        is_ours = self._builds.compiler.target.backend in OWN_DOMAINS
        try:
            spaces = search_spaces(task.dispatch, self._builds.compiler)
        except _NO_SPACE as error:
            said = first_error(error) if isinstance(error, CommandFailed) else str(error)
            yield self._told_by_compiling(task, f"no constraints to hold it against: {said}")
            return
        fitting = [space for space in spaces if space.pipeline == candidate.pipeline]
        if not fitting:
            there = ", ".join(dict.fromkeys(space.pipeline for space in spaces))
            said = f"there is no pipeline {candidate.pipeline} for {task.name}; it has {there}"
            if not is_ours:
                raise _Broken(f"{said}. Tune the dispatch again (--tune)")
            yield self._told_by_compiling(task, said)
            return
        unread, violations = [], []
        for space in fitting:
            knobs = _knobs(space, task, entry)
            if isinstance(knobs, str):
                unread.append(knobs)
                continue
            violated = (_widened(space, knobs) if is_ours else space).violated(knobs)
            if not violated:
                return
            violations.append(violated)
        if violations and not unread:
            fewest = min(violations, key=len)
            raise _Broken(
                f"its config breaks the constraints of {candidate.pipeline} on {task.name}: {'; '.join(fewest)}. "
                "Port it (`shark-tune port`), or tune the dispatch again (--tune)"
            )
        yield self._told_by_compiling(task, "; ".join(unread))

    def _told_by_compiling(self, task: Task, why: str) -> str:
        try:
            self._tuned(task)
        except CandidateFailed as failure:
            raise _Broken(f"{why}; and the compiler refuses it: {failure.reason}") from failure
        return f"{why}; it compiles"

    def _applies(self, guarded: GuardPlan, entry: GuardEntry) -> list[str]:
        target = self._builds.compiler.target
        if self._settings.route == _BY_FLAG and not target.loads_specs:
            raise _Broken(
                f"{target.backend} ignores iree-compile {_FLAG} without a word: build with shark-tune compile, and "
                "guard with --tune-guard-route compile"
            )
        marked = mark_entries(guarded.spec)
        notes = [note for task in entry.tasks for note in self._applies_in(task, guarded, entry, marked)]
        is_anywhere = False
        for source in guarded.plan.sources:
            hit, said = self._hits(source, guarded, entry)
            is_anywhere = is_anywhere or bool(hit)
            notes += said
        if not is_anywhere:
            raise _Broken(_why_nowhere(guarded, entry))
        return notes

    def _applies_in(self, task: Task, guarded: GuardPlan, entry: GuardEntry, marked: str) -> list[str]:
        """Notes on the entry in one dispatch that it is for."""
        (candidate,) = task.candidates
        try:
            taken = {each.entry: each.compilation_info for each in applied_to(task.dispatch, marked)}
        except ConfigureFailed as error:
            raise _Broken(f"the compiler refuses it on {task.name}: {error}") from error
        if entry.matcher not in taken:
            raise _Broken(_why_not_in(task, guarded, entry, list(taken)))
        if taken[entry.matcher] != candidate.compilation_info:
            raise _Broken(f"{task.name} gets {taken[entry.matcher]} of it instead of {candidate.compilation_info}")
        default = task.default
        if (default.pipeline, default.config) == (candidate.pipeline, candidate.config):
            return [f"this compiler's default for {task.name} is this very config: the entry is not needed any more"]
        try:
            tuned, plain = self._tuned(task), self._builds.artifact(task, default)
        except CandidateFailed as failure:
            raise _Broken(f"no binary comes of it for {task.name}: {failure}") from failure
        if tuned.sha256 == plain.sha256:
            raise _Broken(
                f"the backend ignores the config: the binary of {task.name} is the default's, byte for byte. Take the "
                "entry out, or tune the dispatch again (--tune)"
            )
        return []

    # Promises that take a device.

    def _check_device(self, entry: GuardEntry) -> None:
        if not self._settings.devices:
            raise _Untold(f"there is no device here that runs {self._builds.compiler.target} (--tune-device)")
        if not entry.tasks:
            raise _Untold("it applies to ops before the compiler rewrites them, and can only be run as part of a model")

    def _correct(self, entry: GuardEntry, artifact: Artifact | None, alpha: float) -> Verdict:
        for task, given in _with_artifact(entry, artifact):
            self._check_result(task, given)
        return _verdict(entry, Promise.CORRECT, Outcome.KEPT)

    def _check_result(self, task: Task, artifact: Artifact | None) -> None:
        (candidate,) = task.candidates
        try:
            self._bench.check_members(task, candidate, artifact)
        except CandidateFailed as failure:
            raise _Broken(f"on {task.name}: {failure}") from failure

    def _fast(self, entry: GuardEntry, artifact: Artifact | None, alpha: float) -> Verdict:
        if entry.record and not entry.is_local:
            raise _Untold(f"recorded on {entry.record.device}, this is {self._settings.device_name}")
        terms = Terms(
            alpha=alpha / len(entry.tasks),
            device=self._settings.device_name,
            iree=compiler_version(),
            record=entry.record,
            tolerance=self._settings.tolerance,
        )
        verdicts = {
            task.name: self._hold_gate(entry, task, given, terms) for task, given in _with_artifact(entry, artifact)
        }
        return _joined(verdicts)

    def _hold_gate(self, entry: GuardEntry, task: Task, artifact: Artifact | None, terms: Terms) -> Verdict:
        (candidate,) = task.candidates
        try:
            return hold_gate(
                entry.name, lambda number: self._bench.gate_round(task, candidate, number, artifact), terms
            )
        except CandidateFailed as failure:
            try:
                self._check_result(task, artifact)
            except _Broken:
                raise _Untold(f"see [{entry.name}-{Promise.CORRECT}]") from failure
            raise _Broken(f"while {task.name} was timed: {failure}") from failure

    # What static promises are made of.

    def _tuned(self, task: Task) -> Artifact:
        (candidate,) = task.candidates
        return self._builds.artifact(task, candidate)

    def _hits(self, source: Source, guarded: GuardPlan, entry: GuardEntry) -> tuple[set[str], list[str]]:
        """The executables of a source that the entry is in force on, just those that it should be, and notes."""
        application = self._application(source, guarded, entry)
        placed = [each for each in application.placed if each.entry == entry.matcher]
        hit = {each.symbol for each in placed}
        wanted = _recorded(source, guarded, entry)
        alike = _alike(source, entry)
        missed, extra = (alike if wanted is None else wanted) - hit, set() if wanted is None else hit - wanted
        notes = []
        if missed and len(missed) == len(extra) and extra <= alike and not missed & alike:
            notes.append(f"{_listed(missed)} in {source.name} is called {_listed(extra)} by now")
        elif missed:
            symbol = min(missed)
            why = _why_missed(symbol, source, application, guarded, entry)
            raise _Broken(f"it does not apply to {_listed(missed)} in the whole of {source.name}: {why}")
        elif extra:
            raise _Broken(
                f"in the whole of {source.name} it applies to {_listed(extra)} as well, which its record does not "
                "list: tune again with --tune, so that it is checked there too"
            )
        return hit, notes + self._by_route(source, placed, application, guarded, entry)

    def _by_route(
        self,
        source: Source,
        placed: Sequence[Placement],
        application: _Application,
        guarded: GuardPlan,
        entry: GuardEntry,
    ) -> list[str]:
        """Notes on what iree-compile's own flag makes of the entry, for whoever applies the spec by it."""
        if application.flag_error:
            alone = self._run(source, guarded, select_entries(guarded.spec, [entry.matcher]))
            if alone.flag_error:
                raise _Broken(f"iree-compile {_FLAG} fails on {source.name} with it: {alone.flag_error}")
        left = sorted({each.symbol for each in placed if not each.by_flag})
        if not left or not self._builds.compiler.target.loads_specs:
            return []
        said = f"only shark-tune compile applies it to {', '.join(left)} in {source.name}"
        if self._settings.route == _BY_FLAG:
            raise _Broken(f"iree-compile {_FLAG} does not apply it: {said}")
        return [said]

    def _application(self, source: Source, guarded: GuardPlan, entry: GuardEntry) -> _Application:
        """What the spec does to a source.

        Raises:
            _Broken: nothing, for this entry's sake or another's.
        """
        application = self._run(source, guarded, guarded.spec)
        if application.error:
            alone = self._run(source, guarded, select_entries(guarded.spec, [entry.matcher]))
            raise _Broken(alone.error or f"no entry of the spec applies, for the sake of another: {application.error}")
        return application

    def _run(self, source: Source, guarded: GuardPlan, spec: str) -> _Application:
        def make() -> _Application:
            try:
                application = apply_spec(source, spec, self._builds.compiler)
            except InputError as error:
                return _Application(error=str(error))
            return _Application(application.placed, application.lost, application.flag_error)

        key = content_key("application", guarded.key, source.name, spec)
        return self._cache.get_or_make("checks", key, _Application, make)


def _parses(guarded: GuardPlan, entry: GuardEntry) -> list[str]:
    if entry.problem:
        raise _Broken(entry.problem)
    return []


def _named(reason: Exception | str, guarded: GuardPlan, entry: GuardEntry) -> str:
    return f"{entry.name} of {guarded.spec_path}: {reason}"


def _with_artifact(entry: GuardEntry, artifact: Artifact | None) -> Iterator[tuple[Task, Artifact | None]]:
    """The tasks of an entry, the first with what was compiled for it."""
    return zip(entry.tasks, chain([artifact], repeat(None)))  # noqa: B905 - the second has no end


def _joined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on the speed of an entry in several dispatches: the worst of them, with the figures of its lowest."""
    worst = next(
        outcome
        for outcome in (Outcome.BROKEN, Outcome.UNDECIDED, Outcome.KEPT)
        if any(each.outcome is outcome for each in verdicts.values())
    )
    those = {name: each for name, each in verdicts.items() if each.outcome is worst}
    lowest = min(those.values(), key=lambda each: each.figures["ratio"])
    if len(verdicts) == 1:
        return lowest

    def joined(texts: Mapping[str, str]) -> str:
        return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)

    return msgspec.structs.replace(
        lowest,
        reason=joined({name: each.reason for name, each in those.items()}),
        note=joined({name: each.note for name, each in those.items()}),
    )


def _verdict(entry: GuardEntry, promise: Promise, outcome: Outcome, *, reason: str = "", note: str = "") -> Verdict:
    return Verdict(entry=entry.name, promise=promise, outcome=outcome, reason=reason, note=note)


def _knobs(space: SearchSpace, task: Task, entry: GuardEntry) -> Mapping[str, int] | str:
    """The knobs of the entry's config in ``space``, or why there are none."""
    recorded = entry.record.knobs if entry.record else {}
    if set(recorded) == set(space.names):
        return recorded
    (candidate,) = task.candidates
    return knobs_of(space, candidate.compilation_info)


def _widened(space: SearchSpace, knobs: Mapping[str, int]) -> SearchSpace:
    """The space with these values among those that its knobs may take."""
    widened = tuple(
        Knob(knob.name, tuple(sorted({*knob.domain, knobs[knob.name]}))) if knob.name in knobs else knob
        for knob in space.knobs
    )
    return msgspec.structs.replace(space, knobs=widened)


def _listed(symbols: Iterable[str]) -> str:
    return ", ".join(sorted(symbols))


def _recorded(source: Source, guarded: GuardPlan, entry: GuardEntry) -> set[str] | None:
    """The executables of a source that the entry was recorded for; ``None`` where its record does not tell."""
    ops = entry.record.ops if entry.record else ()
    return {each.symbol for each in ops if each.source == source.name} or None


def _alike(source: Source, entry: GuardEntry) -> set[str]:
    """The executables of a source whose dispatch the entry is for."""
    members = (member for task in entry.tasks for member in task.dispatch.members)
    return {member.symbol for member in members if member.source == source.name}


def _why_not_in(task: Task, guarded: GuardPlan, entry: GuardEntry, taken: Sequence[str]) -> str:
    """Why the entry is not in force on a dispatch that it is for, those of ``taken`` being in force there."""
    if taken:
        alone = applied_to(task.dispatch, mark_entries(select_entries(guarded.spec, [entry.matcher])))
        if alone:
            return (
                f"it never gets its turn on {task.name}: {', '.join(taken)} before it in the spec matches the same "
                "op. Take one of the two out, or put this one in front"
            )
    return f"its matcher does not match {task.name}, for which it was recorded: {_differences(task, guarded, entry)}"


def _why_missed(symbol: str, source: Source, application: _Application, guarded: GuardPlan, entry: GuardEntry) -> str:
    """Why the entry is not in force on an executable of a source, in words."""
    if any(each.entry == entry.matcher and each.symbol == symbol for each in application.lost):
        return "the compiler drops the config afterwards"
    if others := [each.entry for each in application.placed if each.symbol == symbol]:
        return f"{', '.join(others)} before it in the spec matches the same op"
    for task in guarded.plan.tasks:
        if any(member.source == source.name and member.symbol == symbol for member in task.dispatch.members):
            return f"{task.name}, the op there, differs: {_differences(task, guarded, entry)}"
    for each in guarded.plan.untunable:
        if each.source == source.name and each.name == symbol:
            return f"it cannot be looked at: {each.reason}"
    return f"there is no such op any more; {_nearest(guarded, entry)}"


def _why_nowhere(guarded: GuardPlan, entry: GuardEntry) -> str:
    sources = ", ".join(source.name for source in guarded.plan.sources)
    return (
        f"it never matches: it is in force on no op of {sources}; {_nearest(guarded, entry)}. Take the entry out, or "
        "tune again with --tune"
    )


def _nearest(guarded: GuardPlan, entry: GuardEntry) -> str:
    """The dispatch that is most like what the entry is for, and how it differs, in words."""
    kind = _question(guarded, entry).kind
    alike = [task for task in guarded.plan.tasks if task.dispatch.root.kind == kind]
    if not alike:
        return f"there is no {kind} among the dispatches"
    found = min(alike, key=lambda task: len(differences(_question(guarded, entry), task.dispatch.root)))
    return f"the nearest dispatch is {found.name}: {_differences(found, guarded, entry)}"


def _differences(task: Task, guarded: GuardPlan, entry: GuardEntry) -> str:
    found = differences(_question(guarded, entry), task.dispatch.root)
    return "; ".join(found) or "in something that cannot be told"


def _question(guarded: GuardPlan, entry: GuardEntry) -> Question:
    return next(each for each in read_questions(guarded.spec) if each.matcher == entry.matcher)
