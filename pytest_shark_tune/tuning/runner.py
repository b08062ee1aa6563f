"""The bench: where candidates meet their default on a leased device, in a child process that holds it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.types import Dispatch, Member, Numerics, Sum, Tensor
from pytest_shark_tune.errors import CandidateFailed, DeviceChildDied, DeviceRequestFailed
from pytest_shark_tune.guard.speed import GATE
from pytest_shark_tune.measurement.acceptance import Acceptance, acceptance_for, tolerance_in_model
from pytest_shark_tune.measurement.correctness import Check, Tolerance
from pytest_shark_tune.measurement.roofline import SUSPICIOUS_RATIO, work_of
from pytest_shark_tune.measurement.timing import (
    FINAL,
    SCREENING,
    Measurement,
    Policy,
    calibrate,
    combine_rounds,
    compare,
    compare_finalists,
    is_decided,
    time_limit_s,
)
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.records.winner import bar_to_final
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.claims import Claims
from pytest_shark_tune.tuning.microbenchmarks import Yardsticks
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["Bench", "acceptance_of", "model_tolerance"]

_DEFAULT, _CANDIDATE, _REFERENCE, _DISTURBED = "default", "candidate", "reference", "disturbed"
_RUN_TIMEOUT_S = 30.0
_FEWEST_MODEL_ROUNDS, _MODEL_ROUNDS = 3, 5
"""Fresh processes in which whole models are compared: two speeds of one machine show in few, and a model takes long."""
_REMEMBERED = 24
"""How many of the default's last samples tell what is usual: the last few candidates', so that a lasting change is."""


def _nothing() -> None:
    """No disturbed model is at hand."""


@dataclass(frozen=True)
class _Prepared:
    """A default that is loaded in the child of that generation beside its reference result.

    ``batch`` dispatches take it ``batch_s`` seconds, and the check of a result ``check_s``.
    """

    generation: int
    dispatch: str
    batch: int
    batch_s: float
    check_s: float


@dataclass(frozen=True)
class _Baseline:
    """The last samples of a dispatch's default in the child of that generation."""

    generation: int
    dispatch: str
    samples_us: tuple[float, ...]


class Bench:
    """Checks and times for one process of a run; ``tell`` is told of a long wait for a device.

    With ``yardsticks`` a candidate that is faster than the device can be is refused.
    """

    def __init__(
        self,
        settings: RunSettings,
        builds: Builds,
        leases: DeviceLeases,
        *,
        tell: Callable[[str], None],
        yardsticks: Yardsticks | None = None,
    ) -> None:
        self.settings = settings
        self._builds = builds
        self._leases = leases
        self._tell = tell
        self._yardsticks = yardsticks
        self._claims = Claims(settings.exchange)
        self._children: dict[str, DeviceChild] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._baselines: dict[str, _Baseline] = {}

    def close(self) -> None:
        """End the children."""
        for child in self._children.values():
            child.close()

    def device(self) -> AbstractContextManager[str]:
        """Holds a device, whose URI it gives, until it is free."""
        return self._leases.acquire(self._tell)

    def measure(self, task: Task, candidate: Candidate, artifact: Artifact) -> Measurement:
        """Time a candidate beside the default on a leased device, once its result is found right.

        Raises:
            CandidateFailed: it is a duplicate, cannot be run, runs too long, or its result is wrong.
        """
        is_default = candidate.id == task.default.id
        self._refuse_default_binary(task, candidate, artifact)
        with self._claims.held(task, candidate, artifact):
            default = artifact if is_default else self._default_artifact(task)
            with self._leases.acquire(self._tell) as uri, self._failures(uri):
                child = self._child(uri)
                prepared = self._prepare(child, uri, task, default)
                batch, baseline = prepared.batch, partial(child.run, _DEFAULT)
                earlier = self._earlier(child, uri, task)
                if is_default:
                    measured = compare(baseline, baseline, batch=batch, earlier=earlier)
                    self._remember(child, uri, task, measured)
                    return measured
                member = task.dispatch.members[0]
                self._load_and_check(child, _CANDIDATE, task, member, artifact, time_limit_s(prepared.check_s))
                run = partial(child.run, _CANDIDATE, timeout_s=time_limit_s(prepared.batch_s))
                try:
                    measured = compare(run, baseline, SCREENING, batch=batch, best=self._bar(task), earlier=earlier)
                    if not measured.cut_short:  # The others cannot win.
                        limit_s = time_limit_s(prepared.check_s)
                        self._check_edges(child, _CANDIDATE, _REFERENCE, task.dispatch, member, limit_s)
                finally:
                    if child.alive:
                        child.unload(_CANDIDATE)
                self._refuse_impossible(child, uri, task, measured)
                self._remember(child, uri, task, measured)
                self._raise_bar(task, measured)
                return measured

    def round(
        self, task: Task, names: Sequence[str], failed: dict[str, CandidateFailed], number: int
    ) -> Iterator[tuple[str, Measurement]]:
        """One round of a final in a fresh child; whoever fails is put into ``failed``, and the rest go on."""
        while names:
            built = self._finalists(task, names, failed)
            names = [name for name in names if name not in failed]
            with self._leases.acquire(self._tell) as uri:
                self._forget(uri)
                current = [task.default.id]
                try:
                    yield from self._compare_all(self._child(uri), task, built, FINAL, number, current).items()
                    return
                except CandidateFailed as failure:
                    failed[current[0]] = failure
                except (DeviceChildDied, DeviceRequestFailed) as error:
                    failed[current[0]] = _failure(error)
                finally:
                    self._forget(uri)
            if task.default.id in failed:
                raise failed.pop(task.default.id)
            names = [name for name in names if name not in failed]

    def check_members(self, task: Task, candidate: Candidate, artifact: Artifact | None = None) -> None:
        """Compare a candidate's results with the default's in every dispatch of the task's group.

        ``artifact`` stands for what is compiled for the first of them.

        Raises:
            CandidateFailed: a result is wrong, or it cannot be compiled or run; of the default the message says so.
        """
        pairs = zip(task.dispatch.members, *self._pair(task, candidate, artifact), strict=True)
        busy = [_DEFAULT]
        with self._leases.acquire(self._tell) as uri, self._fresh(uri, busy) as child:
            for member, default, tuned in pairs:
                busy[0] = _DEFAULT
                check_s = self._load_reference(child, task, member, default)
                busy[0] = _CANDIDATE
                self._load_and_check(child, _CANDIDATE, task, member, tuned, time_limit_s(check_s))
                self._check_edges(child, _CANDIDATE, _REFERENCE, task.dispatch, member, time_limit_s(check_s))

    def gate_round(
        self, task: Task, candidate: Candidate, number: int, artifact: Artifact | None = None
    ) -> Measurement:
        """Time a candidate beside the default in a fresh child, once its results are found right; on new inputs.

        ``artifact`` stands for what is compiled for the first dispatch of the task's group. ``number`` is the round's.

        Raises:
            CandidateFailed: it cannot be compiled or run, or its result is wrong; of the default the message says so.
        """
        built = dict(zip((task.default.id, _CANDIDATE), self._pair(task, candidate, artifact), strict=True))
        busy = [task.default.id]
        with self._leases.acquire(self._tell) as uri, self._fresh(uri, busy) as child:
            return self._compare_all(child, task, built, GATE, number, busy)[_CANDIDATE]

    def compare_models(
        self,
        default: Path,
        tuned: Mapping[str, Path],
        function: str,
        inputs: Sequence[Tensor],
        tolerance: Tolerance,
        files: Mapping[int, str] = MappingProxyType({}),
        disturbed: Callable[[], Path | None] = _nothing,
    ) -> dict[str, Measurement]:
        """Compare whole models with the ``default`` one and each other, in fresh children; results are checked first.

        ``files`` hold some of the inputs, by position; the others are random, and others in each child. ``disturbed``
        makes the default model with its sums disturbed (see `disturbance`), asked before a result is called wrong.

        Raises:
            CandidateFailed: one cannot be run, or its results are others.
        """
        rounds: dict[str, list[Measurement]] = {name: [] for name in tuned}
        answer: Path | None = None

        def play(number: int) -> dict[str, Measurement]:
            models = (default, tuned, function, inputs, tolerance, number, files, answer)
            with self._with_models(*models) as (child, seed):
                runs = {name: partial(child.run, name) for name in tuned}
                return compare_finalists(runs, partial(child.run, _DEFAULT), FINAL, seed=seed)

        for number in range(_MODEL_ROUNDS):
            try:
                measured = play(number)
            except CandidateFailed as failure:
                if failure.state is not State.WRONG_RESULT or answer or not (answer := disturbed()):
                    raise
                measured = play(number)
            for name, each in measured.items():
                rounds[name].append(each)
            if number + 1 >= _FEWEST_MODEL_ROUNDS and is_decided(rounds.values()):
                break
        return {name: combine_rounds(each) for name, each in rounds.items()}

    def check_model(
        self,
        default: Path,
        tuned: Path,
        function: str,
        inputs: Sequence[Tensor],
        tolerance: Tolerance,
        files: Mapping[int, str] = MappingProxyType({}),
        disturbed: Callable[[], Path | None] = _nothing,
    ) -> None:
        """Compare a whole model's results with those of the ``default`` one, in a fresh child.

        ``files`` and ``disturbed`` are as in ``compare_models``.

        Raises:
            CandidateFailed: one cannot be run, or its results are others.
        """
        models = (default, {_CANDIDATE: tuned}, function, inputs, tolerance, 0, files)
        try:
            with self._with_models(*models, None):
                return
        except CandidateFailed as failure:
            if failure.state is not State.WRONG_RESULT or not (answer := disturbed()):
                raise
        with self._with_models(*models, answer):
            return

    def _compare_all(
        self,
        child: DeviceChild,
        task: Task,
        built: Mapping[str, list[Artifact]],
        policy: Policy,
        number: int,
        current: list[str],
    ) -> dict[str, Measurement]:
        """Load, check and compare; ``current`` always names whom the child is busy with."""
        default = task.default.id
        for index, member in enumerate(task.dispatch.members):
            for name, artifacts in built.items():
                current[0] = name
                key = f"{name}/{index}"
                assert artifacts[index].vmfb is not None
                child.load_benchmark(key, Path(artifacts[index].vmfb or ""), member.module)
                if name == default:
                    child.keep_reference(key, f"reference/{index}", self.settings.seed + 1 + number)
                else:
                    self._check(child, key, f"reference/{index}", task.dispatch, member, _RUN_TIMEOUT_S)
                    if not number:
                        self._check_edges(child, key, f"reference/{index}", task.dispatch, member, _RUN_TIMEOUT_S)

        def runner(name: str) -> Callable[[int], float]:
            def run(batch: int) -> float:
                current[0] = name
                members = task.dispatch.members
                total = sum(member.calls * child.run(f"{name}/{index}", batch) for index, member in enumerate(members))
                return total / task.dispatch.weight

            return run

        runs = {name: runner(name) for name in built if name != default}
        return compare_finalists(runs, runner(default), policy, seed=self.settings.seed + number)

    def _finalists(
        self, task: Task, names: Sequence[str], failed: dict[str, CandidateFailed]
    ) -> dict[str, list[Artifact]]:
        """The artifacts of the default and of each finalist, one for each member of the dispatch's group."""
        built: dict[str, list[Artifact]] = {}
        for candidate in (task.default, *(task.candidate(name) for name in names)):
            try:
                members = range(len(task.dispatch.members))
                built[candidate.id] = [self._builds.artifact(task, candidate, member) for member in members]
            except CandidateFailed as failure:
                if candidate.id == task.default.id:
                    raise
                failed[candidate.id] = failure
        return built

    def _earlier(self, child: DeviceChild, uri: str, task: Task) -> tuple[float, ...]:
        """The default's last samples in this child, for this dispatch."""
        known = self._baselines.get(uri)
        is_valid = known and (known.generation, known.dispatch) == (child.generation, task.dispatch.key)
        return known.samples_us if known and is_valid else ()

    def _remember(self, child: DeviceChild, uri: str, task: Task, measured: Measurement) -> None:
        if not measured.cut_short:
            samples = self._earlier(child, uri, task) + measured.baseline_samples_us
            self._baselines[uri] = _Baseline(child.generation, task.dispatch.key, samples[-_REMEMBERED:])

    def _bar(self, task: Task) -> float:
        """The ratio that a candidate needs to get into the final, from what all processes of the run measured."""
        return bar_to_final(journal.read(self._bar_file(task), float))

    def _raise_bar(self, task: Task, measured: Measurement) -> None:
        if not measured.cut_short and measured.ratio_low > 1:
            journal.append(self._bar_file(task), round(measured.ratio_low, 5))

    def _bar_file(self, task: Task) -> Path:
        # Lines are only ever added, so that workers need no lock. Where the exchange is gone, the run is over.
        folder = self.settings.exchange / "bars"
        folder.mkdir(exist_ok=True)
        return folder / f"{task.dispatch.key}.jsonl"

    def _prepare(self, child: DeviceChild, uri: str, task: Task, default: Artifact) -> _Prepared:
        """Load the default and keep its result, once for each dispatch and child process."""
        # Taken out first: whatever interrupts the loading below leaves the child with a part of it.
        known = self._prepared.pop(uri, None)
        if known is None or (known.generation, known.dispatch) != (child.generation, task.dispatch.key):
            check_s = self._load_reference(child, task, task.dispatch.members[0], default)
            run = partial(child.run, _DEFAULT)
            batch = calibrate(run, SCREENING.sample_s, cap=SCREENING.batch_cap)
            known = _Prepared(child.generation, task.dispatch.key, batch, run(batch), check_s)
        self._prepared[uri] = known
        return known

    def _load_reference(self, child: DeviceChild, task: Task, member: Member, default: Artifact) -> float:
        """Load the default and keep its result; return the seconds that checking a result takes it."""
        assert default.vmfb is not None
        child.load_benchmark(_DEFAULT, Path(default.vmfb), member.module)
        child.keep_reference(_DEFAULT, _REFERENCE, self.settings.seed)
        # The default is its own reference: a result that changes from run to run can verify nothing.
        started = time.perf_counter()
        self._check(child, _DEFAULT, _REFERENCE, task.dispatch, member, _RUN_TIMEOUT_S)
        return time.perf_counter() - started

    def _load_and_check(
        self, child: DeviceChild, key: str, task: Task, member: Member, artifact: Artifact, timeout_s: float
    ) -> None:
        assert artifact.vmfb is not None
        child.load_benchmark(key, Path(artifact.vmfb), member.module)
        self._check(child, key, _REFERENCE, task.dispatch, member, timeout_s)

    def _check(
        self, child: DeviceChild, key: str, reference: str, dispatch: Dispatch, member: Member, timeout_s: float
    ) -> None:
        _raise_if_wrong(child.check(key, reference, acceptance_of(dispatch, member), timeout_s=timeout_s))

    def _check_edges(
        self, child: DeviceChild, key: str, reference: str, dispatch: Dispatch, member: Member, timeout_s: float
    ) -> None:
        """Check the results on special values. That runs the reference too, so it may take as long again."""
        acceptance = acceptance_of(dispatch, member)
        _raise_if_wrong(child.check(key, reference, acceptance, edges=True, timeout_s=2 * timeout_s), special=True)

    def _refuse_impossible(self, child: DeviceChild, uri: str, task: Task, measured: Measurement) -> None:
        """Take a time that the device cannot reach for a run that left out work."""
        if self._yardsticks is None or measured.cut_short or measured.ratio < SUSPICIOUS_RATIO:
            return
        work = work_of(task.dispatch.root, task.dispatch.members[0].module)
        try:
            reason = self._yardsticks.why_impossible(measured.median_us, work, child)
        except DeviceChildDied:  # Not the candidate's doing: its figures stand.
            self._forget(uri)
            return
        if reason:
            raise CandidateFailed(State.WRONG_RESULT, reason)

    @contextmanager
    def _with_models(
        self,
        default: Path,
        tuned: Mapping[str, Path],
        function: str,
        inputs: Sequence[Tensor],
        tolerance: Tolerance,
        number: int,
        files: Mapping[int, str],
        answer: Path | None,
    ) -> Iterator[tuple[DeviceChild, int]]:
        """A fresh child with models loaded and their results checked, on inputs whose seed comes with it.

        ``answer`` is the default with its sums disturbed, if that is known.
        """
        seed = self.settings.seed + number
        with self._leases.acquire(self._tell) as uri, self._failures(uri):
            try:
                child = self._child(uri)
                child.load_function(_DEFAULT, default, function, inputs, files)
                child.keep_reference(_DEFAULT, _REFERENCE, seed)
                if answer is not None:
                    child.load_function(_DISTURBED, answer, function, inputs, files)
                    child.learn_response(_DISTURBED, _REFERENCE, tolerance.deviation)
                    child.unload(_DISTURBED)
                for name, path in tuned.items():
                    child.load_function(name, path, function, inputs, files)
                    _raise_if_wrong(child.check(name, _REFERENCE, tolerance))
                yield child, seed
            finally:
                self._forget(uri)

    def _default_artifact(self, task: Task, member: int = 0) -> Artifact:
        try:
            return self._builds.artifact(task, task.default, member)
        except CandidateFailed as failure:
            raise _default_failed(failure) from failure

    def _pair(
        self, task: Task, candidate: Candidate, artifact: Artifact | None
    ) -> tuple[list[Artifact], list[Artifact]]:
        """The artifacts of the default and of a candidate, one for each member of the dispatch's group."""
        members = range(len(task.dispatch.members))
        first = artifact or self._builds.artifact(task, candidate)
        rest = [self._builds.artifact(task, candidate, member) for member in members[1:]]
        return [self._default_artifact(task, member) for member in members], [first, *rest]

    def reserve(self, task: Task, candidate: Candidate) -> None:
        """Let no other candidate measure the binary of one that was measured by an earlier run, if it is still known.

        Raises:
            OSError: it cannot be written down.
        """
        if (artifact := self._builds.known(task.dispatch.members[0].module, candidate)) and artifact.vmfb is not None:
            self._claims.owner(task, candidate, artifact)

    def _refuse_default_binary(self, task: Task, candidate: Candidate, artifact: Artifact) -> None:
        default = self._builds.known(task.dispatch.members[0].module, task.default)
        if default and default.sha256 == artifact.sha256 and candidate.id != task.default.id:
            raise CandidateFailed(State.DUPLICATE, "its binary equals that of the default config", task.default.id)

    def _child(self, uri: str) -> DeviceChild:
        child = self._children.get(uri)
        if child is not None and child.alive:
            # A request that costs nothing: a child that died while it was idle is replaced, and costs no candidate.
            with suppress(DeviceChildDied):
                child.unload(_CANDIDATE)
                return child
        if child is not None:
            child.close()
        child = self._children[uri] = DeviceChild(uri)
        return child

    def _forget(self, uri: str) -> None:
        """End the child of a device, and what is known of it."""
        self._prepared.pop(uri, None)
        self._baselines.pop(uri, None)
        child = self._children.pop(uri, None)
        if child is not None:
            child.close()

    @contextmanager
    def _fresh(self, uri: str, busy: Sequence[str]) -> Iterator[DeviceChild]:
        """A new child, ended afterwards; what fails while ``busy`` names no candidate is the default's failure."""
        self._forget(uri)
        try:
            with self._failures(uri):
                yield self._child(uri)
        except CandidateFailed as failure:
            if busy[0] != _CANDIDATE:
                raise _default_failed(failure) from failure
            raise
        finally:
            self._forget(uri)

    @contextmanager
    def _failures(self, uri: str) -> Iterator[None]:
        """Turn what goes wrong in a device's child into the candidate's state."""
        try:
            yield
        except DeviceChildDied as error:
            self._forget(uri)
            raise _failure(error) from error
        except DeviceRequestFailed as error:
            raise _failure(error) from error


def model_tolerance(source: Source, function: str, tasks: Iterable[Task], symbols: Iterable[str]) -> Tolerance:
    """What the results of a source's function may differ by where the executables ``symbols`` have other configs.

    ``tasks`` are those of the plan. Where an executable is none of theirs, nothing is known of its sums, and those of
    all tasks stand for them.
    """
    elements = [tensor.element for tensor in source.functions.get(function, ())]
    changed = set(symbols)
    of_source = [(task, member) for task in tasks for member in task.dispatch.members if member.source == source.name]
    elements += [view.element for _, member in of_source for view in member.module.views]
    if changed <= {member.symbol for _, member in of_source}:
        of_source = [(task, member) for task, member in of_source if member.symbol in changed]
    sums = [
        (kept.element, kept.length, member.calls)
        for task, member in of_source
        for kept in _numerics(task.dispatch, member).sums
    ]
    return tolerance_in_model(elements, sums)


def _numerics(dispatch: Dispatch, member: Member) -> Numerics:
    """A dispatch's own, or what its root op tells where nobody read the dispatch."""
    kept = dispatch.root.outputs[0].element
    sums = (Sum(kept, dispatch.root.reduction_length),)
    return member.module.numerics or Numerics(sums=sums, widest=kept)


def acceptance_of(dispatch: Dispatch, member: Member) -> Acceptance:
    """What a right result of a dispatch is."""
    written = [math.prod(view.shape) for view in member.module.views if view.writes]
    return acceptance_for(_numerics(dispatch, member), elements=max(1, min(written, default=1)))


def _raise_if_wrong(check: Check, *, special: bool = False) -> None:
    if not check.ok:
        where = "with NaN, infinities, large and tiny numbers among the inputs: " if special else ""
        raise CandidateFailed(State.WRONG_RESULT, where + check.reason, check)


def _default_failed(failure: CandidateFailed) -> CandidateFailed:
    return CandidateFailed(State.RUN_FAILED, f"the default config to compare with failed: {failure}")


def _failure(error: DeviceChildDied | DeviceRequestFailed) -> CandidateFailed:
    timed_out = isinstance(error, DeviceChildDied) and error.timed_out
    return CandidateFailed(State.RUN_TIMEOUT if timed_out else State.RUN_FAILED, str(error))
