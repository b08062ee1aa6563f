"""The guard session: a tuning session that also plans and evaluates the checks of spec entries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.versions import OtherCompiler
from pytest_shark_tune.errors import InputError, UntestedReleaseWarning
from pytest_shark_tune.guard.against import Rivals
from pytest_shark_tune.guard.baseline import Baselines, baseline_plan
from pytest_shark_tune.guard.checks import EntryEvaluator
from pytest_shark_tune.guard.forms import formed_sources
from pytest_shark_tune.guard.identity import IdentityCheck
from pytest_shark_tune.guard.plan import GuardedForm, GuardPlan, guard_key, make_guard_plan
from pytest_shark_tune.guard.rivals import rival_plan, with_spec
from pytest_shark_tune.plan.make import found_dispatches, plan_key
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session

__all__ = ["GuardSession"]


class GuardSession(Session):
    """A session that guards specs."""

    @cached_property
    def evaluator(self) -> EntryEvaluator:
        """The evaluator of this process's checks."""
        return EntryEvaluator(
            self, self._defaults, IdentityCheck(self, self._replan), Baselines(self, self._rivals).verdict
        )

    @cached_property
    def _rivals(self) -> Rivals:
        """The other compilers of the run."""
        return Rivals()

    @cached_property
    def _defaults(self) -> dict[str, Source]:
        """The models with forms, as they are, by name."""
        return {}

    def guard_plan(self, given: Sequence[object], directory: Path, spec_path: Path) -> GuardPlan:
        """The plan for guarding a spec; one process makes it, the others read it from the cache.

        Args:
            given: the sources, as a marker has them. Custom tasks have no entry in any spec, and are left out.
            directory: relative paths start here.
            spec_path: the spec.

        Raises:
            InputError: a source cannot be read or compiled, or the spec cannot be read.
        """
        read = self.planner.read(given, directory)
        sources, forms = formed_sources(read, spec_path, self.compiler, self._defaults)
        return self._plan_of(sources, forms, spec_path)

    def rival_plan(self, given: Sequence[object], directory: Path, release: str, releases: Path) -> GuardPlan:
        """The plan for comparing this compiler with another one on the dispatches and models of some sources.

        Args:
            given: the sources, as a marker has them.
            directory: relative paths start here.
            release: the other compiler, as the user gave it.
            releases: the directory for releases that pip installs.

        Raises:
            InputError: there is no such release, or a source cannot be read or compiled.
        """
        compiler = self._rivals.add(self, release, releases).compiler
        return self.plan_against(compiler, self.planner.read(given, directory))

    def plan_against(self, compiler: OtherCompiler, sources: Sequence[Source]) -> GuardPlan:
        """The plan for comparing the compiler of this session with another one on some sources.

        If the dispatches of the other one cannot be read, models are compared alone, with a warning.

        Raises:
            InputError: a source cannot be compiled.
        """
        plan = self.dispatches_of(sources)
        try:
            rival = self.with_compiler(compiler).dispatches_of(sources)
        except InputError as error:
            name = compiler.installation.name
            message = f"{name}: its dispatches cannot be read here, so only whole models are compared: {error}"
            warnings.warn(UntestedReleaseWarning(message), stacklevel=2)
            rival = None
        return rival_plan(compiler, plan, rival)

    def spec_against(
        self, pairs: GuardPlan, given: Sequence[object], directory: Path, spec_path: Path
    ) -> GuardPlan | None:
        """The plan for the same comparison with a spec; ``None`` if the spec is for no dispatch that both have.

        Args:
            pairs: the plan without the spec.
            given: the sources, as a marker has them.
            directory: relative paths start here.
            spec_path: the spec.

        Raises:
            InputError: the spec cannot be read.
        """
        return with_spec(pairs, self.guard_plan(given, directory, spec_path))

    def baseline_plan(
        self, given: Sequence[object], directory: Path, path: Path | None, golden: Path | None = None
    ) -> GuardPlan:
        """The plan for comparing dispatches and models with recorded times, or models with golden times.

        Args:
            given: the sources, as a marker has them.
            directory: relative paths start here.
            path: the file of the baseline, if there is one to compare with; it need not exist.
            golden: the file with golden times of the only model, if any.

        Raises:
            InputError: a source, the baseline or the golden times cannot be read.
        """
        target, device = str(self.compiler.target), self.settings.device_name
        plan = self.plan_of(given, directory)
        # Without a device there is no profile, and nothing is timed.
        with_times = path is not None and bool(self.settings.devices)
        hot = self.planner.hot_plan(self._plan_key(plan.sources), plan)[1] if with_times else plan
        return baseline_plan(plan, hot, target, device, path, golden, updates=self.settings.updates_baseline)

    def plan_of(self, given: Sequence[object], directory: Path) -> Plan:
        """The dispatches of some sources, without candidates.

        Raises:
            InputError: a source cannot be read or compiled.
        """
        plan = self.dispatches_of(self.planner.read(given, directory))
        self.planner.add_models(plan.sources)
        return plan

    def dispatches_of(self, sources: Sequence[Source]) -> Plan:
        """The dispatches of sources without candidates; one process finds them, the others read them from the cache."""
        find = partial(
            found_dispatches,
            sources,
            self.compiler,
            processors=processors(),
            rotate_bytes=self.settings.rotate_bytes,
            report=self.report,
        )
        return self.planner.stored(self._plan_key(sources), find, sources)

    def _plan_key(self, sources: Sequence[Source]) -> str:
        rotate_bytes = self.settings.rotate_bytes
        return plan_key(sources, self.compiler, processors=processors(), rotate_bytes=rotate_bytes)

    def _replan(self, guarded: GuardPlan, compiler: Compiler) -> tuple[Session, GuardPlan]:
        """Plan the same sources and spec with another compiler, in the session that has it.

        Raises:
            InputError: the compiler refuses a source.
        """
        session = self.with_compiler(compiler)
        return session, session._plan_of(guarded.plan.sources, {}, Path(guarded.spec_path))

    def _plan_of(self, sources: Sequence[Source], forms: Mapping[str, GuardedForm], spec_path: Path) -> GuardPlan:
        device_name = self.settings.device_name
        key = self._plan_key(sources)
        plan = self.dispatches_of(sources)
        self.planner.add_models(plan.sources)
        make = partial(make_guard_plan, plan, key, spec_path, device_name=device_name, forms=forms)
        found = self.cache.get_or_make("plans", guard_key(key, spec_path, device_name, forms), GuardPlan, make)
        return msgspec.structs.replace(found, plan=plan)
