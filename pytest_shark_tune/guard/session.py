"""The guard session: a tuning session that also plans and evaluates the checks of spec entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import msgspec

from pytest_shark_tune.guard.checks import EntryEvaluator
from pytest_shark_tune.guard.plan import GuardPlan, found_dispatches, guard_key, make_guard_plan
from pytest_shark_tune.plan.make import plan_key
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session

__all__ = ["GuardSession"]


class GuardSession(Session):
    """A session that guards specs."""

    @cached_property
    def evaluator(self) -> EntryEvaluator:
        """The evaluator of this process's checks."""
        return EntryEvaluator(self)

    def guard_plan(self, given: Sequence[object], directory: Path, spec_path: Path) -> GuardPlan:
        """The plan for guarding a spec; one process makes it, the others read it from the cache.

        Args:
            given: the sources, as a marker has them. Custom tasks have no entry in any spec, and are left out.
            directory: relative paths start here.
            spec_path: the spec.

        Raises:
            InputError: a source cannot be read or compiled, or the spec cannot be read.
        """
        sources = self.planner.read(given, directory)
        device_name = self.settings.device_name
        count, rotate_bytes = processors(), self.settings.rotate_bytes
        key = plan_key(sources, self.compiler, processors=count, rotate_bytes=rotate_bytes)
        find = partial(
            found_dispatches, sources, self.compiler, processors=count, rotate_bytes=rotate_bytes, report=self.report
        )
        plan = self.planner.stored(key, find, sources)
        self.planner.add_models(plan.sources)
        make = partial(make_guard_plan, plan, key, spec_path, device_name=device_name)
        found = self.cache.get_or_make("plans", guard_key(key, spec_path, device_name), GuardPlan, make)
        return msgspec.structs.replace(found, plan=plan)
