"""The planner: makes the plan of a test once for all processes of a run, and leaves out cold dispatches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.make import make_plan, plan_key
from pytest_shark_tune.plan.profile import Profile, drop_cold, worth_profiling
from pytest_shark_tune.plan.source import Source, read_sources
from pytest_shark_tune.plan.types import NOTHING_WANTED, POOL, Plan, Stage, Step, Wanted, WantedOfSuite, with_data_of
from pytest_shark_tune.spec.starter import Starter
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.model.form_plans import FormPlanner
from pytest_shark_tune.tuning.model.profile import PROFILE_VERSION, Profiler
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["Planner"]


class _SourceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of a source, or the problem that there was in making one."""

    profile: Profile | None = None
    problem: str = ""


class Planner:
    """Plans for one process of a run.

    Args:
        settings: the settings of the run.
        cache: holds the plans.
        run: the run directory, in which all processes of the run find the same profiles.
        builder: its compiler reads the sources.
        database: holds the profiles that earlier runs made.
        profiler: makes the others.
        forms: adds the forms of models to plans.
        report: gets a message about work that takes long.
    """

    def __init__(
        self,
        settings: RunSettings,
        cache: Cache,
        run: RunDirectory,
        builder: Builder,
        database: TuningDatabase,
        profiler: Profiler,
        forms: FormPlanner,
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._run = run
        self._compiler = builder.compiler
        self._database = database
        self._profiler = profiler
        self._forms = forms
        self._report = report
        self.starter = Starter(settings.starter)
        """The starter spec, whose configs are among the candidates."""
        self.models: list[Source] = []
        """The models that plans were made of so far."""

    def plan(
        self, given: Sequence[object], directory: Path, wanted: WantedOfSuite = NOTHING_WANTED
    ) -> tuple[str, Plan]:
        """The plan for the sources that a marker names; one process makes it, the others read it from the cache.

        Of a model the plan has the dispatches that make up the share of its time that is to be tuned.

        Args:
            given: the sources, as the marker has them.
            directory: relative paths start here.
            wanted: configs that are among the candidates, even if the space is too large to have all its configs there,
                and forms that are compared with those of the settings.

        Returns:
            The plan's key in the cache, and the plan.

        Raises:
            InputError: a source cannot be read or compiled.
        """
        kernels = [source for source in given if isinstance(source, CustomTask)]
        if again := [name for name, number in Counter(kernel.name for kernel in kernels).items() if number > 1]:
            raise InputError(f"{again[0]} is the name of two custom tasks")
        sources = self.read(given, directory)
        key, plan = self._plan(sources, kernels, ())
        configs = (*wanted.configs, *self.starter.wanted(plan.tasks))
        missing = tuple(config for config in configs if config.is_missing(plan))
        self.add_models(plan.sources)
        for source in plan.sources:
            if source.why_not_run:
                self._report(f"{source.name}: {source.why_not_run}")
        if missing:
            key, plan = self._plan(sources, kernels, missing)
        with_forms, joined = self._forms.add(key, plan, self._plan_of, self.profile, configs, wanted.forms)
        if with_forms != key:
            joined = self.stored(with_forms, lambda: joined, sources)
        return self.hot_plan(with_forms, joined)

    def read(self, given: Sequence[object], directory: Path) -> tuple[Source, ...]:
        """Read the sources that a marker names, but for custom tasks; sources of equal names get a number.

        Raises:
            InputError: a source cannot be read.
        """
        sources = [source for source in given if not isinstance(source, CustomTask)]
        return read_sources(sources, directory, self._settings.models)

    def profile(self, plan: Plan, source: Source) -> Profile:
        """The profile of a source of a plan, from the database or measured now.

        Raises:
            SharkTuneError: it cannot be measured.
        """

        def measure() -> Profile:
            self._report(Step(f"measuring where the time of {source.name} goes", Stage.EXTRACT))
            return self._profiler.profile(source, plan)

        return self._database.profile(plan, source, measure)

    def profile_benchmarks(self, plan: Plan, source: Source, why: str) -> Profile:
        """The profile of a source by the benchmarks of its dispatches. ``why`` is the reason for not running it."""
        self._report(f"measuring where the time of {source.name} goes")
        return self._profiler.counted(source, "", plan, model_us=None, why=why)

    def add_models(self, sources: Iterable[Source]) -> None:
        """Add the models among ``sources`` to those that plans were made of."""
        self.models += [source for source in sources if source.is_model]

    def store_derived(self, origin: str, plan: Plan) -> tuple[str, Plan]:
        """Store a plan that was made from the one of key ``origin``, and return it with its own key."""
        key = content_key("plan", origin, [task.dispatch.name for task in plan.tasks])
        return key, self.stored(key, lambda: plan, plan.sources)

    def stored(self, key: str, make: Callable[[], Plan], sources: Sequence[Source]) -> Plan:
        """The plan of that key, from the cache or made now, with the files of ``sources`` as this process has them."""
        return with_data_of(self._cache.get_or_make("plans", key, Plan, make), sources)

    def _plan_of(self, source: Source, wanted: Sequence[Wanted]) -> Plan:
        """The plan of a model in a form."""
        return self._plan([source], [], wanted)[1]

    def _plan(
        self, sources: Sequence[Source], kernels: Sequence[CustomTask], wanted: Sequence[Wanted]
    ) -> tuple[str, Plan]:
        numbers = {
            "processors": processors(),
            "count": POOL,
            "seed": self._settings.seed,
            "rotate_bytes": self._settings.rotate_bytes,
        }
        request = self._settings.request
        key = plan_key(sources, self._compiler, kernels=kernels, request=request, wanted=content_key(wanted), **numbers)

        def make() -> Plan:
            return make_plan(
                sources,
                self._compiler,
                kernels=kernels,
                request=request,
                wanted=wanted,
                extracted=self._forms.extracted(sources),
                report=self._report,
                **numbers,
            )

        return key, self.stored(key, make, sources)

    def hot_plan(self, key: str, plan: Plan) -> tuple[str, Plan]:
        """The plan of that key with only the hot dispatches of its models, as far as their profiles are known."""
        sources, share = worth_profiling(plan), self._settings.share
        if not sources or share >= 1 or self._settings.stops_after_compile:
            return key, plan
        found = {source.name: self._source_profile(plan, source) for source in sources}
        profiles = [source.profile for source in found.values() if source.profile]
        unprofiled = {name: source.problem for name, source in found.items() if source.problem}
        # The profiles are part of the key: a profile that is measured again may choose other dispatches.
        key = content_key("plan", PROFILE_VERSION, key, share, found)
        return key, self.stored(key, lambda: drop_cold(plan, profiles, share, unprofiled), plan.sources)

    def _source_profile(self, plan: Plan, source: Source) -> _SourceProfile:
        """The profile of a source, or the problem with it; the same in all processes of the run."""

        def make() -> _SourceProfile:
            try:
                return _SourceProfile(profile=self.profile(plan, source))
            except SharkTuneError as error:
                return _SourceProfile(problem=str(error))

        key = self._database.profile_key(plan, source)
        return self._run.cache.get_or_make("profiles", key, _SourceProfile, make)
