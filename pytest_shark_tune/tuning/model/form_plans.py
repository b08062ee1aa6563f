"""Adds the forms of models to a plan: those that are worth it, with their dispatches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeAlias

from msgspec.structs import replace

from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form, with_incumbents
from pytest_shark_tune.plan.extract import Extracted, extract_dispatches
from pytest_shark_tune.plan.forms import form_source, has_forms, joined_plan, part_of
from pytest_shark_tune.plan.make import found_dispatches
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import FormResult, Plan, Wanted
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.model.form_choice import between_us, choose_forms, contenders, estimated_us
from pytest_shark_tune.tuning.model.form_results import FormDatabase
from pytest_shark_tune.tuning.model.forms import FormRace
from pytest_shark_tune.tuning.model.profile import Profiler
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["FormPlanner"]

_PlanOf: TypeAlias = Callable[[Source, Sequence[Wanted]], Plan]
_ProfileOf: TypeAlias = Callable[[Plan, Source], Profile]


class FormPlanner:
    """Forms for the plans of one process of a run.

    Args:
        settings: the settings of the run.
        of_run: the cache that ends with the run, in which all its processes find the same results.
        race: compares the forms of models.
        database: holds the results of earlier runs.
        profiler: knows the limits of the device.
    """

    def __init__(
        self,
        settings: RunSettings,
        of_run: Cache,
        race: FormRace,
        database: FormDatabase,
        profiler: Profiler,
    ) -> None:
        self._settings = settings
        self._of_run = of_run
        self._race = race
        self._database = database
        self._profiler = profiler
        self._extracted: dict[str, Extracted] = {}

    def extracted(self, sources: Sequence[Source]) -> Extracted | None:
        """The dispatches of a single source, if they were extracted before."""
        return self._extracted.get(content_key(sources[0].content)) if len(sources) == 1 else None

    def add(
        self,
        key: str,
        plan: Plan,
        plan_of: _PlanOf,
        profile_of: _ProfileOf,
        wanted: Sequence[Wanted],
        incumbents: Mapping[str, Sequence[Form]],
    ) -> tuple[str, Plan]:
        """Add the dispatches of the forms that are worth tuning, for each model of a plan that has forms.

        Args:
            key: The key of the plan.
            plan: The plan with all models in their default form.
            plan_of: Makes the plan of a source.
            profile_of: Makes the profile of a source of a plan.
            wanted: Configs that are to be among the candidates.
            incumbents: Forms that are compared as well, by the name of the model: those that an earlier run chose.

        Returns:
            The key and the plan; the given ones if no model has forms.
        """
        settings = self._settings
        if not settings.forms or not settings.devices or settings.stops_after_compile:
            return key, plan
        results: list[FormResult] = []
        parts: list[Plan] = []
        for source in plan.sources:
            if not has_forms(source, plan):
                parts.append(part_of(plan, [source.name]))
                continue
            choice = self._choose(plan, source, profile_of, incumbents.get(source.name, ()))
            results += choice
            for form in (result.form for result in choice if result.is_tuned):
                alone = part_of(plan, [source.name]) if form.is_default else plan_of(_formed(source, form), wanted)
                parts.append(alone)
        if not results:
            return key, plan
        return content_key("plan", "forms", key, results), replace(joined_plan(plan, parts), forms=tuple(results))

    def _choose(
        self, plan: Plan, source: Source, profile_of: _ProfileOf, incumbents: Sequence[Form]
    ) -> tuple[FormResult, ...]:
        """The results of a model's forms, the same in all processes of the run."""
        forms = with_incumbents(self._settings.forms, incumbents)
        key = self._database.key(plan, source, forms)

        def compare() -> tuple[FormResult, ...]:
            budget = self._settings.budget
            results = self._race.run(plan, source, forms, lambda: budget.for_forms_s < 0)
            is_short = budget.for_forms_s < 0
            estimates = self._estimates(plan, source, contenders(results, is_short=is_short), profile_of)
            return choose_forms(results, estimates, is_short=is_short)

        def make() -> tuple[FormResult, ...]:
            try:
                return self._database.compared(key, compare)
            except SharkTuneError as error:
                self._race.report(f"{source.name}: its forms are not compared: {error}")
                return (FormResult(model=source.name, form=DEFAULT_FORM, state=State.MEASURED, is_tuned=True),)

        return self._of_run.get_or_make("forms", key, tuple[FormResult, ...], make)

    def _estimates(
        self, plan: Plan, source: Source, results: Iterable[FormResult], profile_of: _ProfileOf
    ) -> dict[str, float]:
        """The estimated time of forms once they are tuned, as far as they can be profiled, by name."""
        profiled: list[tuple[FormResult, Plan, Profile]] = []
        results = list(results)
        limits = None
        usual_us = [result.measurement.baseline_median_us for result in results if result.measurement]
        for result in results:
            try:
                planned = self._defaults_of(plan, source, result.form)
                profile = profile_of(planned, planned.source(result.source))
                limits = self._profiler.limits()
            except SharkTuneError as error:
                self._race.report(f"{result.source}: it is not profiled: {error}")
                continue
            profiled.append((result, planned, profile))
        if limits is None:
            return {}
        between = between_us([profile for *_, profile in profiled])
        found = {}
        for result, planned, profile in profiled:
            ratio = result.measurement.ratio if result.measurement else 1.0
            raced_us = median(usual_us) / ratio if usual_us else None
            found[result.form.name] = estimated_us(planned, profile, limits, raced_us, between=between)
        return found

    def _defaults_of(self, plan: Plan, source: Source, form: Form) -> Plan:
        """The plan of a model in a form, without candidates."""
        if form.is_default:
            return part_of(plan, [source.name])
        formed, builder = _formed(source, form), self._race.builder
        extracted = extract_dispatches([formed], builder.compiler, builder.jobs, self._race.report)
        self._extracted[content_key(formed.content)] = extracted
        return found_dispatches([formed], builder.compiler, processors=builder.jobs, extracted=extracted)


def _formed(source: Source, form: Form) -> Source:
    """The source of a model in a form that changes it, before its functions are read."""
    formed = form_source(replace(source, functions={}, called={}), form)
    assert formed is not None, "a form that changes nothing is no contender"
    return formed
