"""The checks of a model's form: the whole model in the form, with the spec, beside its untuned default form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.errors import CandidateFailed, CheckFailed, CheckSkipped, CommandFailed, InputError
from pytest_shark_tune.guard.plan import GuardedForm, GuardEntry, GuardPlan
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms, record_path, response_path, response_text
from pytest_shark_tune.records.types import State, WinnerRecord
from pytest_shark_tune.system.files import read_plain
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels, default_form, tuned_form

__all__ = ["FormChecks", "formed_sources", "record_of_form"]

_INPUTS = 3
_FORM = "form"


@dataclass(frozen=True)
class FormChecks:
    """Checks forms for one process of a run."""

    untuned: UntunedModels
    """Has those without a spec."""
    models: ModelRunner
    """Runs them."""
    defaults: dict[str, Source]
    """The models in their default form, by name."""

    def compile(self, guarded: GuardPlan, entry: GuardEntry) -> Path:
        """Compile the model in its form with the spec, and check the response file beside the spec.

        Raises:
            CheckFailed: the compiler does not know a flag, or the response file differs from the record.
        """
        record = _record(entry)
        if entry.problem:
            raise CheckFailed(entry.problem)
        if problem := _edited(Path(guarded.spec_path), record):
            raise CheckFailed(problem)
        try:
            return tuned_form(guarded.plan.source(record.source), guarded.spec, self.untuned)
        except (CommandFailed, CandidateFailed, InputError) as error:
            why = first_error(error) if isinstance(error, CommandFailed) else str(error)
            raise CheckFailed(f"the model does not compile in the form {record.form.name}: {why}") from error

    def correct(self, guarded: GuardPlan, entry: GuardEntry) -> None:
        """Compare the model's results with those of its default form on several inputs.

        Raises:
            CheckFailed: they differ, or the model cannot be run.
            CheckSkipped: no function of the model can be run.
        """
        function, default = self._default(guarded, entry)
        try:
            self.models.check(function, default, self.compile(guarded, entry), inputs=_INPUTS)
        except CandidateFailed as failure:
            raise CheckFailed(str(failure)) from failure

    def timer(self, guarded: GuardPlan, entry: GuardEntry) -> Callable[[], Measurement]:
        """Compile the model in its form and in its default form.

        Returns:
            A callable that plays one round: it times the two in turns in a fresh process. It raises CandidateFailed if
            a model cannot be run.

        Raises:
            CheckFailed: the model does not compile in its form.
            CheckSkipped: no function of the model can be run.
        """
        function, default = self._default(guarded, entry)
        paths = {_FORM: self.compile(guarded, entry)}
        return lambda: self.models.compare(function, default, paths, most_rounds=1)[_FORM]

    def _default(self, guarded: GuardPlan, entry: GuardEntry) -> tuple[ModelFunction, Path]:
        record = _record(entry)
        source = guarded.plan.source(record.source)
        if len(source.run_whole) != 1:
            raise CheckSkipped(
                f"{record.model}: {source.why_not_run or 'it has no single function whose inputs can be made up'}"
            )
        default, tasks = self.defaults[record.model], guarded.plan.tasks
        return default_form(default, source, tasks, self.untuned, lambda message: None)


def formed_sources(
    sources: Sequence[Source], spec_path: Path, compiler: Compiler, defaults: dict[str, Source]
) -> tuple[tuple[Source, ...], dict[str, GuardedForm]]:
    """The sources in the forms that the records beside a spec have, and these forms by the model's name.

    If the compiler refuses a form, the form's problem says why, and the model keeps its default form.

    Args:
        sources: the sources in their default form.
        spec_path: the spec.
        compiler: takes the flags of the forms.
        defaults: gets the models with forms as they are, by name.

    Raises:
        InputError: a record cannot be read, or brings a flag that no file may bring.
    """
    records = {record.model: record for record in find_forms(spec_path)}
    formed: list[Source] = []
    forms: dict[str, GuardedForm] = {}
    for source in sources:
        record = records.get(source.name) if source.is_model else None
        if record is None:
            formed.append(source)
            continue
        defaults[source.name] = source
        found, problem = _in_form(source, record, compiler)
        formed.append(found)
        forms[source.name] = GuardedForm(record=record, problem=problem)
    return tuple(formed), forms


def _in_form(source: Source, record: FormRecord, compiler: Compiler) -> tuple[Source, str]:
    """The model in the form of a record, and why that is not possible, if it is not."""
    if record.form.is_default:
        return source, ""
    try:
        compiler.with_flags(record.form.flags).check()
        found = form_source(source, record.form)
    except (CommandFailed, InputError) as error:
        return source, f"form {record.form.name}: {error}"
    if found is None:
        return source, f"form {record.form.name}: its rewrites change nothing in the model any more"
    return found, ""


def record_of_form(record: FormRecord) -> WinnerRecord:
    """Return the figures of a form as the record of a winner, for the speed test."""
    return WinnerRecord(
        id=record.form.name,
        dispatch=record.model,
        pipeline="",
        knobs={},
        config="",
        state=State.MEASURED,
        samples_us=(record.tuned_us,) if record.tuned_us else (),
        baseline_samples_us=(record.default_us,) if record.default_us else (),
        ratio=record.ratio,
        ratio_low=record.ratio_low,
        ratio_high=record.ratio_high,
        device=record.device,
        target=record.target,
        iree=record.iree,
        root=None,
        weight=1,
        compilation_info="",
    )


def _record(entry: GuardEntry) -> FormRecord:
    assert entry.form is not None, "only a form is checked as one"
    return entry.form


def _edited(spec: Path, record: FormRecord) -> str:
    """Why the response file beside a spec is not the one that the record makes; empty if it is."""
    path = response_path(record_path(spec.parent, record.model, record.stem))
    try:
        text = read_plain(path).decode(errors="replace")
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}: tune the model again with --tune"
    if text == response_text(record):
        return ""
    return (
        f"{path.name} has other flags than its record: take both from version control again, or tune the model again "
        "with --tune"
    )
