"""Compilers side by side: dispatches and models as two releases of IREE compile and run them, timed in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from pytest_shark_tune.compiler.artifact import Artifact
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
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.system.cache import BINARY, content_key, file_digest
from pytest_shark_tune.tuning.session import Session

__all__ = ["Load", "Rivalry", "Rivals", "compiled_model", "load_models", "play_in_turns", "rival_entries", "rival_plan"]

_OURS = "ours"


def rival_plan(compiler: OtherCompiler, plan: Plan, rival: Plan | None) -> GuardPlan:
    """Return the plan for comparing this compiler's dispatches and models with another one's; see `rival_entries`."""
    return GuardPlan(
        key=content_key("rival", compiler.identity, [source.content for source in plan.sources]),
        spec_path=compiler.installation.name,
        spec="",
        entries=tuple(rival_entries(compiler, plan, rival)),
        plan=plan,
    )


def rival_entries(compiler: OtherCompiler, plan: Plan, rival: Plan | None) -> Iterator[GuardEntry]:
    """Yield the dispatches that two compilers have alike, and the models that can be run.

    Args:
        compiler: the other compiler.
        plan: the dispatches of this compiler.
        rival: those of the other one; ``None`` if they cannot be read, and then whole models are compared alone.
    """
    name = compiler.installation.name
    theirs = {task.dispatch.key: task for task in (rival.tasks if rival else ())}
    for task in plan.tasks:
        if (other := theirs.get(task.dispatch.key)) is None:
            continue
        calls: dict[str, int] = {}
        for member in task.dispatch.members:
            calls[member.source] = calls.get(member.source, 0) + member.calls
        subject = RivalSubject(compiler=name, task=task, rival=other, calls=calls)
        yield GuardEntry(name=task.name, rival=subject)
    for source in plan.sources:
        if source.is_op or len(source.run_whole) != 1:
            continue
        ours = [task for task in plan.tasks if any(member.source == source.name for member in task.dispatch.members)]
        known = {task.dispatch.key for task in ours}
        others = [
            task.name
            for task in theirs.values()
            if task.dispatch.key not in known and any(member.source == source.name for member in task.dispatch.members)
        ]
        left = tuple(task.name for task in ours if rival and task.dispatch.key not in theirs)
        subject = RivalSubject(compiler=name, model=source.name, unmatched=(left, tuple(others)))
        yield GuardEntry(name=source.name, rival=subject)


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
    """Compiles with this compiler."""
    compiler: OtherCompiler
    """The other one."""

    @cached_property
    def _other(self) -> Session:
        return self.session.with_compiler(self.compiler)

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
            built = self._built(subject)
            if built and _is_same_code(built):
                return Verdict(
                    entry=entry.name,
                    check=EntryCheck.AGAINST,
                    outcome=CheckOutcome.PASSED,
                    by_identity=True,
                    calls=subject.calls,
                )
            load = self._dispatch(subject, built) if built else self._model(guarded, subject)
            while outcome is None:
                rounds.append(self._play(load, len(rounds)))
                outcome = decide(rounds, criteria, time.perf_counter() - began_s)
        except CommandFailed as error:
            raise CheckSkipped(f"it does not compile with both: {first_error(error)}") from error
        except CandidateFailed as failure:
            raise CheckSkipped(f"it does not run with both: {failure}") from failure
        return _verdict(entry, subject, outcome, combine_rounds(rounds), criteria, self.compiler.version)

    def _play(self, load: Load, number: int) -> timing.Measurement:
        return play_in_turns(self.session, (None, self.compiler.installation), load, number)

    def _built(self, subject: RivalSubject) -> list[list[Artifact]]:
        """A dispatch as both compilers compile it, each group in its order; nothing for a model.

        Raises:
            CandidateFailed: one of them cannot compile it.
        """
        return [
            [session.builder.artifact(task, task.default, member) for member in range(len(task.dispatch.members))]
            for session, task in zip((self.session, self._other), _tasks(subject), strict=False)
        ]

    def _dispatch(self, subject: RivalSubject, built: Sequence[Sequence[Artifact]]) -> Load:
        tasks = _tasks(subject)

        def load(*children: DeviceChild) -> Sequence[timing.Run]:
            for child, task, artifacts in zip(children, tasks, built, strict=True):
                for number, (member, artifact) in enumerate(zip(task.dispatch.members, artifacts, strict=True)):
                    child.load_benchmark(str(number), Path(artifact.vmfb or ""), member.module)
            return [partial(_run, child, task) for child, task in zip(children, tasks, strict=True)]

        return load

    def _model(self, guarded: GuardPlan, subject: RivalSubject) -> Load:
        source = guarded.plan.source(subject.model)
        ours = self.session.untuned.vmfb(source)
        return load_models(source, (ours, compiled_model(self.session, self.compiler, source)))


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


def _is_same_code(built: Sequence[Sequence[Artifact]]) -> bool:
    """Whether both compilers make the same machine code of a dispatch."""
    ours, theirs = ([machine_code(Path(artifact.vmfb or "")) for artifact in group] for group in built)
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
) -> Verdict:
    interval = f"{measured.ratio:.3f} ({measured.ratio_low:.3f} to {measured.ratio_high:.3f})"
    times = f"{measured.median_us:.4g} us where IREE {version} takes {measured.baseline_median_us:.4g} us"
    figures = f"{interval} times the speed of IREE {version} in {measured.rounds} fresh processes, {times}"
    reason = {
        CheckOutcome.FAILED: f"it is slower than with IREE {version}: {figures}",
        CheckOutcome.UNDECIDED: f"measuring did not decide whether it is slower than with IREE {version}: {figures}",
    }.get(outcome, "")
    ours, theirs = subject.unmatched
    unlike = (
        f"not compared alone, since the compilers fuse differently: {', '.join(ours) or 'none'} here, "
        f"{', '.join(theirs) or 'none'} with IREE {version}"
        if ours or theirs
        else ""
    )
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
        reason="; ".join(filter(None, (reason, unlike))) if reason else "",
        note="" if reason else unlike,
        calls=subject.calls,
        metrics={name: round(value, 5) for name, value in metrics.items()},
    )
