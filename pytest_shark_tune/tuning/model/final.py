"""Finalists in the whole model: the one that wins alone need not be the one that makes the model fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.compile_step import command_failure
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from pytest_shark_tune.tuning.runner import RoundResult

__all__ = ["ModelFinal", "compare_apart"]


@dataclass(frozen=True)
class ModelFinal:
    """Compares the finalists of a dispatch in one function of a model, which has its default elsewhere."""

    builder: Builder
    """Compiles the models."""
    models: ModelRunner
    """Runs them."""

    def play(self, task: Task, plan: Plan, names: Sequence[str]) -> tuple[Source, RoundResult]:
        """Measure the model with each finalist in it.

        Args:
            task: the dispatch.
            plan: the plan that it is from.
            names: the ids of the finalists.

        Returns:
            The model, and its measurements by finalist.

        Raises:
            InputError: the dispatch is not part of one function that can be run.
        """
        source, name = _function_of(plan, task)
        symbols = [member.symbol for member in task.dispatch.members if member.source == source.name]
        paths: dict[str, Path] = {}
        failed: dict[str, CandidateFailed] = {}
        default = ""
        for finalist in names:
            try:
                paths[finalist], default = self._built(task, source, symbols, finalist)
            except CandidateFailed as failure:
                failed[finalist] = failure
        if not default:
            return source, RoundResult({}, failed)
        function = ModelFunction(
            name,
            source.functions[name],
            model_tolerance(source, name, plan.tasks, symbols),
            source.files,
            source.parameter_arguments,
            partial(disturbed_model, self.builder, default, symbols, source.form.flags),
        )
        vmfb = self.builder.model(default, source.form.flags)
        played = compare_apart(partial(self.models.compare, function, vmfb), paths)
        return source, RoundResult(played.measured, failed | dict(played.failed))

    def _built(self, task: Task, source: Source, symbols: Sequence[str], finalist: str) -> tuple[Path, str]:
        """The model with a finalist in it, and the sources of its default.

        Raises:
            CandidateFailed: the config is not applied to each of the dispatch's ops, or does not compile there.
        """
        info = task.candidate(finalist).compilation_info
        entry = SpecEntry(name=task.name, root=task.dispatch.root, compilation_info=info)
        try:
            application = apply_spec(source, link_spec(build_spec([entry])), self.builder.compiler)
        except InputError as error:
            raise CandidateFailed(State.COMPILE_FAILED, str(error)) from error
        if missed := sorted(set(symbols) - {placement.symbol for placement in application.placements}):
            raise CandidateFailed(
                State.NOT_APPLIED, f"in the whole of {source.name} it does not apply to {', '.join(missed)}"
            )
        try:
            return self.builder.model(application.text, source.form.flags), strip(application.sources)
        except CommandFailed as error:
            raise command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT) from error


def _function_of(plan: Plan, task: Task) -> tuple[Source, str]:
    """The source that a dispatch is part of, and its function.

    Raises:
        InputError: there is no function with inputs that can be made up, or more than one.
    """
    names = {member.source for member in task.dispatch.members}
    functions = [(source, name) for source in plan.sources if source.name in names for name in source.run_whole]
    if len(functions) != 1:
        found = ", ".join(f"{name} of {source.name}" for source, name in functions)
        raise InputError(
            f"the finalists of {task.name} can be compared in a model that has one function, and this dispatch is "
            f"part of {found or 'none whose inputs can be made up'}: name one with --tune-function, or tune that in a "
            "test of its own"
        )
    return functions[0]


def compare_apart(
    compare: Callable[[Mapping[str, Path]], Mapping[str, Measurement]], models: Mapping[str, Path]
) -> RoundResult:
    """Compare models with each other or, if one of them fails, each alone with the default.

    ``compare`` does not tell which one failed.
    """
    if not models:
        return RoundResult({}, {})
    try:
        return RoundResult(compare(models), {})
    except CandidateFailed as failure:
        if len(models) == 1:
            return RoundResult({}, dict.fromkeys(models, failure))
    alone = [compare_apart(compare, {name: path}) for name, path in models.items()]
    return RoundResult(
        {name: measurement for played in alone for name, measurement in played.measured.items()},
        {name: failure for played in alone for name, failure in played.failed.items()},
    )
