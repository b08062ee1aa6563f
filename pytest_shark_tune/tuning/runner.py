"""The runner: times candidates beside their default on a leased device, in a child process that holds it."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Member
from pytest_shark_tune.errors import CandidateFailed, DeviceChildDied
from pytest_shark_tune.measurement import timing
from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import Origin, Record, State
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.tuning.acceptance import check_edges, check_result
from pytest_shark_tune.tuning.ahead.prepared import (
    RUN_TIMEOUT_S,
    Prepared,
    PreparedDefaults,
    join_sizes,
    reference_name,
)
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["Entrants", "RoundResult", "Runner", "default_failed"]

_DEFAULT, _CANDIDATE = "default", "candidate"
_TIMED_SAMPLES = 5
"""How many samples give the time of a dispatch that is compared with nothing."""


class Entrants(NamedTuple):
    """The finalists of a dispatch in a round."""

    task: Task
    """The dispatch."""
    names: Sequence[str]
    """The ids of the finalists."""
    tried_on_edges: Collection[str] = ()
    """The ids of those whose trial has compared their results on special values."""
    is_first: bool | None = None
    """Whether this is their first round. By default that is the round with number 0."""


class RoundResult(NamedTuple):
    """The result of one round of a final, by candidate id."""

    measured: Mapping[str, timing.Measurement]
    """The measurements of those that ran."""
    failed: Mapping[str, CandidateFailed]
    """The failures of those that did not."""


class Runner:
    """Checks and times candidates for one process of a run.

    Args:
        settings: the settings of the run.
        builder: compiles the candidates.
        children: the device children of this process.
        microbenchmarks: the device's limits. A candidate that is faster than these is refused.
    """

    def __init__(
        self,
        settings: RunSettings,
        builder: Builder,
        children: DeviceChildren,
        *,
        microbenchmarks: Microbenchmarks | None = None,
    ) -> None:
        self._builder = builder
        self._children = children
        self._run = RunDirectory(settings.run_directory)
        self._seed = settings.seed
        self._check_result = partial(check_result, bitwise=settings.bitwise)
        self._check_edges = partial(check_edges, bitwise=settings.bitwise)
        compiler = builder.compiler
        self.origin = Origin(
            device=settings.device_name,
            target=str(compiler.target),
            iree=compiler.version,
            bitwise=settings.bitwise,
        )
        """The origin of this runner's records."""
        self._microbenchmarks = microbenchmarks
        self._defaults = PreparedDefaults(builder, settings.seed, settings.run_directory, bitwise=settings.bitwise)

    def measure(self, task: Task, candidate: Candidate, artifact: Artifact) -> timing.Measurement:
        """Check a candidate's result, then time it beside the default on a leased device.

        Raises:
            CandidateFailed: it is a duplicate, cannot be run, runs too long, or its result is wrong.
        """
        is_default = candidate.id == task.default.id
        self._refuse_default_binary(task, candidate, artifact)
        with self._run.claimed(task, candidate, artifact):
            default = artifact if is_default else self._default_artifact(task)
            with self._children.leased() as child:
                prepared = self._defaults.prepare(child, task, default)
                if is_default:
                    return _joined(task, [prepared.compare_default(child, n) for n in range(len(prepared.sizes))])
                measured = self._screen(child, task, artifact, prepared)
                self._refuse_impossible(child, task, measured)
                if not measured.cut_short and measured.ratio_low > 1:
                    self._run.raise_threshold(task, measured.ratio_low)
                return measured

    def default_time_us(self, task: Task, artifact: Artifact) -> float:
        """The time of a dispatch by its default, in microseconds, without a check of its result.

        Raises:
            CandidateFailed: it cannot be run, or runs too long.
        """
        with self._children.leased() as child:
            key, member = "timed", task.dispatch.members[0]
            child.load_benchmark(key, Path(artifact.vmfb or ""), member.module)
            try:
                child.fill(key, self._seed)
                run = partial(child.run, key)
                batch = timing.calibrate(run, timing.SCREENING.sample_s, cap=timing.SCREENING.batch_cap)
                return statistics.median(run(batch) for _ in range(_TIMED_SAMPLES)) * 1e6 / batch
            finally:
                if child.alive:
                    child.unload(key)

    def _screen(self, child: DeviceChild, task: Task, artifact: Artifact, prepared: Prepared) -> timing.Measurement:
        """Check and time a candidate at every size. One that is far too slow at a size is tried at no other."""
        is_open = len(prepared.sizes) > 1
        # The candidate that is compared at several sizes may be slower at one than the best is in the mean.
        threshold = 1.0 if is_open else self._run.threshold(task)
        found: list[timing.Measurement] = []
        for number, (member, at) in enumerate(zip(task.dispatch.screened, prepared.sizes, strict=True)):
            limit_s = timing.time_limit_s(at.check_s)
            checked = (child, _CANDIDATE, prepared.reference(number), task.dispatch, member, limit_s)
            self._defaults.load(child, _CANDIDATE, member, artifact)
            self._check_result(*checked)
            run = partial(child.run, _CANDIDATE, timeout_s=timing.time_limit_s(at.batch_s))
            baseline = partial(child.run, prepared.default(number))
            try:
                measured = timing.compare(
                    run, baseline, timing.SCREENING, batch=at.batch, best=threshold, earlier=at.samples_us
                )
                if not measured.cut_short:  # The others cannot win.
                    self._check_edges(*checked)
            finally:
                if child.alive:
                    child.unload(_CANDIDATE)
            at.remember(measured)
            if measured.cut_short:
                where = f"at {member.size} it is far slower than the default" if is_open else measured.note
                return msgspec.structs.replace(measured, note=where)
            found.append(measured)
        return _joined(task, found)

    def round(self, task: Task, names: Sequence[str], number: int) -> RoundResult:
        """Play one round of a final in a fresh child. If a finalist fails, the others are measured without it.

        Raises:
            CandidateFailed: the default cannot be compiled or run.
        """
        played = self.round_of_all([Entrants(task, names)], number)[task.name]
        if isinstance(played, CandidateFailed):
            raise played
        return played

    def round_of_all(
        self, finals: Sequence[Entrants], number: int, policy: timing.Policy = timing.FINAL
    ) -> dict[str, RoundResult | CandidateFailed]:
        """Play one round of several finals, one after the other in a fresh child, in another order every time.

        A child that a finalist ended is replaced, and the final is played again without that one.

        Args:
            finals: The dispatches with their finalists.
            number: The number of the round, which draws the inputs.
            policy: The time for each dispatch.

        Returns:
            The results by name, or the failure of a default.
        """
        results: dict[str, RoundResult | CandidateFailed] = {}
        built: dict[str, dict[str, list[Artifact]]] = {}
        failed: dict[str, dict[str, CandidateFailed]] = {}
        entered = {entrants.task.name: entrants for entrants in finals}
        self._builder.begin([(entrants.task, (entrants.task.default.id, *entrants.names)) for entrants in finals])
        for name, entrants in entered.items():
            task = entrants.task
            try:
                default = {task.default.id: self._group(task, task.default)}
            except CandidateFailed as failure:
                results[name] = failure
                continue
            found, failed[name] = self._groups(task, entrants.names)
            built[name] = default | found
        waiting = sorted(built)
        random.Random(self._seed + number).shuffle(waiting)
        while waiting:
            busy = [""]
            try:
                with self._children.fresh() as child:
                    while waiting:
                        name, task = waiting[-1], entered[waiting[-1]].task
                        busy[0] = task.default.id
                        measured = {}
                        if len(built[name]) > 1:
                            entrants = entered[name]
                            measured = self._compare_all(child, entrants, built[name], policy, number, busy)
                            _unload(child, task, built[name])
                        results[name] = RoundResult(measured, failed[name])
                        waiting.pop()
            except CandidateFailed as failure:
                if busy[0] in built[waiting[-1]] and busy[0] != entered[waiting[-1]].task.default.id:
                    failed[waiting[-1]][busy[0]] = failure
                    del built[waiting[-1]][busy[0]]
                else:
                    results[waiting.pop()] = failure
        return results

    def check_members(
        self, task: Task, candidate: Candidate, artifact: Artifact | None = None, *, bitwise: bool = False
    ) -> None:
        """Compare a candidate's results with the default's in every dispatch of the task's group.

        Args:
            task: the task.
            candidate: its candidate.
            artifact: a client's own artifact of the candidate, for the first dispatch of the group.
            bitwise: whether results have to be equal bit for bit, on random inputs.

        Raises:
            CandidateFailed: a result is wrong, or it cannot be compiled or run. The message says if it is the
                default that failed.
        """
        checks = (partial(check_result, bitwise=True),) if bitwise else (self._check_result, self._check_edges)
        pairs = zip(task.dispatch.members, *self._pair(task, candidate, artifact), strict=True)
        busy = [_DEFAULT]
        with self._against_default(busy) as child:
            for member, default, tuned in pairs:
                busy[0] = _DEFAULT
                limit_s = timing.time_limit_s(self._defaults.load_reference(child, task, member, default))
                busy[0] = _CANDIDATE
                self._defaults.load(child, _CANDIDATE, member, tuned)
                for check in checks:
                    check(child, _CANDIDATE, reference_name(), task.dispatch, member, limit_s)

    def guard_round(
        self, task: Task, candidate: Candidate, number: int, artifact: Artifact | None = None
    ) -> timing.Measurement:
        """Check a candidate's results on new inputs, then time it beside the default, all in a fresh child.

        Args:
            task: the task.
            candidate: its candidate.
            number: the number of the round, which draws the inputs.
            artifact: a client's own artifact of the candidate, for the first dispatch of the group.

        Raises:
            CandidateFailed: it cannot be compiled or run, or its result is wrong. The message says if it is the
                default that failed.
        """
        built = dict(zip((task.default.id, _CANDIDATE), self._pair(task, candidate, artifact), strict=True))
        busy = [task.default.id]
        with self._against_default(busy) as child:
            return self._compare_all(child, Entrants(task, ()), built, timing.GUARD_ROUND, number, busy)[_CANDIDATE]

    def reserve(self, task: Task, records: Iterable[Record]) -> None:
        """Claim the binaries that earlier runs measured, as ``records`` say, for the candidates that had them.

        Raises:
            OSError: a claim cannot be written.
        """
        measured = {record.id for record in records if record.state is State.MEASURED}
        for name in (task.default.id, *task.ids) if measured else ():
            if name not in measured:
                continue
            candidate = task.candidate(name)
            if (artifact := self._known(task, candidate)) and artifact.vmfb is not None:
                self._run.owner(task, candidate, artifact)

    def record(
        self,
        task: AnyTask,
        candidate: Candidate,
        outcome: timing.Measurement | CandidateFailed,
        *,
        artifact: Artifact | None = None,
        compile_s: float | None = None,
    ) -> Record:
        """The record of a candidate.

        Args:
            task: the task.
            candidate: its candidate.
            outcome: the measurement, or the failure.
            artifact: its artifact, if the caller has it.
            compile_s: the seconds of compiling a client's kernel, which has no artifact of ours.
        """
        if isinstance(task, Task):
            known = artifact or self._known(task, candidate)
            compile_s = known.compile_s or None if known else None
        return Record.of_outcome(candidate, outcome, self.origin, compile_s)

    def _compare_all(
        self,
        child: DeviceChild,
        entrants: Entrants,
        built: Mapping[str, list[Artifact]],
        policy: timing.Policy,
        number: int,
        busy: list[str],
    ) -> dict[str, timing.Measurement]:
        """Load, check and compare; ``busy`` always has the name of the candidate that the child is busy with.

        In their first round results are compared on special values, too, but for the first member of the group where
        that was done when the candidate was tried.
        """
        task, default = entrants.task, entrants.task.default.id
        is_first = entrants.is_first if entrants.is_first is not None else not number
        for index, member in enumerate(task.dispatch.members):
            for name, artifacts in built.items():
                busy[0] = name
                key, reference = f"{name}/{index}", f"reference/{index}"
                self._defaults.load(child, key, member, artifacts[index])
                if name == default:
                    child.store_reference(key, reference, self._seed + 1 + number)
                else:
                    self._check_result(child, key, reference, task.dispatch, member, RUN_TIMEOUT_S)
                    if is_first and (index or name not in entrants.tried_on_edges):
                        self._check_edges(child, key, reference, task.dispatch, member, RUN_TIMEOUT_S)

        def run_of(name: str, members: Mapping[int, Member]) -> Callable[[int], float]:
            weight = sum(member.calls for member in members.values())

            def run(batch: int) -> float:
                busy[0] = name
                total = sum(member.calls * child.run(f"{name}/{index}", batch) for index, member in members.items())
                return total / weight

            return run

        of_size: defaultdict[str, dict[int, Member]] = defaultdict(dict)
        for index, member in enumerate(task.dispatch.members):
            of_size[member.size][index] = member
        measured: dict[str, dict[str, timing.AtSize]] = {name: {} for name in built if name != default}
        for size, members in of_size.items():
            runs = {name: run_of(name, members) for name in measured}
            found = timing.compare_finalists(runs, run_of(default, members), policy, seed=self._seed + number)
            weight = sum(member.calls * member.size_weight for member in members.values())
            for name, at_size in found.items():
                measured[name][size] = timing.AtSize(weight, at_size)
        return {name: join_sizes(sizes) for name, sizes in measured.items()}

    @contextmanager
    def _against_default(self, busy: Sequence[str]) -> Iterator[DeviceChild]:
        """A fresh child; a failure while ``busy`` names no candidate is the default's."""
        try:
            with self._children.fresh() as child:
                yield child
        except CandidateFailed as failure:
            if busy[0] != _CANDIDATE:
                raise default_failed(failure) from failure
            raise

    def _refuse_impossible(self, child: DeviceChild, task: Task, measured: timing.Measurement) -> None:
        """Refuse a time that the device cannot reach: the run left out work."""
        if self._microbenchmarks is None:
            return
        try:
            reason = self._microbenchmarks.why_doubtful(task.dispatch, measured, child)
        except DeviceChildDied:  # That is no fault of the candidate, so its measurement stands.
            self._children.end(child.uri)
            return
        if reason:
            raise CandidateFailed(State.WRONG_RESULT, reason)

    def _known(self, task: Task, candidate: Candidate) -> Artifact | None:
        return self._builder.known(task.dispatch.members[0].module, candidate)

    def _default_artifact(self, task: Task, member: int = 0) -> Artifact:
        try:
            return self._builder.artifact(task, task.default, member)
        except CandidateFailed as failure:
            raise default_failed(failure) from failure

    def _group(self, task: Task, candidate: Candidate, first: Artifact | None = None) -> list[Artifact]:
        """The artifacts of a candidate, one for each dispatch of the task's group; ``first`` if that one is there."""
        rest = range(1, len(task.dispatch.members))
        first = first or self._builder.artifact(task, candidate)
        return [first, *(self._builder.artifact(task, candidate, member) for member in rest)]

    def _groups(self, task: Task, names: Iterable[str]) -> tuple[dict[str, list[Artifact]], dict[str, CandidateFailed]]:
        """The artifacts of candidates by their ids, and the failures of those that do not compile."""
        built: dict[str, list[Artifact]] = {}
        failed: dict[str, CandidateFailed] = {}
        for name in names:
            try:
                built[name] = self._group(task, task.candidate(name))
            except CandidateFailed as failure:
                failed[name] = failure
        return built, failed

    def _pair(
        self, task: Task, candidate: Candidate, artifact: Artifact | None
    ) -> tuple[list[Artifact], list[Artifact]]:
        """The artifacts of the default and of a candidate, one for each dispatch of the task's group."""
        tuned = self._group(task, candidate, artifact)
        return [self._default_artifact(task, member) for member in range(len(tuned))], tuned

    def _refuse_default_binary(self, task: Task, candidate: Candidate, artifact: Artifact) -> None:
        default = self._known(task, task.default)
        if default and default.sha256 == artifact.sha256 and candidate.id != task.default.id:
            raise CandidateFailed(State.DUPLICATE, "its binary equals that of the default config", task.default.id)


def default_failed(failure: CandidateFailed) -> CandidateFailed:
    """The failure of a candidate that cannot be compared, since the default failed."""
    return CandidateFailed(State.RUN_FAILED, f"the default config to compare with failed: {failure}")


def _joined(task: Task, measured: Sequence[timing.Measurement]) -> timing.Measurement:
    """Join the measurements of a candidate on the members of a dispatch on which candidates are tried."""
    members = zip(task.dispatch.screened, measured, strict=True)
    sizes = {member.size: timing.AtSize(member.size_weight, part) for member, part in members}
    return join_sizes(sizes)


def _unload(child: DeviceChild, task: Task, names: Iterable[str]) -> None:
    """Unload what a round loaded for the candidates of a dispatch."""
    for name in names:
        for index in range(len(task.dispatch.members)):
            child.unload(f"{name}/{index}")
