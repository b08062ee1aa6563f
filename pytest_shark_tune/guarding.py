"""Guard mode as a pytest plugin: registered once a marked test is collected that has something to guard."""

from __future__ import annotations

import os
import shlex
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from pytest_shark_tune.custom import CustomTask
from pytest_shark_tune.devices import FoundDevices, find_devices, jobs_of_worker
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError, UndecidedWarning
from pytest_shark_tune.fixtures import GUARD_KEY, SESSION_KEY
from pytest_shark_tune.guard_reporter import PROPERTY
from pytest_shark_tune.guard_text import GuardFinding
from pytest_shark_tune.guardplan import GuardEntry
from pytest_shark_tune.inputs import check_compiler, check_folder
from pytest_shark_tune.interrupts import Interrupts
from pytest_shark_tune.notes import teller
from pytest_shark_tune.options import GuardOptions, TuneOptions, given_options
from pytest_shark_tune.plan import Plan
from pytest_shark_tune.session import Session
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.snapshot import find_snapshots, snapshot_path
from pytest_shark_tune.stages.artifact import Artifact
from pytest_shark_tune.stages.guard import RUN_ALPHA, Outcome, Promise, Terms, Verdict, judge
from pytest_shark_tune.stages.measurement import Measurement
from pytest_shark_tune.tools import leftovers
from pytest_shark_tune.tools.cache import Cache
from pytest_shark_tune.tools.compiler import Compiler, compiler_version
from pytest_shark_tune.tools.runtime import device_slug
from pytest_shark_tune.trial import Guarded, Role, Trial, guard_trials

__all__ = ["GuardingPlugin"]

_NOTHING = Plan(sources=(), tasks=(), untunable=())
_VERDICT = pytest.StashKey[Verdict]()
_TERMINATED = 143
"""What a shell makes of a process that SIGTERM ended."""


class GuardingPlugin:
    """One test process's share of a guard run."""

    def __init__(self, config: pytest.Config, options: TuneOptions, guard: GuardOptions, session: Session) -> None:
        self._config = config
        self._options = options
        self._guard = guard
        self._session = session
        self._interrupts = Interrupts(terminate=not hasattr(config, "workerinput"))
        self._alpha = RUN_ALPHA
        config.stash[SESSION_KEY] = session
        config.stash[GUARD_KEY] = self
        self._interrupts.install()

    @classmethod
    def of(cls, config: pytest.Config) -> GuardingPlugin:
        """The plugin of this process, which starts with the first test that has something to guard.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        if GUARD_KEY in config.stash:
            return config.stash[GUARD_KEY]
        options, guard = TuneOptions.from_pytest_config(config), GuardOptions.from_pytest_config(config)
        compiler = Compiler(options.target, options.compile_flags, timeout_s=options.compile_timeout_s)
        check_compiler(options, compiler)
        check_folder("--tune-cache", options.cache)
        leftovers.sweep()
        session = Session(_settings(config, options, guard), compiler, Cache(options.cache), tell=teller(config))
        plugin = cls(config, options, guard, session)
        config.pluginmanager.register(plugin, "shark-tune-guard")
        return plugin

    # Collecting.

    def trials(self, marker: pytest.Mark, path: Path) -> list[Trial]:
        """The trials of a marked test in the file ``path``; none where there is no spec to guard."""
        suite = str(path.parent) if path.suffix == ".py" else ""
        sources = [each for each in marker.args if not isinstance(each, CustomTask)]
        found: list[Trial] = []
        try:
            for spec, slug in self._specs(path) if sources else ():
                guarded = self._session.guard_plan(sources, path.parent, spec)
                if not guarded.entries:
                    raise InputError(f"{spec} has no entry to guard; pytest --tune writes it anew, or remove it")
                found += guard_trials(guarded, suite, slug)
        except InputError as error:
            return [Trial(Role.INPUT, _NOTHING, problem=str(error))]
        return found

    def _specs(self, path: Path) -> Iterator[tuple[Path, str]]:
        """The specs to guard for the test in the file ``path``, each with what tells it apart in ids.

        This device's snapshot; where there is none those of all other devices, which can be looked at without it.
        """
        if self._guard.spec is not None:
            yield self._guard.spec, ""
            return
        target, devices = str(self._options.target), self._session.settings.devices
        own = snapshot_path(path.parent, target, device_slug(devices[0])) if devices else None
        if own is not None and own.exists():
            yield own, ""
            return
        others = find_snapshots(path.parent, target)
        prefix = snapshot_path(path.parent, target, "").stem
        for other in others:
            yield other, other.stem.removeprefix(prefix) if len(others) > 1 else ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Leave each entry to the tests that it is for, and share out the false alarms, before anybody deselects."""
        ours = {item: guarded for item in items if (guarded := _guarded_of(item)) is not None}
        dropped = _strangers(session, ours, keeps_orphans=self._guard.spec is not None)
        items[:] = [item for item in items if item not in dropped]
        measured = [each for item, each in ours.items() if item not in dropped and each.promise is Promise.FAST]
        self._alpha = RUN_ALPHA / max(1, len(measured))

    # Running.

    def artifact(self, trial: Trial) -> Artifact | None:
        """The entry's config compiled; ``None`` where an earlier promise is broken, which is then told of instead.

        Raises:
            CandidateFailed: it cannot be compiled, and nothing has told so yet.
        """
        assert trial.guarded is not None
        try:
            return self._session.artifact(trial.known_task, trial.candidate)  # type: ignore[arg-type]
        except CandidateFailed:
            earlier = self._look(trial.guarded.plan, trial.guarded.entry, Promise.APPLIES)
            if earlier.outcome is Outcome.KEPT:
                raise
            return None
