"""The final of a model's forms: whole models are compared, with the winners of their dispatches applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement
from pytest_shark_tune.plan.types import FormResult, Plan
from pytest_shark_tune.records.draft import Draft, spec_of
from pytest_shark_tune.records.form import ComparedForm, FormRecord, KindTime
from pytest_shark_tune.records.types import FinalRecord, Origin, State
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.tuning.model.final import compare_apart
from pytest_shark_tune.tuning.model.runner import ONNX, ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels, default_form, onnx_file, tuned_form
from pytest_shark_tune.tuning.run_directory import RunDirectory

__all__ = ["FormFinals", "in_chosen_forms", "losing_entries"]

_CLOSE = 1.15
"""A form whose predicted time exceeds the best one by more than this is not run."""


@dataclass(frozen=True)
class FormFinals:
    """Chooses the form of each model, once in a run."""

    untuned: UntunedModels
    """Has those without a spec."""
    models: ModelRunner
    """Runs them."""
    known: Callable[[str, Callable[[], tuple[FormRecord, ...]]], tuple[FormRecord, ...]]
    """Returns the choice of an earlier run by its key, or makes it."""
    run: RunDirectory
    """Has the finals of the dispatches, and the choices that any process of the run made."""
    origin: Origin
    """The circumstances of the measurements."""
    budget: TimeBudget
    """The time of the run."""
    report: Callable[[str], None]
    """Gets a message about work that takes long."""
    compares_onnx: bool = False
    """Whether ONNX models are timed in ONNX Runtime as well."""

    def chosen(self, plan: Plan) -> tuple[FormRecord, ...]:
        """The chosen form of each model of a plan whose forms were compared; the same in all processes of a run."""
        if not plan.forms:
            return ()
        finals = {final.dispatch: final for final in journal.read(self.run.finals, FinalRecord)}
        draft = spec_of(finals.values())
        key = content_key("form-finals", [source.content for source in plan.sources], sorted(draft.configs.items()))

        def choose() -> tuple[FormRecord, ...]:
            models = dict.fromkeys(result.model for result in plan.forms)
            return tuple(self._choose(plan, model, draft, finals) for model in models)

        def make() -> tuple[FormRecord, ...]:
            return self.known(key, choose)

        return self.run.cache.get_or_make("forms", key, tuple[FormRecord, ...], make)

    def record(self, plan: Plan, model: str) -> FormRecord:
        """The chosen form of the model of that name."""
        return next(record for record in self.chosen(plan) if record.model == model)

    def _choose(self, plan: Plan, model: str, draft: Draft, finals: Mapping[str, FinalRecord]) -> FormRecord:
        default = plan.source(model)
        record = FormRecord(
            model=model,
            target=self.origin.target,
            device=self.origin.device,
            iree=self.origin.iree,
            shapes=default.shapes,
            file=Path(default.path).name,
        )
        tuned = [result for result in plan.forms if result.model == model and result.is_tuned]
        predicted = {result.form.name: _predicted_us(plan, result, finals) for result in tuned}
        known = [time_us for time_us in predicted.values() if time_us is not None]
        if self.budget.left_s <= 0:
            return _predicted(record, tuned, predicted)
        compared: dict[str, ComparedForm] = {}
        paths: dict[str, Path] = {}
        for result in tuned:
            name, time_us = result.form.name, predicted[result.form.name]
            row = ComparedForm(form=result.form, predicted_us=time_us)
            if time_us is not None and time_us > min(known) * _CLOSE:
                compared[name] = replace(row, reason="by the finals of its dispatches it is slower than another form")
                continue
            compared[name] = row
            self.report(Step(f"compiling {model} in the form {name} with the winners of its dispatches", Stage.MODELS))
            try:
                paths[name] = tuned_form(plan.source(result.source), draft.text if draft.entries else "", self.untuned)
            except (CandidateFailed, CommandFailed, InputError) as error:
                compared[name] = replace(row, reason=str(error))
        measured, failed = self._compare(plan, model, paths) if paths else ({}, {})
        if (onnx := measured.pop(ONNX, None)) is not None:
            times = {"onnxruntime_us": round(onnx.median_us, 3), "onnxruntime_ratio": onnx.ratio}
            record = replace(record, **times)
        for name, failure in failed.items():
            compared[name] = replace(compared[name], reason=str(failure))
        for name, measurement in measured.items():
            bounds = {"ratio_low": measurement.ratio_low, "ratio_high": measurement.ratio_high}
            compared[name] = replace(compared[name], ratio=measurement.ratio, **bounds)
        decided = _decided(replace(record, compared=tuple(compared.values())), measured)
        first = next(one for one in plan.forms if one.model == model and one.form.is_default)
        if first.state == State.WRONG_RESULT:
            decided = _without_default(decided, measured, first.reason)
        return replace(decided, kinds=_by_kind(plan, decided.source, finals))

    def _compare(
        self, plan: Plan, model: str, paths: Mapping[str, Path]
    ) -> tuple[dict[str, Measurement], Mapping[str, CandidateFailed]]:
        """Compare whole models with the untuned default form; return their measurements and their failures."""
        default = plan.source(model)
        function, vmfb = default_form(default, default, plan.tasks, self.untuned, self.report)
        self.report(Step(f"comparing the forms {', '.join(paths)} of {model} as whole models", Stage.MODELS))
        onnx = onnx_file(default, self.report) if self.compares_onnx else None
        try:
            played = compare_apart(partial(self.models.compare, function, vmfb, onnx=onnx), paths)
        except InputError as error:
            self.report(f"{model} is not timed in ONNX Runtime: {error}")
            played = compare_apart(partial(self.models.compare, function, vmfb), paths)
        return dict(played.measured), played.failed


def in_chosen_forms(plan: Plan, records: Sequence[FormRecord]) -> Plan:
    """The plan without the sources of the forms that lost.

    Args:
        plan: The plan.
        records: The chosen form of each model.
    """
    models = {record.model for record in records}
    kept = {record.source for record in records}
    sources = tuple(source for source in plan.sources if source.model_name not in models or source.name in kept)
    return replace(plan, sources=sources)


def losing_entries(plan: Plan, records: Iterable[FormRecord], names: Sequence[str]) -> dict[str, str]:
    """The entries among ``names`` that are only for dispatches of forms that lost, with the reasons.

    Args:
        plan: The plan.
        records: The chosen form of each model.
        names: The names of the entries, which are those of their dispatches.
    """
    chosen = {record.model: record for record in records}
    owners = {source.name: source.model_name for source in plan.sources}
    lost: dict[str, str] = {}
    for task in plan.tasks:
        models = {owners[member.source] for member in task.dispatch.members if member.source in owners}
        sources = {member.source for member in task.dispatch.members}
        if task.name in names and models <= chosen.keys() and not sources & {chosen[model].source for model in models}:
            forms = ", ".join(f"{model} is compiled in the form {chosen[model].form.name}" for model in sorted(models))
            lost[task.name] = f"{forms}, which has no such dispatch"
    return lost


def _predicted_us(plan: Plan, result: FormResult, finals: Mapping[str, FinalRecord]) -> float | None:
    """The time of a form with the winners of its dispatches; ``None`` if it was not profiled."""
    profile = next((known for known in plan.profiles if known.source == result.source), None)
    if profile is None:
        return None
    return profile.outside_us + sum(part.time_us / _ratio(finals.get(part.dispatch)) for part in profile.shares)


def _ratio(final: FinalRecord | None) -> float:
    """The speed of a final's winner relative to the default; 1 without one."""
    won = next((one for one in final.finalists if one.id == final.winner), None) if final is not None else None
    return won.ratio if won is not None and won.ratio else 1.0


def _by_kind(plan: Plan, source: str, finals: Mapping[str, FinalRecord]) -> tuple[KindTime, ...]:
    """The time of a form by kinds of dispatches, the kind that takes longest first; empty if it was not profiled."""
    profile = next((known for known in plan.profiles if known.source == source), None)
    kinds = {task.name: task.dispatch.root.kind for task in plan.tasks}
    found: dict[str, KindTime] = {}
    for part in profile.shares if profile is not None else ():
        kind = kinds.get(part.dispatch, "not tuned")
        so_far = found.get(kind, KindTime(kind=kind, default_us=0.0, tuned_us=0.0))
        found[kind] = KindTime(
            kind=kind,
            default_us=round(so_far.default_us + part.time_us, 3),
            tuned_us=round(so_far.tuned_us + part.time_us / _ratio(finals.get(part.dispatch)), 3),
        )
    return tuple(sorted(found.values(), key=lambda time: -time.default_us))


def _predicted(record: FormRecord, tuned: Sequence[FormResult], predicted: Mapping[str, float | None]) -> FormRecord:
    """The record with the form that is predicted to be the fastest, in a run that has no time for whole models."""
    rows = tuple(ComparedForm(form=result.form, predicted_us=predicted[result.form.name]) for result in tuned)
    best = min(rows, key=lambda row: row.predicted_us or float("inf"))
    note = "by the finals of its dispatches: the time for comparing whole models was spent (--tune-time)"
    return replace(record, form=best.form, compared=rows, note=note)


def _decided(record: FormRecord, measured: Mapping[str, Measurement]) -> FormRecord:
    """The record with the fastest form, if it is faster than the untuned default form by more than the noise."""
    forms = {row.form.name: row.form for row in record.compared}
    best = max(measured, key=lambda name: measured[name].ratio, default="")
    if not best:
        return replace(record, form=_only(record), note="no form could be compared as a whole model")
    found = measured[best]
    record = replace(
        record,
        default_us=round(found.baseline_median_us, 3),
        tuned_us=round(found.baseline_median_us / found.ratio, 3),
        ratio=found.ratio,
        ratio_low=found.ratio_low,
        ratio_high=found.ratio_high,
    )
    if found.ratio_low <= 1 + NOISE_FLOOR and best != DEFAULT_FORM.name:
        return replace(record, form=DEFAULT_FORM, note=f"no form wins: {best} is the fastest, and not clearly faster")
    return replace(record, form=forms[best])


def _without_default(record: FormRecord, measured: Mapping[str, Measurement], why: str) -> FormRecord:
    """The record with the fastest form but the default one, whose results are wrong."""
    if not record.form.is_default:
        return replace(record, note=f"the results of the default form are wrong: {why}")
    others = [row for row in record.compared if not row.form.is_default and row.form.name in measured]
    if not others:
        return replace(record, note=f"the results of the default form are wrong, and no other form is right: {why}")
    best = max(others, key=lambda row: measured[row.form.name].ratio)
    return replace(record, form=best.form, note=f"the results of the default form are wrong: {why}")


def _only(record: FormRecord) -> Form:
    """The default form, unless another one is the only one that was tuned."""
    return record.compared[0].form if len(record.compared) == 1 else DEFAULT_FORM
