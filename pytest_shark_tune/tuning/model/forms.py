"""The race of a model's forms: each is compiled whole, checked against the default form, and timed in turns with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock

from msgspec.structs import replace

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form, combined
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement, Policy
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import NOT_TRIED, FormResult, Plan
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import content_key, file_digest
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.compile_step import command_failure
from pytest_shark_tune.tuning.model.final import compare_apart
from pytest_shark_tune.tuning.model.runner import ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels, default_form

__all__ = ["FormRace"]

_POLICY = Policy(sample_s=0.005, blocks=4, min_blocks=2, budget_s=1.0, width=0.01)
"""The policy for one round: forms differ by far more than candidates, and a model takes long."""
_ROUNDS = 3
_INPUTS = 3
_COMBINED = 3
"""The most combinations with the best rewrites that are compiled: with the fastest other forms."""


@dataclass(frozen=True)
class FormRace:
    """Compares the forms of models for one process of a run."""

    builder: Builder
    """Compiles the models."""
    untuned: UntunedModels
    """Keeps the compiled models for what follows."""
    models: ModelRunner
    """Runs them."""
    report: Callable[[str], None]
    """Gets a message about work that takes long."""

    def run(self, plan: Plan, model: Source, forms: Sequence[Form], is_spent: Callable[[], bool]) -> list[FormResult]:
        """Compare the forms of a model, then the best rewrites together with other forms.

        Args:
            plan: The plan with the model in its default form.
            model: The model.
            forms: The forms, the most promising first.
            is_spent: Returns whether there is no time for another form.

        Returns:
            The results, that of the default form first.

        Raises:
            InputError: The model cannot be compiled in its default form.
        """
        race = _Race(self, plan, model, is_spent)
        race.check_default()
        race.add(forms)
        rewritten = race.best(form for form in forms if form.rewrites)
        if rewritten is not None:
            others = sorted((form for form in forms if form != rewritten), key=race.promise, reverse=True)
            both = (combined(rewritten, form) for form in others if race.promise(form) > 1 - 2 * NOISE_FLOOR)
            race.add(list(islice(filter(None, both), _COMBINED)))
        return race.results


class _Race:
    """The race of one model's forms."""

    def __init__(self, tools: FormRace, plan: Plan, model: Source, is_spent: Callable[[], bool]) -> None:
        self._tools = tools
        self._model = model
        self._is_spent = is_spent
        self._bindings = Lock()
        self._by_sources: dict[str, str] = {}
        self._by_binary: dict[str, str] = {}
        try:
            self._function, self._default = default_form(model, model, plan.tasks, tools.untuned, tools.report)
        except CommandFailed as error:
            raise InputError(f"{model.name}: {first_error(error)}") from error
        self._by_binary[file_digest(self._default)] = DEFAULT_FORM.name
        self._results = {DEFAULT_FORM.name: FormResult(model=model.name, form=DEFAULT_FORM, state=State.MEASURED)}

    @property
    def results(self) -> list[FormResult]:
        return list(self._results.values())

    def check_default(self) -> None:
        """Compare the results of the default form with those that were computed elsewhere, if they were."""
        if self._function.expected is None:
            return
        name = DEFAULT_FORM.name
        self._tools.report(f"comparing the results of {self._model.name} with those of the ONNX model")
        failed = self._tools.models.check_all(self._function, self._default, {name: self._default}, inputs=_INPUTS)
        if failure := failed.get(name):
            self._note(DEFAULT_FORM, failure.state, failure.reason)

    def add(self, forms: Iterable[Form]) -> None:
        """Compile forms, check them and time them together."""
        built: dict[Form, Path] = {}
        for form, found in self._built(list(forms)):
            if isinstance(found, FormResult):
                self._results[form.name] = found
            else:
                built[form] = found
        if not built:
            return
        models, paths = self._tools.models, {form.name: vmfb for form, vmfb in built.items()}
        self._tools.report(f"checking and timing {', '.join(paths)} of {self._model.name} with its default form")
        failed = models.check_all(self._function, self._default, paths, inputs=_INPUTS)
        right = {name: vmfb for name, vmfb in paths.items() if name not in failed}
        compare = partial(
            models.compare, self._function, self._default, policy=_POLICY, most_rounds=_ROUNDS, is_checked=True
        )
        timed = compare_apart(compare, right)
        failed |= timed.failed
        for form in built:
            if failure := failed.get(form.name):
                self._note(form, failure.state, failure.reason)
            else:
                self._note(form, State.MEASURED, measurement=timed.measured[form.name])

    def _built(self, forms: Sequence[Form]) -> list[tuple[Form, Path | FormResult]]:
        """Compile forms, several at a time, while nothing is measured."""
        builder = self._tools.builder

        def build(form: Form) -> Path | FormResult:
            if self._is_spent():
                reason = "the time for forms was spent (--tune-time)"
                return FormResult(model=self._model.name, form=form, state=NOT_TRIED, reason=reason)
            self._tools.report(f"compiling {self._model.name} in the form {form.name}")
            return self._build(form)

        with builder.processor(), ThreadPoolExecutor(builder.jobs) as pool:
            return list(zip(forms, pool.map(build, forms), strict=True))

    def best(self, forms: Iterable[Form]) -> Form | None:
        """The fastest of some forms, if one is not slower than the default form: what it does may pay once tuned."""
        near = [form for form in forms if self._ratio(form) > 1 - 2 * NOISE_FLOOR]
        return max(near, key=self._ratio, default=None)

    def promise(self, form: Form) -> float:
        """The speed of a form alone, which tells what it may bring beside another; 0 if it changes nothing.

        A form that does not compile alone may do so with rewrites, which remove the op that it fails on.
        """
        return 1.0 if self._results[form.name].state == State.COMPILE_FAILED else self._ratio(form)

    def _ratio(self, form: Form) -> float:
        measurement = self._results[form.name].measurement
        return measurement.ratio if measurement else 0.0

    def _note(self, form: Form, state: str, reason: str = "", measurement: Measurement | None = None) -> None:
        self._results[form.name] = FormResult(
            model=self._model.name, form=form, state=state, reason=reason, measurement=measurement
        )

    def _build(self, form: Form) -> Path | FormResult:
        """Compile a form, or return its result if it fails or equals another."""
        failed = FormResult(model=self._model.name, form=form, state=State.COMPILE_FAILED)
        try:
            source = form_source(self._model, form)
            if source is None:
                return self._equal(failed, DEFAULT_FORM.name, "its rewrites change nothing in the model")
            builder = self._tools.builder
            compiler = builder.compiler.for_models.with_flags(form.flags)
            lowered = compiler.lower(source.text, to="executable-sources", name=self._model.name)
            with self._bindings:  # They are not thread-safe.
                sources = strip(lowered)
            owner = self._by_sources.setdefault(content_key(sources, form.codegen_flags), form.name)
            if owner != form.name:
                return self._equal(failed, owner, "it makes the same dispatches")
            vmfb = builder.model(sources, form.flags, holds_processor=True)
            self._tools.untuned.add(source, vmfb)
        except CommandFailed as error:
            failure = command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT)
            reason = str(error) if error.timed_out else first_error(error)
            return replace(failed, state=failure.state, reason=reason)
        except (CandidateFailed, InputError) as error:
            return replace(failed, reason=str(error))
        owner = self._by_binary.setdefault(file_digest(vmfb), form.name)
        if owner != form.name:
            return self._equal(failed, owner, "it compiles to the same binary")
        return vmfb

    def _equal(self, result: FormResult, owner: str, reason: str) -> FormResult:
        return replace(result, state=State.DUPLICATE, duplicate_of=owner, reason=f"{reason} as {owner}")
