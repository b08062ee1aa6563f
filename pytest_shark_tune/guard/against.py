"""Compilers side by side: dispatches and models as two releases of IREE compile and run them, timed in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.compiler.machine_code import machine_code
from pytest_shark_tune.compiler.versions import Installation, OtherCompiler, child_environment, find_installation
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.errors import CandidateFailed, CheckSkipped, CommandFailed, InputError
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan, RivalSubject
from pytest_shark_tune.guard.speed import AcceptanceCriteria, decide
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement import timing
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cache import BINARY, content_key, file_digest
from pytest_shark_tune.tuning.model.whole import tuned_form
from pytest_shark_tune.tuning.session import Session

__all__ = ["Load", "Rivalry", "Rivals", "compiled_model", "load_models", "play_in_turns"]

_OURS = "ours"


class Rivals(dict[str, "Rivalry"]):
    """The other compilers of a run, by the names that the user gave."""

    def add(self, session: Session, release: str, releases: Path) -> Rivalry:
        """Find or install a release, and add it.

        Raises:
            InputError: there is no such release, or it cannot be used here.
        """
        if release not in self:
            try:
                found = find_installation(release, releases)
            except InputError as error:
                raise InputError(f"--tune-against: {error}") from error
            compiler = session.compiler
            self[release] = Rivalry(session, OtherCompiler(found, compiler.target, compiler.flags))
        return self[release]

    def verdict(self, guarded: GuardPlan, entry: GuardEntry, criteria: AcceptanceCriteria) -> Verdict:
        """Compare this compiler with the one that an entry names; see `Rivalry.verdict`."""
        assert entry.rival is not None
        return self[entry.rival.compiler].verdict(guarded, entry, criteria)


@dataclass(frozen=True)
class Rivalry:
    """Compares this compiler with another one, for one process of a run.

    Each compiler's code runs in a process of its own with its own runtime, on one leased device, in turns.
    """

    session: Session
    """Compiles with this compiler, which may be another release, too."""
    compiler: OtherCompiler
    """The other one."""

    @cached_property
    def _other(self) -> Session:
        return self.session.with_compiler(self.compiler)

    @property
    def _installations(self) -> tuple[Installation | None, Installation]:
        own = self.session.compiler
        return own.installation if isinstance(own, OtherCompiler) else None, self.compiler.installation

    def verdict(self, guarded: GuardPlan, entry: GuardEntry, criteria: AcceptanceCriteria) -> Verdict:
        """Time a dispatch or a model in rounds until they decide whether this compiler made it slower.

        Raises:
            CheckSkipped: one of the compilers cannot compile it, or it cannot be run.
        """
        subject = entry.rival
        assert subject is not None
        rounds: list[timing.Measurement] = []
        began_s = time.perf_counter()
        outcome: CheckOutcome | None = None
        try:
            sides, note = self._sides(guarded, subject)
            if subject.task and _is_same_code(sides):
                return Verdict(
                    entry=entry.name,
                    check=EntryCheck.AGAINST,
                    outcome=CheckOutcome.PASSED,
                    note=note,
                    by_identity=True,
                    calls=subject.calls,
                )
            load = _load_dispatch(_tasks(subject), sides) if subject.task else _load_model(guarded, subject, sides)
            while outcome is None:
                rounds.append(play_in_turns(self.session, self._installations, load, len(rounds)))
                outcome = decide(rounds, criteria, time.perf_counter() - began_s)
        except CommandFailed as error:
            raise CheckSkipped(f"it does not compile with both: {first_error(error)}") from error
        except (CandidateFailed, InputError) as failure:
            raise CheckSkipped(f"it does not run with both: {failure}") from failure
        notes = [note, _unlike(subject, self.compiler.version)]
        measured = combine_rounds(rounds)
        return _verdict(entry, subject, outcome, measured, criteria, self.compiler.version, notes)

    def _sides(self, guarded: GuardPlan, subject: RivalSubject) -> tuple[list[list[Path]], str]:
        """A dispatch or a model as both compilers compile it, and a note if the other one does not take the spec.

        Raises:
            CandidateFailed: one of them cannot compile it.
            CommandFailed: one of them cannot compile it.
            InputError: this compiler rejects the spec.
        """
        untuned = f"IREE {self.compiler.version} does not take the spec, so its default is timed"
        if subject.task and subject.rival:
            own = _compiled(self.session, subject.task)
            try:
                return [own, _compiled(self._other, subject.rival)], ""
            except CandidateFailed:
                if not subject.rival.candidates:
                    raise
            plain = msgspec.structs.replace(subject.rival, candidates=())
            return [own, _compiled(self._other, plain)], untuned
        source = guarded.plan.source(subject.model)
        if not subject.spec:
            return [[self._own_model(source)], [compiled_model(self.session, self.compiler, source)]], ""
        tuned = tuned_form(source, subject.spec, self.session.untuned)
        try:
            return [[tuned], [tuned_form(source, subject.spec, self._other.untuned)]], ""
        except (CandidateFailed, CommandFailed, InputError):
            return [[tuned], [compiled_model(self.session, self.compiler, source)]], untuned

    def _own_model(self, source: Source) -> Path:
        own = self.session.compiler
        if isinstance(own, OtherCompiler):
            return compiled_model(self.session, own, source)
        return self.session.untuned.vmfb(source)


def _compiled(session: Session, task: Task) -> list[Path]:
    """The dispatches of a group as a compiler makes them: with the only candidate, or else the default.

    Raises:
        CandidateFailed: one cannot be compiled.
    """
    config = task.candidates[0] if task.candidates else task.default
    members = range(len(task.dispatch.members))
    return [Path(session.builder.artifact(task, config, member).vmfb or "") for member in members]


def _load_dispatch(tasks: Sequence[Task], sides: Sequence[Sequence[Path]]) -> Load:
    def load(*children: DeviceChild) -> Sequence[timing.Run]:
        for child, task, paths in zip(children, tasks, sides, strict=True):
            for number, (member, path) in enumerate(zip(task.dispatch.members, paths, strict=True)):
                child.load_benchmark(str(number), path, member.module)
        return [partial(_run, child, task) for child, task in zip(children, tasks, strict=True)]

    return load


def _load_model(guarded: GuardPlan, subject: RivalSubject, sides: Sequence[Sequence[Path]]) -> Load:
    return load_models(guarded.plan.source(subject.model), [path for side in sides for path in side])


Load = Callable[..., Sequence[timing.Run]]
"""Loads the code of several compilers into their children, and returns what times it."""


def compiled_model(session: Session, compiler: OtherCompiler, source: Source) -> Path:
    """Return a model as another release compiles it, from the cache of ``session`` or compiled now.

    Raises:
        CommandFailed: the compiler rejects it.
    """
    cache, key = session.cache, content_key("rival", compiler.identity, source.text)
    digest = cache.get("models", key, str)
    if digest is not None and (known := cache.binary("models", key, digest)) is not None:
        return known
    out = cache.file("models", key, BINARY)
    with session.processor():
        whole = compiler.for_models
        assert isinstance(whole, OtherCompiler)
        whole.compile_model(source.text, out, source.name)
    cache.put("models", key, file_digest(out))
    return out


def load_models(source: Source, paths: Sequence[Path]) -> Load:
    """Return what loads a model as several releases compiled it, each into the child with its runtime."""
    (name,) = source.run_whole

    def load(*children: DeviceChild) -> Sequence[timing.Run]:
        for child, path in zip(children, paths, strict=True):
            inputs, parameters = source.functions[name], source.parameter_arguments
            child.load_function(name, path, function=name, inputs=inputs, files=source.files, parameters=parameters)
        return [partial(child.run, name) for child in children]

    return load


def play_in_turns(
    session: Session, installations: Sequence[Installation | None], load: Load, number: int
) -> timing.Measurement:
    """Time one program beside another in turns, each in a fresh process with the runtime of its release.

    Args:
        session: leases the device.
        installations: the release of the program and that of its baseline; ``None`` for this one.
        load: loads both.
        number: the number of the round.

    Raises:
        CandidateFailed: one of them cannot be run.
    """
    environments = [child_environment(release) if release else None for release in installations]
    with session.children.side_by_side(environments) as children:
        ours, theirs = load(*children)
        return timing.compare_finalists({_OURS: ours}, theirs, timing.GUARD_ROUND, seed=number)[_OURS]


def _tasks(subject: RivalSubject) -> list[Task]:
    """The dispatch as this compiler has it and as the other one has it; nothing for a model."""
    return [task for task in (subject.task, subject.rival) if task is not None]


def _is_same_code(sides: Sequence[Sequence[Path]]) -> bool:
    """Whether both compilers make the same machine code of a dispatch."""
    ours, theirs = (list(map(machine_code, paths)) for paths in sides)
    return all(ours) and set(ours) == set(theirs)


def _run(child: DeviceChild, task: Task, batch: int) -> float:
    """The seconds of a batch of one call, in the mean over the dispatches of a group."""
    members = task.dispatch.members
    total = sum(member.calls * child.run(str(number), batch) for number, member in enumerate(members))
    return total / sum(member.calls for member in members)


def _verdict(
    entry: GuardEntry,
    subject: RivalSubject,
    outcome: CheckOutcome,
    measured: timing.Measurement,
    criteria: AcceptanceCriteria,
    version: str,
    notes: Sequence[str],
) -> Verdict:
    interval = f"{measured.ratio:.3f} ({measured.ratio_low:.3f} to {measured.ratio_high:.3f})"
    times = f"{measured.median_us:.4g} us where IREE {version} takes {measured.baseline_median_us:.4g} us"
    figures = f"{interval} times the speed of IREE {version} in {measured.rounds} fresh processes, {times}"
    reason = {
        CheckOutcome.FAILED: f"it is slower than with IREE {version}: {figures}",
        CheckOutcome.UNDECIDED: f"measuring did not decide whether it is slower than with IREE {version}: {figures}",
    }.get(outcome, "")
    metrics = {
        "ratio": measured.ratio,
        "ratio_low": measured.ratio_low,
        "ratio_high": measured.ratio_high,
        "ratio_wanted": math.exp(-criteria.allowance),
        "baseline_us": measured.baseline_median_us,
        "tuned_us": measured.median_us,
        "rounds": float(measured.rounds),
    }
    return Verdict(
        entry=entry.name,
        check=EntryCheck.AGAINST,
        outcome=outcome,
        reason="; ".join(filter(None, (reason, *notes))) if reason else "",
        note="; ".join(filter(None, notes)),
        calls=subject.calls,
        metrics={name: round(value, 5) for name, value in metrics.items()},
    )


def _unlike(subject: RivalSubject, version: str) -> str:
    """How the compilers fuse differently, or call a dispatch by other names; empty if they do not."""
    if subject.task and subject.rival and subject.task.dispatch.key != subject.rival.dispatch.key:
        return f"IREE {version} has it as {subject.rival.name}"
    ours, theirs = subject.unmatched
    if not ours and not theirs:
        return ""
    return (
        f"not compared alone, since the compilers fuse differently: {', '.join(ours) or 'none'} here, "
        f"{', '.join(theirs) or 'none'} with IREE {version}"
    )
