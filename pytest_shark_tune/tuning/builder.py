"""Builds: compiled candidates, made several at a time and kept in the cache by what they are made of."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION, ConfigureFailed, configure_with, why_not_applied
from pytest_shark_tune.compiler.disturbance import with_disturbed_sums
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State, lasts
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.spec.build import SPEC_VERSION, single_entry_spec
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cache import BINARY, Cache, content_key, file_digest
from pytest_shark_tune.tuning.compile_step import CompileStep

__all__ = ["Builds"]

FailedBuild = Literal["compile_failed", "compile_timeout", "not_applied"]

_AHEAD = 8
"""How many candidates beyond the one that is needed may be compiled, for each compilation at a time."""
_QUEUED = 2
"""How many candidates wait for each compilation at a time, those that are being compiled among them."""
_POLL_S = 0.02
_NICENESS = 10


_logger = logging.getLogger(__name__)


class Builds:
    """Compiles for one process of a run, ``jobs`` candidates at a time; ``tell`` is told of a long wait.

    ``coming`` gives the candidates of a task that are likely to be needed next. With a ``step`` of a client's own all
    that is compiled goes through it.

    Processes share the work: what one is compiling carries a lock in the cache, the others compile what comes after
    it, and who needs it waits for that very one. Where the compiler runs on what is measured, it compiles a stretch of
    candidates while it holds the device. Elsewhere the pool goes on while the caller measures.

    What fails in one of them has failed for all that share ``of_run``, the cache that passes away with the run.

    Nobody waits for a device while holding such a lock, so waiting for a lock while holding a device always ends.
    """

    def __init__(
        self,
        compiler: Compiler,
        cache: Cache,
        leases: DeviceLeases,
        *,
        jobs: int,
        tell: Callable[[str], None],
        coming: Callable[[Task], Sequence[Candidate]] = lambda task: (),
        step: CompileStep | None = None,
        of_run: Cache | None = None,
    ) -> None:
        self.compiler = compiler
        self._cache = cache
        self._leases = leases
        self._jobs = jobs
        self._tell = tell
        self._coming = coming
        self._step = step
        self._of_run = of_run
        self._identity = (*compiler.identity, step.key) if step else compiler.identity
        self._artifacts: dict[str, Artifact] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._running: dict[str, Future[Artifact]] = {}
        behind = None if compiler.target.shares_processor else _step_back
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="iree-compile", initializer=behind)

    def close(self) -> None:
        """End every command that is running, and those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        process.stop_all()
        self._pool.shutdown()

    def artifact(self, task: Task, candidate: Candidate, member: int = 0) -> Artifact:
        """The compiled candidate; for the first member those that come next are compiled along with it.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied.
        """
        module = task.dispatch.members[member].module
        shares_processor = self.compiler.target.shares_processor
        artifact = self.known(module, candidate) if shares_processor else None
        if artifact is None:
            ahead = [each for each in self._coming(task) if each.id != candidate.id] if member == 0 else []
            make = self._compile_stretch if shares_processor else self._compile_ahead
            artifact = make(task.dispatch, module, [candidate, *ahead[: _AHEAD * self._jobs]])
        if artifact.vmfb is None:
            raise CandidateFailed(artifact.state, artifact.reason)
        return artifact

    def _compile_stretch(self, dispatch: Dispatch, module: BenchmarkModule, stretch: Sequence[Candidate]) -> Artifact:
        """Compile all of ``stretch``, several at a time, while nothing is measured; return the first one's artifact."""
        with self.processor():
            # Another process may have compiled them while this one waited for the device.
            for candidate in stretch:
                self._start(dispatch, module, candidate)
            # All of them, before an error of the first one can end the lease.
            wait(self._running.values())
            artifact = self._wait_for(dispatch, module, stretch[0])
        self._sweep()
        return artifact

    def _compile_ahead(self, dispatch: Dispatch, module: BenchmarkModule, stretch: Sequence[Candidate]) -> Artifact:
        """The first one's artifact; the rest of ``stretch`` is compiled in the background, a few at each call."""
        first, *rest = stretch
        self._sweep()
        self._start(dispatch, module, first)
        started = 0
        for candidate in rest:
            # The device must not wait for what is not needed yet; configuring takes this thread's time.
            enough = started >= _QUEUED and self.known(module, first) is not None
            if enough or len(self._running) >= _QUEUED * self._jobs:
                break
            started += self._start(dispatch, module, candidate)
        return self._wait_for(dispatch, module, first)

    def _wait_for(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> Artifact:
        """The candidate's artifact, whoever compiles it; where its compiler is gone this process takes over."""
        key = self.key(module, candidate)
        while (artifact := self.known(module, candidate)) is None:
            if future := self._running.pop(key, None):
                return future.result()
            if not self._start(dispatch, module, candidate):
                time.sleep(_POLL_S)
        return artifact

    def _start(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> bool:
        """Have the candidate compiled in the pool, unless it is known or some process is at it; tell whether it is."""
        key = self.key(module, candidate)
        if key in self._running or self.known(module, candidate):
            return False
        lock = self._cache.lock("artifacts", key)
        # A file system without locks raises: then every process compiles for itself.
        with suppress(OSError):
            if not lock.try_acquire():
                return False
        try:
            # Configured here, in the caller's thread: the bindings are not made for several.
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
        """What compiles the configured module; ``None`` where configuring failed, which is then known."""
        try:
            text = _configured(dispatch, module, candidate)
            if self._step is not None:
                text = self._step.applied_to(text, candidate.compilation_info)
        except CandidateFailed as failure:
            self._keep(key, Artifact(candidate=candidate.id, state=_state(failure), reason=failure.reason))
            return None

        def job() -> Artifact:
            artifact, stopped = self._compile(candidate, text, self._cache.file("artifacts", key, BINARY))
            if not stopped:  # Else it says nothing of the candidate: another process may go on with it.
                self._keep(key, artifact)
            return artifact

        return job

    def _sweep(self) -> None:
        """Forget what has ended; an error stays until somebody needs that candidate."""
        self._running = {
            key: future for key, future in self._running.items() if not future.done() or future.exception()
        }

    def processor(self) -> AbstractContextManager[object]:
        """Holds the device while the compiler runs, where both are the same processor."""
        waits = self.compiler.target.shares_processor and self._leases.has_devices
        return self._leases.acquire(self._tell) if waits else nullcontext()

    def known(self, module: BenchmarkModule, candidate: Candidate) -> Artifact | None:
        """The candidate's artifact, where it was compiled before, or failed in this run."""
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

    def model(self, text: str) -> Path:
        """Compile a whole model that is at executable-sources.

        Raises:
            CandidateFailed: the client's compile step fails.
        """
        key = content_key("model", ARTIFACT_VERSION, text, self._identity)
        digest = self._cache.get("models", key, str)
        if digest is not None and (known := self._cache.binary("models", key, digest)) is not None:
            return known
        out = self._cache.file("models", key, BINARY)
        if self._step is not None:
            text = self._step.applied_to(text)
        with self.processor():
            self.compiler.for_models.compile_sources(text, out)
        self._cache.put("models", key, file_digest(out))
        return out

    def disturbed_model(self, text: str, symbols: Collection[str]) -> Path | None:
        """Compile a whole model at executable-sources with the sums of some executables disturbed.

        ``None`` where that does not compile.
        """
        try:
            return self.model(with_disturbed_sums(text, symbols))
        except (CandidateFailed, CommandFailed) as error:
            _logger.info("the model with disturbed sums does not compile: %s", error)
            return None

    def _compile(self, candidate: Candidate, text: str, out: Path) -> tuple[Artifact, bool]:
        """The artifact, and whether compiling it was stopped, as where this process closes."""
        began_s = time.monotonic()
        try:
            seconds = self.compiler.compile_sources(text, out)
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
        parts = (module.text, candidate.compilation_info)
        if parts not in self._keys:
            self._keys[parts] = content_key("artifact", ARTIFACT_VERSION, SPEC_VERSION, *parts, self._identity)
        return self._keys[parts]

    def _keep(self, key: str, artifact: Artifact) -> None:
        self._artifacts[key] = artifact
        if artifact.vmfb is not None:  # Where the cache lies is no part of what is kept.
            self._cache.put("artifacts", key, msgspec.structs.replace(artifact, vmfb=f"{key}{BINARY}"))
        elif lasts(State(artifact.state), artifact.reason):
            self._cache.put("artifacts", key, artifact)
        elif self._of_run is not None and self._of_run.folder.is_dir():
            # Where that folder is gone, the run is over. Where it cannot be told, others find it out for themselves.
            with suppress(OSError):
                self._of_run.put("artifacts", key, artifact)

    def _failed(self, key: str) -> Artifact | None:
        """What failed in some process of this run, which a later run is to try again."""
        if self._of_run is None or not (self._of_run.folder / "artifacts").is_dir():
            return None
        return self._of_run.get("artifacts", key, Artifact)


def _step_back() -> None:
    """Let this thread, and the compilers that it starts, give way to whoever launches kernels on a GPU meanwhile."""
    if sys.platform == "linux":  # Elsewhere the whole process would step back.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _state(failure: CandidateFailed) -> FailedBuild:
    """The state of what came to nothing before it was compiled."""
    match failure.state:
        case State.NOT_APPLIED:
            return "not_applied"
        case State.COMPILE_TIMEOUT:
            return "compile_timeout"
        case _:
            return "compile_failed"


def _configured(dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> str:
    """The module with the candidate's config in force; the default's is the compiler's own choice."""
    if not candidate.compilation_info:
        return module.text
    try:
        configured = configure_with(module.text, single_entry_spec(dispatch.root, candidate.compilation_info))
    except ConfigureFailed as error:
        raise CandidateFailed(State.COMPILE_FAILED, str(error)) from error
    if missed := why_not_applied(configured, candidate.compilation_info):
        raise CandidateFailed(State.NOT_APPLIED, missed)
    return configured.text
