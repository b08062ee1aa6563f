"""The builder: compiles several candidates at a time, and stores them in the cache by a hash of their inputs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION, ConfigureFailed, configure_with, why_not_applied
from pytest_shark_tune.compiler.machine_code import CodePair, RecordedCode, machine_code
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import FinalRecord, State, lasts
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.spec.build import SPEC_VERSION, single_entry_spec
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cache import BINARY, Cache, content_key, file_digest
from pytest_shark_tune.tuning.ahead.comparers import Comparers
from pytest_shark_tune.tuning.compile_step import CompileStep

__all__ = ["Builder", "code_pairs", "recorded_code", "with_code"]

FailedBuild = Literal["compile_failed", "compile_timeout", "not_applied"]

_FAILED_STATES: dict[str, FailedBuild] = {State.NOT_APPLIED: "not_applied", State.COMPILE_TIMEOUT: "compile_timeout"}
"""The states of candidates that fail before they are compiled, where that is not ``compile_failed``."""

_AHEAD = 8
"""How many candidates beyond the needed one may be compiled, per job."""
_QUEUED = 2
"""How many candidates may be queued per job, including those that are being compiled."""
_POLL_S = 0.02
_NICENESS = 10


_logger = logging.getLogger(__name__)


class Builder:
    """Compiles candidates and models for one process of a run.

    Processes share the work. A candidate that one of them is compiling has a lock in the cache; the others compile the
    candidates after it, and a process that needs the candidate waits for it. If the compiler runs on the device that is
    measured, it compiles a batch of candidates while it holds the device. Otherwise the pool goes on while the caller
    measures.

    No process waits for a device while it holds such a lock, so waiting for a lock while holding a device always ends.

    Args:
        compiler: the compiler.
        cache: holds compiled modules.
        leases: the devices.
        jobs: how many candidates are compiled at a time.
        report: gets a message about a long wait for a device.
        prefetch_queue: returns the candidates of a task that are likely to be needed next.
        step: a client's own compile step, through which everything goes that is compiled.
        of_run: the cache that ends with the run. A candidate that failed in one process has failed for all of the run.
        before_loading: does a driver's share of compiling for a compiled module, see `ahead.driver`.
    """

    def __init__(
        self,
        compiler: Compiler,
        cache: Cache,
        leases: DeviceLeases,
        *,
        jobs: int,
        report: Callable[[str], None],
        prefetch_queue: Callable[[Task], Sequence[Candidate]] = lambda task: (),
        step: CompileStep | None = None,
        of_run: Cache | None = None,
        before_loading: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self.compiler = compiler
        self._cache = cache
        self._leases = leases
        self.jobs = jobs
        """How many candidates are compiled at a time."""
        self._report = report
        self._prefetch_queue = prefetch_queue
        self._step = step
        self._of_run = of_run
        self._identity = (*compiler.identity, step.key) if step else compiler.identity
        self._artifacts: dict[str, Artifact] = {}
        self._keys: dict[tuple[str, ...], str] = {}
        self._running: dict[str, Future[Artifact]] = {}
        behind = None if compiler.target.shares_processor else _step_back
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="iree-compile", initializer=behind)
        self._before_loading = before_loading
        self.comparers = Comparers(compiler, cache, self._pool, before_loading)
        """The modules that compare results on the device."""

    def close(self) -> None:
        """End every command that is running, and those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        process.stop_all()
        self._pool.shutdown()

    def artifact(self, task: Task, candidate: Candidate, member: int = 0) -> Artifact:
        """The compiled candidate. For the first member, the next candidates are compiled along with it.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied.
        """
        module = task.dispatch.members[member].module
        shares_processor = self.compiler.target.shares_processor
        self.comparers.start(module)
        artifact = self.known(module, candidate) if shares_processor else None
        if artifact is None:
            ahead = [other for other in self._prefetch_queue(task) if other.id != candidate.id] if member == 0 else []
            make = self._compile_batch if shares_processor else self._compile_ahead
            artifact = make(task.dispatch, module, [candidate, *ahead[: _AHEAD * self.jobs]])
        if artifact.vmfb is None:
            raise CandidateFailed(artifact.state, artifact.reason)
        return artifact

    def begin(self, wanted: Iterable[tuple[Task, Iterable[str]]]) -> None:
        """Begin to compile candidates, by their ids, in all members of their dispatches. They are needed in turn.

        Where the compiler runs on the device that is measured, each one waits until it is needed.
        """
        if self.compiler.target.shares_processor:
            return
        for task, names in wanted:
            for member in task.dispatch.members:
                self.comparers.start(member.module)
                for name in names:
                    self._start(task.dispatch, member.module, task.candidate(name))

    def prepare(self, task: Task, candidate: Candidate) -> None:
        """Compile the candidate and its default in every dispatch of the group, to be measured elsewhere.

        Raises:
            CandidateFailed: one cannot be compiled, or its config is not applied.
        """
        for config in (task.default, candidate):
            for member in range(len(task.dispatch.members)):
                self.artifact(task, config, member)

    def _compile_batch(self, dispatch: Dispatch, module: BenchmarkModule, batch: Sequence[Candidate]) -> Artifact:
        """Compile all of ``batch`` while nothing is measured; return the artifact of the first candidate."""
        with self.processor():
            # Another process may have compiled them while this one waited for the device.
            for candidate in batch:
                self._start(dispatch, module, candidate)
            # Wait for all of them, before an error of the first one can end the lease.
            wait(self._running.values())
            artifact = self._wait_for(dispatch, module, batch[0])
        self._forget_finished()
        return artifact

    def _compile_ahead(self, dispatch: Dispatch, module: BenchmarkModule, batch: Sequence[Candidate]) -> Artifact:
        """Return the artifact of the first candidate; start a few of the others in the background."""
        first, *rest = batch
        self._forget_finished()
        self._start(dispatch, module, first)
        started = 0
        for candidate in rest:
            # Configuring takes this thread's time, and the device must not wait for candidates that are not needed yet.
            enough = started >= _QUEUED and self.known(module, first) is not None
            if enough or len(self._running) >= _QUEUED * self.jobs:
                break
            started += self._start(dispatch, module, candidate)
        return self._wait_for(dispatch, module, first)

    def _wait_for(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> Artifact:
        """The candidate's artifact, from the process that compiles it. If that process is gone, this one takes over."""
        key = self.key(module, candidate)
        while (artifact := self.known(module, candidate)) is None:
            if future := self._running.pop(key, None):
                return future.result()
            if not self._start(dispatch, module, candidate):
                time.sleep(_POLL_S)
        return artifact

    def _start(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> bool:
        """Start to compile the candidate, unless it is known or being compiled; return whether it was started."""
        key = self.key(module, candidate)
        if key in self._running or self.known(module, candidate):
            return False
        lock = self._cache.lock("artifacts", key)
        # On a file system without locks, every process compiles for itself.
        with suppress(OSError):
            if not lock.try_acquire():
                return False
        try:
            # Configured in the caller's thread: the bindings are not thread-safe.
            job = None if self.known(module, candidate) else self._job(key, dispatch, module, candidate)
            if job is None:
                lock.release()
                return False
            self._running[key] = future = self._pool.submit(job)
        except BaseException:
            lock.release()
            raise
        future.add_done_callback(lambda _: lock.release())
        return True

    def _job(
        self, key: str, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate
    ) -> Callable[[], Artifact] | None:
        """The job that compiles the configured module; ``None`` if configuring failed, which is then stored."""
        try:
            text = _configured(dispatch, module, candidate)
            if self._step is not None:
                text = self._step.applied_to(text, candidate.compilation_info)
        except CandidateFailed as failure:
            state = _FAILED_STATES.get(failure.state, "compile_failed")
            self._keep(key, Artifact(candidate=candidate.id, state=state, reason=failure.reason))
            return None

        def job() -> Artifact:
            out = self._cache.file("artifacts", key, BINARY)
            artifact, stopped = self._compile(candidate, text, module.flags, out)
            if not stopped:  # Otherwise it says nothing about the candidate, and another process may compile it.
                self._keep(key, artifact)
            return artifact

        return job

    def _forget_finished(self) -> None:
        """Drop the jobs that have ended. An error stays until its candidate is needed."""
        self._running = {
            key: future for key, future in self._running.items() if not future.done() or future.exception()
        }

    def processor(self) -> AbstractContextManager[object]:
        """Hold the device while the compiler runs, if both are the same processor."""
        waits = self.compiler.target.shares_processor and self._leases.has_devices
        return self._leases.acquire(self._report) if waits else nullcontext()

    def known(self, module: BenchmarkModule, candidate: Candidate) -> Artifact | None:
        """The candidate's artifact, if it was compiled before or failed in this run."""
        key = self.key(module, candidate)
        artifact = self._artifacts.get(key) or self._cache.get("artifacts", key, Artifact) or self._failed(key)
        if artifact is None:
            return None
        if artifact.vmfb is not None:
            path = self._cache.binary("artifacts", key, artifact.sha256 or "")
            if path is None:
                self._artifacts.pop(key, None)
                return None
            artifact = msgspec.structs.replace(artifact, vmfb=os.fspath(path))
        self._artifacts[key] = artifact
        return artifact

    def model(self, text: str, flags: Sequence[str] = (), *, holds_processor: bool = False) -> Path:
        """Compile a whole model from its executable sources, with the flags of its form.

        Args:
            text: the executable sources.
            flags: the flags of the form.
            holds_processor: whether the caller holds `processor`, so that several threads may compile at a time.

        Raises:
            CandidateFailed: the client's compile step fails.
        """
        key = content_key("model", ARTIFACT_VERSION, text, self._identity, *flags)
        digest = self._cache.get("models", key, str)
        if digest is not None and (known := self._cache.binary("models", key, digest)) is not None:
            return known
        out = self._cache.file("models", key, BINARY)
        if self._step is not None:
            text = self._step.applied_to(text)
        with nullcontext() if holds_processor else self.processor():
            self.compiler.for_models.with_flags(flags).compile_sources(text, out)
        self._before_loading(out)
        self._cache.put("models", key, file_digest(out))
        return out

    def _compile(self, candidate: Candidate, text: str, flags: Sequence[str], out: Path) -> tuple[Artifact, bool]:
        """Compile, and return the artifact and whether the compiler was stopped, as it is when this process closes."""
        began_s = time.monotonic()
        try:
            seconds = self.compiler.with_flags(flags).compile_sources(text, out)
        except CommandFailed as error:
            state: FailedBuild = "compile_timeout" if error.timed_out else "compile_failed"
            failed = Artifact(
                candidate=candidate.id,
                state=state,
                reason=first_error(error),
                compile_s=round(time.monotonic() - began_s, 3),
                stderr=error.stderr,
            )
            return failed, error.stopped
        self._before_loading(out)
        made = Artifact(
            candidate=candidate.id,
            state="compiled",
            vmfb=os.fspath(out),
            sha256=file_digest(out),
            compile_s=round(seconds, 3),
        )
        return made, False

    def key(self, module: BenchmarkModule, candidate: Candidate) -> str:
        """The key of the candidate's artifact in the cache."""
        parts = (module.text, candidate.compilation_info, *module.flags)
        if parts not in self._keys:
            self._keys[parts] = content_key("artifact", ARTIFACT_VERSION, SPEC_VERSION, *parts, self._identity)
        return self._keys[parts]

    def _keep(self, key: str, artifact: Artifact) -> None:
        self._artifacts[key] = artifact
        if artifact.vmfb is not None:  # The stored path is relative, since the cache may move.
            self._cache.put("artifacts", key, msgspec.structs.replace(artifact, vmfb=f"{key}{BINARY}"))
        elif lasts(State(artifact.state), artifact.reason):
            self._cache.put("artifacts", key, artifact)
        elif self._of_run is not None and self._of_run.directory.is_dir():
            # If the directory is gone, the run is over. If it cannot be written, others find out by themselves.
            with suppress(OSError):
                self._of_run.put("artifacts", key, artifact)

    def _failed(self, key: str) -> Artifact | None:
        """A failure in some process of this run, which a later run is to try again."""
        if self._of_run is None or not (self._of_run.directory / "artifacts").is_dir():
            return None
        return self._of_run.get("artifacts", key, Artifact)


def code_pairs(
    builder: Builder, task: Task, candidate: Candidate, artifact: Artifact | None = None
) -> tuple[CodePair, ...]:
    """The machine code of the default and of a candidate in the dispatches of a group; equal pairs count once.

    Args:
        builder: compiles them.
        task: the task.
        candidate: its candidate.
        artifact: a client's own artifact of the candidate, for the first dispatch of the group.

    Raises:
        CandidateFailed: one of them cannot be compiled.
        InputError: a binary cannot be read.
    """

    def code(config: Candidate, member: int, given: Artifact | None = None) -> str:
        return machine_code(Path((given or builder.artifact(task, config, member)).vmfb or ""))

    members = range(len(task.dispatch.members))
    pairs = (
        CodePair(code(task.default, member), code(candidate, member, None if member else artifact))
        for member in members
    )
    return tuple(sorted(set(pairs)))


def with_code(builder: Builder, task: AnyTask, final: FinalRecord) -> FinalRecord:
    """Return the final of a dispatch with the machine code of its winner, if there is one."""
    if final.winner is None or not isinstance(task, Task):
        return final
    return msgspec.structs.replace(final, code=recorded_code(builder, task, task.candidate(final.winner)))


def recorded_code(builder: Builder, task: Task, candidate: Candidate) -> RecordedCode | None:
    """The machine code of a winner, for its record; ``None`` if it cannot be told."""
    try:
        pairs = code_pairs(builder, task, candidate)
        cpu, features = builder.compiler.host_cpu
    except (CandidateFailed, CommandFailed, InputError) as error:
        _logger.info("the machine code of %s is not known: %s", task.name, error)
        return None
    if not all(pair.default and pair.tuned for pair in pairs):
        return None
    return RecordedCode(pairs=pairs, cpu=cpu, cpu_features=features)


def _step_back() -> None:
    """Lower the priority of this thread and of the compilers that it starts: kernel launches on a GPU come first."""
    if sys.platform == "linux":  # Elsewhere that would lower the priority of the whole process.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _configured(dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> str:
    """The module with the candidate's config applied. The default's config is the compiler's own choice."""
    if not candidate.compilation_info:
        return module.text
    try:
        configured = configure_with(module.text, single_entry_spec(dispatch.root, candidate.compilation_info))
    except ConfigureFailed as error:
        raise CandidateFailed(State.COMPILE_FAILED, str(error)) from error
    if missed := why_not_applied(configured, candidate.compilation_info):
        raise CandidateFailed(State.NOT_APPLIED, missed)
    return configured.text
