"""Builds: compiled candidates, made several at a time and kept in the cache by what they are made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.plan import Task
from pytest_shark_tune.stages.artifact import Artifact, ConfigureFailed, configure_with, why_not_applied
from pytest_shark_tune.stages.candidate import Candidate
from pytest_shark_tune.stages.dispatch import BenchmarkModule, Dispatch
from pytest_shark_tune.stages.record import State
from pytest_shark_tune.stages.spec import single_entry_spec
from pytest_shark_tune.tools import process
from pytest_shark_tune.tools.cache import Cache, content_key
from pytest_shark_tune.tools.compiler import Compiler, first_error
from pytest_shark_tune.tools.lease import DeviceLeases

__all__ = ["Builds"]

FailedBuild = Literal["compile_failed", "compile_timeout", "not_applied"]

_AHEAD = 8
"""How many candidates are compiled at a stretch, for each compilation at a time."""


class Builds:
    """Compiles for one process of a run, ``jobs`` candidates at a time; ``tell`` is told of a long wait."""

    def __init__(
        self, compiler: Compiler, cache: Cache, leases: DeviceLeases, *, jobs: int, tell: Callable[[str], None]
    ) -> None:
        self.compiler = compiler
        self._cache = cache
        self._leases = leases
        self._jobs = jobs
        self._tell = tell
        self._artifacts: dict[str, Artifact] = {}
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="iree-compile")

    def close(self) -> None:
        """End every command that is running, and those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        process.stop_all()
        self._pool.shutdown()

    def artifact(self, task: Task, candidate: Candidate, member: int = 0) -> Artifact:
        """The compiled candidate; for the first member those that follow it in the plan are compiled along with it.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied.
        """
        module = task.dispatch.members[member].module
        artifact = self.known(module, candidate)
        if artifact is None:
            everyone = (task.default, *task.candidates) if member == 0 else (candidate,)
            ahead = [each for each in everyone[everyone.index(candidate) :] if not self.known(module, each)]
            self._compile_all(task, module, ahead[: _AHEAD * self._jobs])
            artifact = self.known(module, candidate)
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

    def known(self, module: BenchmarkModule, candidate: Candidate) -> Artifact | None:
        """The candidate's artifact, where it was compiled before."""
        key = self._artifact_key(module, candidate)
        artifact = self._artifacts.get(key) or self._cache.get("artifacts", key, Artifact)
        if artifact is None or (artifact.vmfb and not Path(artifact.vmfb).exists()):
            return None
        self._artifacts[key] = artifact
        return artifact

    def model(self, text: str) -> Path:
        """Compile a whole model that is at executable-sources."""
        out = self._cache.file("models", content_key("model", text, self.compiler.identity), ".vmfb")
        if not out.exists():
            with self.processor():
                self.compiler.compile_sources(text, out)
        return out

    def _submit(self, dispatch: Dispatch, module: BenchmarkModule, candidate: Candidate) -> Future[Artifact]:
        """Configure the module here, where the bindings live, and have it compiled in the pool."""
        try:
            text = _configured(dispatch, module, candidate)
        except CandidateFailed as failure:
            failed: Future[Artifact] = Future()
            state: FailedBuild = "not_applied" if failure.state == State.NOT_APPLIED else "compile_failed"
            failed.set_result(Artifact(candidate=candidate.id, state=state, reason=failure.reason))
            return failed
        out = self._cache.file("artifacts", self._artifact_key(module, candidate), ".vmfb")
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

    def _keep(self, module: BenchmarkModule, candidate: Candidate, artifact: Artifact) -> None:
        key = self._artifact_key(module, candidate)
        self._artifacts[key] = artifact
        # A time-out, a crash, a lack of memory, a linker that fails: these tell of this machine and its load. What the
        # compiler itself says of a config stays true.
        said = "error:" in artifact.reason and "failed to link" not in artifact.reason
        if artifact.state in ("compiled", "not_applied") or said:
            self._cache.put("artifacts", key, artifact)


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
