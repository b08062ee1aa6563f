"""The verifier: tries a merged spec on the sources that it was made from, before the spec is written.

First it checks that every entry applies to its own ops and to no others, and that whole models compile and compute
their default results. Then it measures each model end to end: an entry that won alone may lose in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from pytest_shark_tune.device.profiler import NoProfile
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Stage, Step
from pytest_shark_tune.records.draft import Draft, is_of_starter, spec_of
from pytest_shark_tune.records.types import NO_ENTRY, FinalRecord, SourceCheck, SpecRecord
from pytest_shark_tune.spec.apply import Application, SpecNotApplicable, apply_spec
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.model.form_final import FormFinals, in_chosen_forms, losing_entries
from pytest_shark_tune.tuning.model.runner import ModelRunner
from pytest_shark_tune.tuning.model.tuned import TunedModel, failing_entries
from pytest_shark_tune.tuning.run_directory import RunDirectory

if TYPE_CHECKING:
    from pytest_shark_tune.tuning.database import TuningDatabase

__all__ = ["VERIFY_VERSION", "RunVerifier", "Verifier"]

VERIFY_VERSION: Final = 1
"""How a spec is checked in whole sources.

Raise it if the same spec may lose other entries: it is then tried anew.
"""

_NO_INPUTS = "no function in it whose inputs can be made up, so it was not run"


class Verifier:
    """Tries specs in whole sources for one process of a run.

    Args:
        builder: compiles the sources.
        models: runs models; without it there is no device, and nothing is run.
        report: gets a message about work that takes long.
        asks_driver: whether to ask the driver how long dispatches take in a running model. That says more about a
            dispatch than the time of the whole does.
    """

    def __init__(
        self,
        builder: Builder,
        models: ModelRunner | None,
        *,
        report: Callable[[str], None],
        asks_driver: bool = True,
    ) -> None:
        self._builder = builder
        self._models = models
        self._report = report
        self._asks_driver = asks_driver
        self._applications: dict[str, tuple[str, Application]] = {}

    def check(self, plan: Plan, draft: Draft) -> SpecRecord:
        """Check the spec of a draft on the sources of ``plan``.

        Every entry has to apply to exactly its ops, results have to be the default's, and single ops must not become
        slower. Entries that fail, those of the starter included, are dropped, and the rest is checked again.

        Returns:
            The checks of the entries that are left, and the reasons for dropping the others.
        """
        dropped: dict[str, str] = {}
        has_winners = bool(draft.entries)
        while draft.entries or (draft.starter and not has_winners):
            checks: list[SourceCheck] = []
            for source in plan.sources:
                check, bad = self._check(plan, source, draft)
                if bad:
                    dropped |= bad
                    draft = draft.without(bad)
                    break
                checks.append(check)
            else:
                return _record(draft, tuple(checks), dropped)
        return SpecRecord(sources=(), dropped=dropped)

    def measure(self, plan: Plan, source: Source, draft: Draft) -> SpecRecord:
        """Measure a model with and without the spec of a draft; drop entries until all that are left pay.

        Raises:
            CandidateFailed: it cannot be run.
        """
        dropped: dict[str, str] = {}
        while draft.entries:
            check, bad = SourceCheck(source=source.name, applied=0), self._refused(plan, source, draft)
            models = self.models(plan, source, draft) if not bad else []
            if not models and not bad:
                break
            if models:
                check = _with_note(_applied_check(models[0]), _untouched(models))
                bad = _misapplied(plan, models[0])
            for model in _touched(models) if not bad else ():
                check, bad = self._measure(model, check)
                if bad:
                    break
            if not bad:
                return _record(draft, (check,), dropped, model=source.name)
            dropped |= bad
            draft = draft.without(bad)
        note = "no entry of the spec pays in the whole of it" if dropped else NO_ENTRY
        return _record(draft, (SourceCheck(source=source.name, applied=0, note=note),), dropped, model=source.name)

    def models(self, plan: Plan, source: Source, draft: Draft) -> list[TunedModel]:
        """The source with the spec of a draft applied, once for each function to run, and at least once.

        A function owns only the entries of the dispatches that it calls, since it shows nothing of the others. If no
        entry applies to the source there is no model.
        """
        if not _may_apply(plan, source, draft):
            return []
        application = self._application(source, draft)
        everything = _owned(plan, source, draft.configs) | _of_starter(application, draft)
        if not everything:
            return []
        changed = [symbol for symbols in everything.values() for symbol in symbols]

        def model(function: str) -> TunedModel:
            called = source.called.get(function)
            return TunedModel(
                source=source,
                function=function,
                tolerance=model_tolerance(source, function, plan.tasks, changed),
                application=application,
                everything=everything,
                owned={
                    name: symbols
                    for name, symbols in everything.items()
                    if called is None or not set(symbols).isdisjoint(called)
                },
                draft=draft,
                builder=self._builder,
                models=self._models,
                report=self._report,
            )

        return [model(function) for function in source.run_whole or ("",)]

    def _check(self, plan: Plan, source: Source, draft: Draft) -> tuple[SourceCheck, dict[str, str]]:
        """Check one source; return the check, and the reasons against entries by name."""
        nothing = SourceCheck(source=source.name, applied=0, note=NO_ENTRY)
        if bad := self._refused(plan, source, draft):
            return nothing, bad
        models = self.models(plan, source, draft)
        if not models:
            return nothing, {}
        first = models[0]
        check = _applied_check(first)
        if bad := _misapplied(plan, first):
            return check, bad
        if source.run_whole and self._models is None:
            return _with_note(check, "not run as a whole, as there is no device here"), {}
        check = _with_note(check, _untouched(models))
        for model in _touched(models):
            note, bad = model.wrong()
            check = _with_note(check, note)
            if bad:
                return check, bad
            if source.is_op and not note:
                whole = model.compare_whole()
                check = _with_metrics(check, whole)
                if whole.ratio_high < 1:
                    return check, dict.fromkeys(model.owned, model.no_faster(whole))
        if not source.run_whole and not source.is_benchmark:
            check = _with_note(check, source.why_not_run or _NO_INPUTS)
        return check, {}

    def _refused(self, plan: Plan, source: Source, draft: Draft) -> dict[str, str]:
        """The entries with which the compiler fails on a source, and the reasons by name."""
        if not _may_apply(plan, source, draft) or not (problem := self._problem(source, draft)):
            return {}
        names = failing_entries(draft.names, lambda part: bool(self._problem(source, draft.only(part))))
        return dict.fromkeys(names, f"iree-compile fails on {source.name} with it: {problem}")

    def _problem(self, source: Source, draft: Draft) -> str:
        """Why the compiler fails on a source with a draft's spec, given by its own flag or ours; empty if it works."""
        try:
            return self._application(source, draft).flag_error
        except SpecNotApplicable as error:
            return str(error)

    def _measure(self, model: TunedModel, check: SourceCheck) -> tuple[SourceCheck, dict[str, str]]:
        """Measure one function of a model end to end; the metrics of the function that gains least stay."""
        text = f"measuring the whole of {model.source.name} with {len(model.owned)} entries and without"
        self._report(Step(text, Stage.MODELS))
        whole = model.compare_whole()
        try:
            ratios = model.ratios() if self._asks_driver else None
        except NoProfile:
            ratios = None
        check = _with_metrics(check, whole)
        if ratios:
            rounded = {name: round(ratio, 4) for name, ratio in ratios.items()}
            check = msgspec.structs.replace(check, in_model=check.in_model | rounded)
        return check, model.what_does_not_pay(whole, ratios)

    def _application(self, source: Source, draft: Draft) -> Application:
        """Apply the spec of a draft; the last application to each source is remembered.

        Raises:
            SpecNotApplicable: the compiler refuses the spec or one of its configs.
        """
        known = self._applications.get(source.name)
        if known is None or known[0] != draft.text:
            text = f"applying the spec's {len(draft.by_matcher)} entries to {source.name}"
            self._report(Step(text, Stage.MODELS))
            application = apply_spec(source, draft.text, self._builder.compiler)
            known = self._applications[source.name] = draft.text, application
        return known[1]


@dataclass(frozen=True)
class RunVerifier:
    """Verifies the spec of the winners so far."""

    verifier: Verifier
    """Tries a spec that the database does not know."""
    run: RunDirectory
    """Has the finals so far, and the checks that any process of the run made."""
    database: TuningDatabase
    """Has the checks that earlier runs made."""
    forms: FormFinals
    """Chooses the forms of models."""
    starter: str
    """The text of the starter spec; empty without one."""

    def verify(self, plan: Plan) -> SpecRecord:
        """Try the spec of the winners so far, and the starter, on the sources of ``plan``."""
        draft = self._draft()
        # Without a winner nothing is written.
        return self.verify_draft(plan, draft) if draft.entries else SpecRecord(sources=(), dropped={})

    def verify_draft(self, plan: Plan, draft: Draft) -> SpecRecord:
        """Try the spec of a draft on the sources of ``plan``, of models with forms in the chosen form only."""
        chosen = self.forms.chosen(plan)
        lost = losing_entries(plan, chosen, draft.names)
        plan, draft = in_chosen_forms(plan, chosen), draft.without(lost)
        check = partial(self.database.check, plan, draft, partial(self.verifier.check, plan, draft))
        # The tests that measure the models ask again.
        found = self.run.cache.get_or_make("checks", self.database.check_key(plan, draft), SpecRecord, check)
        return msgspec.structs.replace(found, dropped=lost | found.dropped)

    def end_to_end(self, plan: Plan, name: str) -> SpecRecord:
        """Measure the model ``name`` of ``plan`` with the entries of the spec that hold; drop those that do not pay.

        Raises:
            CandidateFailed: the model cannot be run.
        """
        verified = self.verify(plan)
        bad = verified.dropped
        if name not in {source.name for source in in_chosen_forms(plan, self.forms.chosen(plan)).sources}:
            note = "another form of the model is faster, so that it was not measured with the spec"
            check = SourceCheck(source=name, applied=0, note=note)
            return SpecRecord(sources=(check,), dropped=bad, model=name)
        if self.forms.budget.left_s <= 0:
            known = next((check for check in verified.sources if check.source == name), None)
            note = "not measured as a whole: the time was spent (--tune-time)"
            check = _with_note(known or SourceCheck(source=name, applied=0), note)
            return SpecRecord(sources=(check,), dropped=bad, model=name)
        draft = self._draft().without(bad)
        measure = partial(self.verifier.measure, plan, plan.source(name), draft)
        measured = self.database.check(plan, draft, measure, model=name)
        return msgspec.structs.replace(measured, dropped=bad | measured.dropped)

    def _draft(self) -> Draft:
        return spec_of(journal.read(self.run.finals, FinalRecord), self.starter)


def _record(draft: Draft, checks: tuple[SourceCheck, ...], dropped: dict[str, str], *, model: str = "") -> SpecRecord:
    """The record of a draft, which has the entries that were left in the end."""
    return SpecRecord(sources=checks, dropped=dropped, model=model, entries=draft.configs, starter=draft.starter_key)


def _may_apply(plan: Plan, source: Source, draft: Draft) -> bool:
    """Whether an entry may apply to a source. Of a starter's entries that is not known."""
    return bool(draft.starter or _owned(plan, source, draft.configs))


def _owned(plan: Plan, source: Source, names: Collection[str]) -> dict[str, list[str]]:
    """The executables of a source by the entry that is for them, among entries of these names."""
    owned = {
        task.name: [member.symbol for member in task.dispatch.members if member.source == source.name]
        for task in plan.tasks
        if task.name in names
    }
    return {name: symbols for name, symbols in owned.items() if symbols}


def _of_starter(application: Application, draft: Draft) -> dict[str, list[str]]:
    """The executables that entries of the starter apply to, by the entry's name."""
    found: dict[str, list[str]] = {}
    for placement in application.placements:
        name = draft.by_matcher[placement.entry]
        if is_of_starter(name) and placement.symbol not in found.setdefault(name, []):
            found[name].append(placement.symbol)
    return found


def _touched(models: Sequence[TunedModel]) -> list[TunedModel]:
    """The models that an entry can make faster, or wrong."""
    return [model for model in models if model.function and model.owned]


def _untouched(models: Sequence[TunedModel]) -> str:
    """A note on the functions that no entry changes; empty without any."""
    names = ", ".join(repr(model.function) for model in models if model.function and not model.owned)
    return f"no entry is for a dispatch of {names}, so that was not run" if names else ""


def _applied_check(model: TunedModel) -> SourceCheck:
    """The number of ops that the spec applies to, with a note on entries that only shark-tune compile applies."""
    placements = model.application.placements
    missed = sorted({placement.entry for placement in placements if not placement.by_flag})
    note = f"only shark-tune compile applies {', '.join(missed)}" if missed else ""
    return SourceCheck(source=model.source.name, applied=len(placements), note=note, late=tuple(missed))


def _with_note(check: SourceCheck, note: str) -> SourceCheck:
    return msgspec.structs.replace(check, note="; ".join(filter(None, [note, check.note])))


def _with_metrics(check: SourceCheck, whole: Measurement) -> SourceCheck:
    """The check with the metrics of a function, unless it has those of one that gained less."""
    if check.ratio is not None and check.ratio <= whole.ratio:
        return check
    return msgspec.structs.replace(
        check,
        ratio=whole.ratio,
        ratio_low=whole.ratio_low,
        ratio_high=whole.ratio_high,
        default_us=round(whole.baseline_median_us, 3),
        tuned_us=round(whole.baseline_median_us / whole.ratio, 3),
    )


def _misapplied(plan: Plan, model: TunedModel) -> dict[str, str]:
    """The reasons against entries that were not applied to exactly their ops in a source."""
    source, draft, infos = model.source, model.draft, model.draft.configs
    applied = {
        (placement.symbol, placement.compilation_info)
        for placement in model.application.placements
        if not is_of_starter(draft.by_matcher[placement.entry])
    }
    bad = {}
    for task in plan.tasks:
        name = task.name
        if name not in infos:
            continue
        wanted = {member.symbol for member in task.dispatch.members if member.source == source.name}
        got = {symbol for symbol, info in applied if info == infos[name]}
        # Dispatches with an equal winner have the same config.
        alike = [other.dispatch for other in plan.tasks if infos.get(other.name) == infos[name]]
        if missed := wanted - got:
            bad[name] = f"in the whole of {source.name} it does not apply to {', '.join(sorted(missed))}"
        elif extra := got - wanted - {member.symbol for dispatch in alike for member in dispatch.members}:
            bad[name] = f"in the whole of {source.name} it applies to {', '.join(sorted(extra))} as well"
    return bad
