"""The race of a model's forms: each is compiled whole, checked against the default form, and timed in turns with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form, combined
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement, Policy
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import NOT_TRIED, FormResult, Plan, Stage, Step
from pytest_shark_tune.records.types import State
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.model.final import compare_apart
from pytest_shark_tune.tuning.model.form_builds import FormBuilds
from pytest_shark_tune.tuning.model.form_choice import contenders, is_preparation
from pytest_shark_tune.tuning.model.runner import ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels, default_form
from pytest_shark_tune.tuning.model.wrong_part import smallest_wrong_part

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

        Forms that pay only once their dispatches are tuned are combined with the fastest of all.

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
        race.add(race.prepared(forms, rewritten))
        return race.results


class _Race:
    """The race of one model's forms."""

    def __init__(self, tools: FormRace, plan: Plan, model: Source, is_spent: Callable[[], bool]) -> None:
        self._tools = tools
        self._model = model
        self._is_spent = is_spent
        try:
            self._function, self._default = default_form(model, model, plan.tasks, tools.untuned, tools.report)
        except CommandFailed as error:
            raise InputError(f"{model.name}: {first_error(error)}") from error
        self._builds = FormBuilds(model, self._default, tools.untuned)
        self._results = {DEFAULT_FORM.name: FormResult(model=model.name, form=DEFAULT_FORM, state=State.MEASURED)}

    @property
    def results(self) -> list[FormResult]:
        return list(self._results.values())

    def check_default(self) -> None:
        """Compare the results of the default form with those that were computed elsewhere, if they were."""
        if self._function.expected is None:
            return
        name = DEFAULT_FORM.name
        text = f"comparing the results of {self._model.name} with those of the ONNX model"
        self._tools.report(Step(text, Stage.EXTRACT))
        failed = self._tools.models.check_all(self._function, self._default, {name: self._default}, inputs=_INPUTS)
        if failure := failed.get(name):
            self._note(DEFAULT_FORM, failure.state, failure.reason)

    def add(self, forms: Iterable[Form]) -> None:
        """Compile forms, check them and time them together."""
        built: dict[Form, Path] = {}
        for form, found in self._built([form for form in forms if form.name not in self._results]):
            if isinstance(found, FormResult):
                self._results[form.name] = found
            else:
                built[form] = found
        if not built:
            return
        models, paths = self._tools.models, {form.name: vmfb for form, vmfb in built.items()}
        text = f"checking and timing {', '.join(paths)} of {self._model.name} with its default form"
        self._tools.report(Step(text, Stage.EXTRACT))
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
                if failure.state == State.WRONG_RESULT:
                    self._find_wrong_part(form)
            else:
                self._note(form, State.MEASURED, measurement=timed.measured[form.name])

    def _built(self, forms: Sequence[Form]) -> list[tuple[Form, Path | FormResult]]:
        """Compile forms, several at a time, while nothing is measured."""
        builder = self._tools.builder

        def build(form: Form) -> Path | FormResult:
            if self._is_spent():
                reason = "the time for forms was spent (--tune-time)"
                return FormResult(model=self._model.name, form=form, state=NOT_TRIED, reason=reason)
            self._tools.report(Step(f"compiling {self._model.name} in the form {form.name}", Stage.EXTRACT))
            return self._builds.build(form)

        with builder.processor(), ThreadPoolExecutor(builder.jobs) as pool:
            return list(zip(forms, pool.map(build, forms), strict=True))

    def best(self, forms: Iterable[Form]) -> Form | None:
        """The fastest of some forms, if one is not slower than the default form: what it does may pay once tuned."""
        near = [form for form in forms if self._ratio(form) > 1 - 2 * NOISE_FLOOR]
        return max(near, key=self._ratio, default=None)

    def prepared(self, forms: Iterable[Form], rewritten: Form | None) -> list[Form]:
        """The forms that pay only once their dispatches are tuned, with the best rewrites and with the fastest."""
        fastest = [result.form for result in contenders(self.results, is_short=True) if not result.form.is_default]
        near = dict.fromkeys([*filter(None, [rewritten]), *fastest])
        preparing = (form for form in forms if is_preparation(form) and self._ratio(form))
        return [both for first in preparing for second in near if (both := combined(first, second)) is not None]

    def promise(self, form: Form) -> float:
        """The speed of a form alone, which tells what it may bring beside another; 0 if it changes nothing.

        A form that does not compile alone may do so with rewrites, which remove the op that it fails on.
        """
        return 1.0 if self._results[form.name].state == State.COMPILE_FAILED else self._ratio(form)

    def _ratio(self, form: Form) -> float:
        measurement = self._results[form.name].measurement
        return measurement.ratio if measurement else 0.0

    def _find_wrong_part(self, form: Form) -> None:
        """Keep a small part of the model that the form computes something else for, if there is one."""
        tools, name = self._tools, self._model.name
        tools.report(f"looking for a small part of {name} that the form {form.name} computes wrong")
        part = smallest_wrong_part(self._model, form, self._function, tools.untuned, tools.models, self._is_spent)
        if part is not None:
            result, plural = self._results[form.name], "op" if part.ops == 1 else "ops"
            shown = f"{result.reason}; a part of {part.ops} {plural} that shows it is in *.wrong.mlir, beside the spec"
            self._results[form.name] = replace(result, reason=shown, wrong_part=part.text)

    def _note(self, form: Form, state: str, reason: str = "", measurement: Measurement | None = None) -> None:
        self._results[form.name] = FormResult(
            model=self._model.name,
            form=form,
            state=state,
            reason=reason,
            measurement=measurement,
            compile_s=self._builds.seconds.get(form.name, 0.0),
        )
