"""What earlier runs found out, kept by content: what was measured on this very device is not measured again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pytest_shark_tune.plan import Plan, Task
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.stages.candidate import DEFAULT_ID, Candidate
from pytest_shark_tune.stages.record import FinalRecord, Record, SpecRecord, State
from pytest_shark_tune.tools import journal
from pytest_shark_tune.tools.cache import Cache, code_key, content_key
from pytest_shark_tune.tools.compiler import Compiler
from pytest_shark_tune.tools.machine import driver_version, processors
from pytest_shark_tune.tools.runtime import runtime_version

__all__ = ["Recall"]

_PASSING = (State.COMPILE_TIMEOUT, State.RUN_TIMEOUT)
"""What may have come of a busy machine rather than of the candidate."""


class _Kept(msgspec.Struct, frozen=True):
    """A record and the config that it is about: names and ids may differ from run to run."""

    config: str
    record: Record


class Recall:
    """Records, finals and checked specs of one compiler build, runtime, device model, driver and way of measuring.

    A fresh run, as ``settings`` say, recalls nothing, and keeps what it finds out in place of what was known.
    Only what our own stages found out is kept: what a client's stages do is not known here. Files are only ever added
    to, or replaced whole, so runs at the same time may share a cache.
    """

    def __init__(self, cache: Cache, compiler: Compiler, settings: RunSettings) -> None:
        self._cache = cache
        self._fresh = settings.fresh
        self._setting = content_key(
            "setting",
            code_key(),
            compiler.identity,
            runtime_version(),
            settings.device_name,
            processors(),
            driver_version(compiler.target.driver),
            settings.rotate_bytes,
        )

    def records(self, task: Task) -> list[Record]:
        """What is known of the default and the candidates of ``task``, each once."""
        if self._fresh:
            return []
        # A line takes the place of those before it.
        kept = {each.config: each.record for each in journal.read(self._journal(task), _Kept)}
        known = [
            msgspec.structs.replace(kept[key], id=candidate.id, dispatch=task.name)
            for candidate in (task.default, *task.candidates)
            if (key := _config_key(candidate)) in kept
        ]
        # Whose binary a duplicate shares comes before it.
        return sorted(known, key=lambda record: record.state is State.DUPLICATE)

    def keep(self, task: Task, record: Record) -> None:
        """Keep what was found out about a candidate, unless it tells of a busy machine, or of a default that fails."""
        if record.id == DEFAULT_ID and record.state is not State.MEASURED:
            return
        if record.state in _PASSING or (record.state is State.COMPILE_FAILED and "error:" not in record.reason):
            return
        kept = _Kept(_config_key(task.candidate(record.id)), record)
        journal.append(self._journal(task), kept)

    def final(self, task: Task, finalists: Iterable[str]) -> FinalRecord | None:
        """The final of just these finalists, if there was one."""
        return None if self._fresh else self._cache.get("finals", self._final_key(task, finalists), FinalRecord)

    def keep_final(self, task: Task, finalists: Iterable[str], final: FinalRecord) -> None:
        """Keep the final of these finalists."""
        self._cache.put("finals", self._final_key(task, finalists), final)

    def checked(self, plan: Plan, finals: Iterable[FinalRecord]) -> SpecRecord | None:
        """What came of the spec of these finals on the sources of ``plan``, if it was tried."""
        return None if self._fresh else self._cache.get("checks", self._check_key(plan, finals), SpecRecord)

    def keep_checked(self, plan: Plan, finals: Iterable[FinalRecord], record: SpecRecord) -> None:
        """Keep what came of that spec."""
        self._cache.put("checks", self._check_key(plan, finals), record)

    def _journal(self, task: Task) -> Path:
        return self._cache.file("records", content_key(self._setting, _texts(task)), ".jsonl")

    def _final_key(self, task: Task, finalists: Iterable[str]) -> str:
        configs = sorted((name, _config_key(task.candidate(name))) for name in finalists)
        return content_key(self._setting, task.name, task.weight, _texts(task), configs)

    def _check_key(self, plan: Plan, finals: Iterable[FinalRecord]) -> str:
        sources = [(source.name, source.text) for source in plan.sources]
        entries = sorted((each.dispatch, each.compilation_info) for each in finals)
        return content_key(self._setting, sources, [task.name for task in plan.tasks], entries)


def _config_key(candidate: Candidate) -> str:
    return content_key(candidate.compilation_info)


def _texts(task: Task) -> list[str]:
    return [member.module.text for member in task.dispatch.members]
