"""The session: runs the stages in order, on whichever process holds it, and knows nothing of pytest."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from pytest_shark_tune.apply import Application, apply_spec
from pytest_shark_tune.custom import CustomTask
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, DeviceChildDied, InputError
from pytest_shark_tune.plan import AnyTask, Plan, Source, Task, make_plan, plan_key, read_source
from pytest_shark_tune.stages.artifact import Artifact, ConfigureFailed, configure_with, strip, why_not_applied
from pytest_shark_tune.stages.candidate import Candidate
from pytest_shark_tune.stages.dispatch import BenchmarkModule, Dispatch, Member, Tensor
from pytest_shark_tune.stages.measurement import (
    FINAL,
    SCREENING,
    Measurement,
    Tolerance,
    calibrate,
    combine_rounds,
    compare,
    compare_finalists,
    tolerance_for,
)
from pytest_shark_tune.stages.record import Finalist, FinalRecord, Record, SourceCheck, SpecRecord, State
from pytest_shark_tune.stages.space import SpaceRequest
from pytest_shark_tune.stages.spec import SpecEntry, build_spec, link_spec, single_entry_spec
from pytest_shark_tune.stages.winner import choose_finalists, declare_winner
from pytest_shark_tune.tools import journal, process
from pytest_shark_tune.tools.cache import Cache, content_key
from pytest_shark_tune.tools.compiler import Compiler, compiler_version, first_error
from pytest_shark_tune.tools.lease import DeviceLeases
from pytest_shark_tune.tools.machine import processors
from pytest_shark_tune.tools.runtime import DeviceChild, DeviceRequestFailed

__all__ = ["RunSettings", "Session"]

FailedBuild = Literal["compile_failed", "compile_timeout", "not_applied"]

_DEFAULT, _CANDIDATE, _REFERENCE = "default", "candidate", "reference"
_ROUNDS, _MOST_ROUNDS = 5, 10
_NARROW = 0.1
_RUN_TIMEOUT_S = 30.0
_SHORTEST_TIMEOUT_S = 5.0
_SLOWEST = 20.0
"""A candidate that takes this many times the baseline's time is stopped: it cannot win."""
_AHEAD = 8
"""How many candidates are compiled at a stretch, for each compilation at a time."""


@dataclass(frozen=True)
class RunSettings:
    """What a run works with. ``exchange`` is a folder of this run alone that all its processes see.

    ``records`` and ``finals`` are the journals in the output folder, written by whoever controls the run.
    """

    devices: tuple[str, ...]
    device_name: str
    jobs: int
    candidates: int
    seed: int
    records: Path
    finals: Path
    exchange: Path
    request: SpaceRequest


class Session:
    """Plans, compiles, measures and verifies for one process of a run.

    ``tell`` is told in words what takes long. ``close`` ends the children. ``kernels`` keeps what clients' own
    compilers made, by plan, task and candidate.
    """

    def __init__(
        self,
        settings: RunSettings,
        compiler: Compiler,
        cache: Cache,
        *,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.settings = settings
        self.compiler = compiler
        self.cache = cache
        self._tell = tell
        self._leases = DeviceLeases(settings.devices)
        self._children: dict[str, DeviceChild] = {}
        self._prepared: dict[str, tuple[str, int, float]] = {}
        self._artifacts: dict[str, Artifact] = {}
        self.kernels: dict[tuple[str, str, str], tuple[Any, float]] = {}
        self._pool = ThreadPoolExecutor(settings.jobs, thread_name_prefix="iree-compile")

    def close(self) -> None:
        """End whatever this session started."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        process.stop_all()
        self._pool.shutdown()
        for child in self._children.values():
            child.close()

    # Planning.

    def plan(self, given: Sequence[object], folder: Path) -> tuple[str, Plan]:
        """The plan for the sources that a marker names, and its key in the cache; made by one process only.

        Raises:
            InputError: a source cannot be read or compiled.
        """
        kernels = [each for each in given if isinstance(each, CustomTask)]
        if again := [name for name, number in Counter(kernel.name for kernel in kernels).items() if number > 1]:
            raise InputError(f"{again[0]} is the name of two custom tasks")
        sources = _named_apart([read_source(each, folder) for each in given if not isinstance(each, CustomTask)])
        settings = self.settings
        key = plan_key(
            sources,
            self.compiler,
            kernels=kernels,
            request=settings.request,
            processors=processors(),
            count=settings.candidates,
            seed=settings.seed,
        )

        def make() -> Plan:
            return make_plan(
                sources,
                self.compiler,
                processors=processors(),
                count=settings.candidates,
                seed=settings.seed,
                kernels=kernels,
                request=settings.request,
                tell=self._tell,
            )

        return key, self.cache.get_or_make("plans", key, Plan, make)

    def keep_plan(self, origin: str, plan: Plan) -> tuple[str, Plan]:
        """Keep a plan that was made from the one of key ``origin``; return its key too."""
        key = content_key("plan", origin, [task.dispatch.name for task in plan.tasks])
        return key, self.cache.get_or_make("plans", key, Plan, lambda: plan)

    # Compiling.

    def artifact(self, task: Task, candidate: Candidate, member: int = 0) -> Artifact:
        """The compiled candidate; for the first member those that follow it in the plan are compiled along with it.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied.
        """
        module = task.dispatch.members[member].module
        artifact = self._known_artifact(module, candidate)
        if artifact is None:
            everyone = (task.default, *task.candidates) if member == 0 else (candidate,)
            ahead = [each for each in everyone[everyone.index(candidate) :] if not self._known_artifact(module, each)]
            self._compile_all(task, module, ahead[: _AHEAD * self.settings.jobs])
            artifact = self._known_artifact(module, candidate)
            assert artifact is not None
        if artifact.vmfb is None:
            raise CandidateFailed(artifact.state, artifact.reason)
        return artifact

    def _compile_all(self, task: Task, module: BenchmarkModule, candidates: Sequence[Candidate]) -> None:
        """Compile ``candidates``, several at a time; on a CPU device nothing is measured meanwhile."""
        with self.processor():
            pending = [(candidate, self._submit(task.dispatch, module, candidate)) for candidate in candidates]
            for candidate, future in pending:
                self._keep(module, candidate, future.result())

    def processor(self) -> AbstractContextManager[object]:
        """Holds the device while the compiler runs, where both are the same processor."""
        return self._leases.acquire(self._tell) if self.compiler.target.shares_processor else nullcontext()

    def device(self) -> AbstractContextManager[str]:
        """Holds a device, whose URI it gives, until it is free."""
        return self._leases.acquire(self._tell)

    def _submit(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> Future[Artifact]:
        """Configure the module here, where the bindings live, and have it compiled in the pool."""
        try:
            text = _configured(dispatch, module, candidate)
        except CandidateFailed as failure:
            failed: Future[Artifact] = Future()
            state: FailedBuild = "not_applied" if failure.state == State.NOT_APPLIED else "compile_failed"
            failed.set_result(Artifact(candidate=candidate.id, state=state, reason=failure.reason))
            return failed
        out = self.cache.file("artifacts", self._artifact_key(module, candidate), ".vmfb")
        return self._pool.submit(self._compile, candidate, text, out)

    def _compile(self, candidate: Candidate, text: str, out: Path) -> Artifact:
        try:
            seconds = self.compiler.compile_sources(text, out)
        except CommandFailed as error:
            state: FailedBuild = "compile_timeout" if error.timed_out else "compile_failed"
            return Artifact(candidate=candidate.id, state=state, reason=first_error(error), stderr=error.stderr)
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        return Artifact(
            candidate=candidate.id, state="compiled", vmfb=os.fspath(out), sha256=digest, compile_s=round(seconds, 3)
        )

    def _artifact_key(self, module: BenchmarkModule, candidate: Candidate) -> str:
        return content_key("artifact", module.text, candidate.compilation_info, self.compiler.identity)

    def _known_artifact(self, module: BenchmarkModule, candidate: Candidate) -> Artifact | None:
        key = self._artifact_key(module, candidate)
        artifact = self._artifacts.get(key) or self.cache.get("artifacts", key, Artifact)
        if artifact is None or (artifact.vmfb and not Path(artifact.vmfb).exists()):
            return None
        self._artifacts[key] = artifact
        return artifact

    def _keep(self, module: BenchmarkModule, candidate: Candidate, artifact: Artifact) -> None:
        key = self._artifact_key(module, candidate)
        self._artifacts[key] = artifact
        # A time-out, a crash, a lack of memory, a linker that fails: these tell of this machine and its load. What the
        # compiler itself says of a config stays true.
        said = "error:" in artifact.reason and "failed to link" not in artifact.reason
        if artifact.state in ("compiled", "not_applied") or said:
            self.cache.put("artifacts", key, artifact)

    # Measuring.

    def measure(self, task: Task, candidate: Candidate, artifact: Artifact) -> Measurement:
        """Time a candidate beside the default on a leased device, once its result is found right.

        Raises:
            CandidateFailed: it is a duplicate, cannot be run, runs too long, or its result is wrong.
        """
        self._claim(task, candidate, artifact)
        is_default = candidate.id == task.default.id
        default = artifact if is_default else self._default_artifact(task)
        with self._leases.acquire(self._tell) as uri, self._failures(uri):
            child = self._child(uri)
            batch, batch_s = self._prepare(child, uri, task, default)
            timeout_s = max(_SHORTEST_TIMEOUT_S, _SLOWEST * batch_s)
            baseline = partial(child.run, _DEFAULT)
            if is_default:
                return compare(baseline, baseline, batch=batch)
            self._load_and_check(child, _CANDIDATE, task, task.dispatch.members[0], artifact, timeout_s)
            try:
                return compare(partial(child.run, _CANDIDATE, timeout_s=timeout_s), baseline, SCREENING, batch=batch)
            finally:
                if child.alive:
                    child.unload(_CANDIDATE)

    def final(self, task: Task) -> FinalRecord:
        """Measure the fastest again, beside the default and each other, in fresh processes; declare a winner.

        Every finalist is checked, on new inputs each time, in every dispatch that the spec entry will match.
        """
        return self.hold_final(task, partial(self._round, task))

    def finalists(self, task: AnyTask) -> tuple[str, ...]:
        """The ids of those that are measured again, fastest first."""
        records = journal.read(self.settings.records, Record)
        return choose_finalists(each for each in records if each.dispatch == task.name)

    def hold_final(
        self,
        task: AnyTask,
        play: Callable[[Sequence[str], dict[str, CandidateFailed], int], Iterable[tuple[str, Measurement]]],
    ) -> FinalRecord:
        """Play rounds until they tell enough, and declare a winner.

        ``play`` takes the ids of those still in, those that failed, to which it adds, and the round's number; it
        gives the measurement of each that did not fail.
        """
        rounds: dict[str, list[Measurement]] = {name: [] for name in self.finalists(task)}
        failed: dict[str, CandidateFailed] = {}
        for number in range(_MOST_ROUNDS):
            going = [name for name in rounds if name not in failed]
            for name, measurement in play(going, failed, number):
                rounds[name].append(measurement)
            if number + 1 >= _ROUNDS and _is_decided([rounds[name] for name in going if name not in failed]):
                break
        finalists = [
            Finalist(id=name, state=State(failed[name].state), reason=failed[name].reason)
            if name in failed
            else _finalist(name, combine_rounds(measured))
            for name, measured in rounds.items()
        ]
        winner, reason = declare_winner(finalists, lambda name: _simplicity(task.candidate(name)))
        baselines = next((measured for name, measured in rounds.items() if name not in failed), [])
        return FinalRecord(
            dispatch=task.name,
            root=task.dispatch.root if isinstance(task, Task) else None,
            weight=task.weight,
            finalists=tuple(finalists),
            baseline_samples_us=_rounded(sample for each in baselines for sample in each.baseline_samples_us),
            winner=winner,
            reason=reason,
            compilation_info=task.candidate(winner).compilation_info if winner else "",
            device=self.settings.device_name,
            target=str(self.compiler.target),
            iree=compiler_version(),
        )

    def record(
        self,
        task: AnyTask,
        candidate: Candidate,
        artifact: Artifact | None,
        outcome: Measurement | CandidateFailed,
        compile_s: float | None = None,
    ) -> Record:
        """The record of a candidate that was tried; ``compile_s`` is for kernels, which have no artifact of ours."""
        failure = outcome if isinstance(outcome, CandidateFailed) else None
        measured = outcome if isinstance(outcome, Measurement) else None
        if isinstance(task, Task):
            known = artifact or self._known_artifact(task.dispatch.members[0].module, candidate)
            compile_s = known.compile_s if known and known.vmfb else None
        return Record(
            id=candidate.id,
            dispatch=task.name,
            pipeline=candidate.pipeline,
            knobs=candidate.knobs,
            config=candidate.config,
            state=State(failure.state) if failure else State.MEASURED,
            reason=failure.reason if failure else "",
            compile_s=compile_s,
            samples_us=_rounded(measured.samples_us) if measured else (),
            baseline_samples_us=_rounded(measured.baseline_samples_us) if measured else (),
            ratio=round(measured.ratio, 5) if measured else None,
            ratio_low=round(measured.ratio_low, 5) if measured else None,
            ratio_high=round(measured.ratio_high, 5) if measured else None,
            device=self.settings.device_name,
            target=str(self.compiler.target),
            iree=compiler_version(),
        )

    def _round(
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
                    yield from self._compare_all(self._child(uri), task, built, number, current).items()
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

    def _finalists(
        self, task: Task, names: Sequence[str], failed: dict[str, CandidateFailed]
    ) -> dict[str, list[Artifact]]:
        """The artifacts of the default and of each finalist, one for each member of the dispatch's group."""
        built: dict[str, list[Artifact]] = {}
        for candidate in (task.default, *(task.candidate(name) for name in names)):
            try:
                members = range(len(task.dispatch.members))
                built[candidate.id] = [self.artifact(task, candidate, member) for member in members]
            except CandidateFailed as failure:
                if candidate.id == task.default.id:
                    raise
                failed[candidate.id] = failure
        return built

    def _compare_all(
        self, child: DeviceChild, task: Task, built: Mapping[str, list[Artifact]], number: int, current: list[str]
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

        def runner(name: str) -> Callable[[int], float]:
            def run(batch: int) -> float:
                current[0] = name
                members = task.dispatch.members
                total = sum(member.calls * child.run(f"{name}/{index}", batch) for index, member in enumerate(members))
                return total / task.dispatch.weight

            return run

        runs = {name: runner(name) for name in built if name != default}
        return compare_finalists(runs, runner(default), FINAL, seed=self.settings.seed + number)

    def _prepare(self, child: DeviceChild, uri: str, task: Task, default: Artifact) -> tuple[int, float]:
        """Load the default and keep its result, once for each dispatch and child; return its batch and seconds."""
        known = self._prepared.get(uri)
        if known and known[0] == task.dispatch.key:
            return known[1], known[2]
        member = task.dispatch.members[0]
        assert default.vmfb is not None
        child.load_benchmark(_DEFAULT, Path(default.vmfb), member.module)
        child.keep_reference(_DEFAULT, _REFERENCE, self.settings.seed)
        # The default is its own reference: a result that changes from run to run can verify nothing.
        self._check(child, _DEFAULT, _REFERENCE, task.dispatch, member, _RUN_TIMEOUT_S)
        run = partial(child.run, _DEFAULT)
        batch = calibrate(run, SCREENING.sample_s, cap=SCREENING.batch_cap)
        batch_s = run(batch)
        self._prepared[uri] = (task.dispatch.key, batch, batch_s)
        return batch, batch_s

    def _load_and_check(
        self, child: DeviceChild, key: str, task: Task, member: Member, artifact: Artifact, timeout_s: float
    ) -> None:
        assert artifact.vmfb is not None
        child.load_benchmark(key, Path(artifact.vmfb), member.module)
        self._check(child, key, _REFERENCE, task.dispatch, member, timeout_s)

    def _check(
        self, child: DeviceChild, key: str, reference: str, dispatch: Dispatch, member: Member, timeout_s: float
    ) -> None:
        check = child.check(key, reference, _tolerance(dispatch, member), timeout_s=timeout_s)
        if not check.ok:
            raise CandidateFailed(State.WRONG_RESULT, check.reason)

    def _default_artifact(self, task: Task) -> Artifact:
        try:
            return self.artifact(task, task.default)
        except CandidateFailed as failure:
            raise CandidateFailed(
                State.RUN_FAILED, f"the default config to compare with failed: {failure}"
            ) from failure

    def _claim(self, task: Task, candidate: Candidate, artifact: Artifact) -> None:
        """Measure each binary once: whoever comes second with the same code is a duplicate."""
        claims = self.settings.exchange / "claims"
        claims.mkdir(parents=True, exist_ok=True)
        default = self._known_artifact(task.dispatch.members[0].module, task.default)
        if default and default.sha256 == artifact.sha256 and candidate.id != task.default.id:
            raise CandidateFailed(State.DUPLICATE, "its binary equals that of the default config")
        path = claims / f"{task.dispatch.key}-{artifact.sha256}"
        try:
            with path.open("x", encoding="utf-8") as claim:
                claim.write(candidate.id)
        except FileExistsError:
            owner = path.read_text(encoding="utf-8")
            if owner != candidate.id:
                raise CandidateFailed(State.DUPLICATE, f"its binary equals that of candidate {owner}") from None

    def _child(self, uri: str) -> DeviceChild:
        child = self._children.get(uri)
        if child is None or not child.alive:
            child = self._children[uri] = DeviceChild(uri)
        return child

    def _forget(self, uri: str) -> None:
        """End the child of a device, and what is known of it."""
        self._prepared.pop(uri, None)
        child = self._children.pop(uri, None)
        if child is not None:
            child.close()

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

    # Verifying.

    def verify(self, plan: Plan) -> SpecRecord:
        """Try the merged spec on the sources of ``plan``: applied where it should be, same results, no slower.

        Entries that fail are dropped, with the reason, until what is left holds.
        """
        # Two suites may tune equal dispatches: the later final stands, here as in the ledger.
        by_dispatch = {each.dispatch: each for each in journal.read(self.settings.finals, FinalRecord)}
        finals = [each for each in by_dispatch.values() if each.winner and each.root is not None]
        dropped: dict[str, str] = {}
        while True:
            kept = [each for each in finals if each.dispatch not in dropped]
            if not kept:
                return SpecRecord(sources=(), dropped=dropped)
            spec = link_spec(build_spec([_entry(each) for each in kept]))
            checks: list[SourceCheck] = []
            for source in plan.sources:
                check, bad = self._verify_source(plan, source, spec, kept)
                if bad:
                    dropped |= bad
                    break
                checks.append(check)
            else:
                return SpecRecord(sources=tuple(checks), dropped=dropped)

    def _verify_source(
        self, plan: Plan, source: Source, spec: str, finals: Sequence[FinalRecord]
    ) -> tuple[SourceCheck, dict[str, str]]:
        """The check of one source, and the entries that it speaks against, by name with the reason."""
        infos = {each.dispatch: each.compilation_info for each in finals}
        names = [
            task.dispatch.name
            for task in plan.tasks
            if task.dispatch.name in infos and any(each.source == source.name for each in task.dispatch.members)
        ]
        if not names:
            return SourceCheck(source=source.name, applied=0, note="nothing in it was tuned"), {}
        application = apply_spec(source, spec, self.compiler)
        check = SourceCheck(source=source.name, applied=len(application.placed), note=_flag_note(application))
        if bad := _misapplied(
            plan, source, infos, {(each.symbol, each.compilation_info) for each in application.placed}
        ):
            return check, bad
        if application.flag_error:
            return check, dict.fromkeys(names, f"iree-compile fails on {source.name} with it: {application.flag_error}")
        if not source.functions:
            if not source.is_benchmark:
                note = "no function in it whose inputs can be made up, so it was not run"
                check = msgspec.structs.replace(check, note="; ".join(filter(None, [note, check.note])))
            return check, {}
        paths = [self._model(strip(application.sources)), self._model(application.text)]
        reduction = sum(task.dispatch.root.reduction_length for task in plan.tasks)
        for function, inputs in source.functions.items():
            with self._leases.acquire(self._tell) as uri:
                try:
                    measured = self._compare_models(self._child(uri), paths, function, inputs, max(reduction, 1))
                except (CandidateFailed, DeviceChildDied, DeviceRequestFailed) as error:
                    return check, dict.fromkeys(names, f"in the whole of {source.name}: {error}")
                finally:
                    self._forget(uri)
            check = msgspec.structs.replace(
                check, ratio=measured.ratio, ratio_low=measured.ratio_low, ratio_high=measured.ratio_high
            )
            if measured.ratio_high < 1:
                reason = (
                    f"the whole of {source.name} is slower with it: {measured.ratio:.3f} times the default's speed "
                    f"({measured.ratio_low:.3f} to {measured.ratio_high:.3f})"
                )
                return check, dict.fromkeys(names, reason)
        return check, {}

    def _compare_models(
        self, child: DeviceChild, paths: Sequence[Path], function: str, inputs: Sequence[Tensor], reduction: int
    ) -> Measurement:
        default, tuned = paths
        child.load_function(_DEFAULT, default, function, inputs)
        child.load_function(_CANDIDATE, tuned, function, inputs)
        child.keep_reference(_DEFAULT, _REFERENCE, self.settings.seed)
        element = inputs[0].element if inputs else "f32"
        check = child.check(_CANDIDATE, _REFERENCE, tolerance_for(element, element, reduction))
        if not check.ok:
            raise CandidateFailed(State.WRONG_RESULT, check.reason)
        return compare(partial(child.run, _CANDIDATE), partial(child.run, _DEFAULT), FINAL)

    def _model(self, text: str) -> Path:
        """Compile a whole model that is at executable-sources."""
        out = self.cache.file("models", content_key("model", text, self.compiler.identity), ".vmfb")
        if not out.exists():
            with self.processor():
                self.compiler.compile_sources(text, out)
        return out


def _configured(dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> str:
    """The module with the candidate's config in force; the default's is the compiler's own choice."""
    if not candidate.compilation_info:
        return module.text
    try:
        configured = configure_with(module.text, single_entry_spec(dispatch.root, candidate.compilation_info))
    except ConfigureFailed as error:
        raise CandidateFailed(State.COMPILE_FAILED, str(error)) from error
    missed = why_not_applied(configured, candidate.compilation_info)
    if missed is not None:
        raise CandidateFailed(State.NOT_APPLIED, missed.reason)
    return configured.text


def _tolerance(dispatch: Dispatch, member: Member) -> Tolerance:
    """What a result may differ by: from the widest rounding between the op's inputs and what is stored."""
    root = dispatch.root
    stored = [view.element for view in member.module.views if view.writes] or [root.outputs[0].element]
    taken = (root.inputs or root.outputs)[:2]
    tolerances = [tolerance_for(given.element, element, root.reduction_length) for given in taken for element in stored]
    return max(tolerances, key=lambda each: (each.rtol, each.atol_scale))


def _is_decided(finalists: Iterable[Sequence[Measurement]]) -> bool:
    """Whether more rounds would tell no more: each finalist is surely slower, or its interval is narrow."""
    joined = [combine_rounds(measured) for measured in finalists]
    return all(each.ratio_high < 1 or each.ratio - each.ratio_low < _NARROW * each.ratio for each in joined)


def _failure(error: DeviceChildDied | DeviceRequestFailed) -> CandidateFailed:
    timed_out = isinstance(error, DeviceChildDied) and error.timed_out
    return CandidateFailed(State.RUN_TIMEOUT if timed_out else State.RUN_FAILED, str(error))


def _finalist(name: str, measured: Measurement) -> Finalist:
    return Finalist(
        id=name,
        state=State.MEASURED,
        samples_us=_rounded(measured.samples_us),
        ratio=round(measured.ratio, 5),
        ratio_low=round(measured.ratio_low, 5),
        ratio_high=round(measured.ratio_high, 5),
    )


def _simplicity(candidate: Candidate) -> tuple[int, ...]:
    """Fewer knobs in use first, then smaller tiles."""
    values = candidate.knobs.values()
    return sum(value != 0 for value in values), sum(values)


def _rounded(samples: Iterable[float]) -> tuple[float, ...]:
    """Microseconds to the nanosecond: no clock here tells more, and journals stay readable."""
    return tuple(round(sample, 3) for sample in samples)


def _entry(final: FinalRecord) -> SpecEntry:
    assert final.root is not None
    return SpecEntry(name=final.dispatch, root=final.root, compilation_info=final.compilation_info)


def _flag_note(application: Application) -> str:
    """Which entries iree-compile's own flag does not apply."""
    missed = sorted({each.entry for each in application.placed if not each.by_flag})
    return f"only shark-tune compile applies {', '.join(missed)}" if missed else ""


def _misapplied(plan: Plan, source: Source, infos: Mapping[str, str], applied: Set[tuple[str, str]]) -> dict[str, str]:
    """The entries that were not applied to exactly their ops in a source, with the reason."""
    bad = {}
    for task in plan.tasks:
        name = task.dispatch.name
        if name not in infos:
            continue
        wanted = {member.symbol for member in task.dispatch.members if member.source == source.name}
        got = {symbol for symbol, info in applied if info == infos[name]}
        if missed := wanted - got:
            bad[name] = f"in the whole of {source.name} it does not apply to {', '.join(sorted(missed))}"
        elif extra := got - wanted - _owners(plan, infos, name):
            bad[name] = f"in the whole of {source.name} it applies to {', '.join(sorted(extra))} as well"
    return bad


def _owners(plan: Plan, infos: Mapping[str, str], name: str) -> set[str]:
    """The executables that take the same config by right: those of dispatches with an equal winner."""
    return {
        member.symbol
        for task in plan.tasks
        if infos.get(task.dispatch.name) == infos[name]
        for member in task.dispatch.members
    }


def _named_apart(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Give sources of equal names a number, since their dispatches are told apart by the source's name."""
    seen: Counter[str] = Counter()
    apart = []
    for source in sources:
        seen[source.name] += 1
        number = seen[source.name]
        apart.append(source if number == 1 else msgspec.structs.replace(source, name=f"{source.name}_{number}"))
    return tuple(apart)
