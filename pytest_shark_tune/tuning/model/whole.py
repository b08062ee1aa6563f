"""Whole models in a form: untuned in their default form, which is the reference, and with a spec in any form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.model.runner import ModelFunction

__all__ = ["default_form", "tuned_form"]


def default_form(
    model: Source, like: Source, tasks: Iterable[Task], builder: Builder, report: Callable[[str], None]
) -> tuple[ModelFunction, Path]:
    """Compile a model in its default form, and describe its function.

    A form changes sums that belong to no task, so the tolerance counts all sums of the tasks. If a result seems wrong,
    the default form is asked how it responds to rounding errors of all its sums.

    Args:
        model: The model as it is.
        like: A source of the model with known functions, of which it runs exactly one.
        tasks: The dispatches of ``like``.
        builder: Compiles the model.
        report: Gets a message about work that takes long.

    Returns:
        The function, and the compiled model.

    Raises:
        CommandFailed: The compiler rejects the model.
    """
    (name,) = like.run_whole
    sources = strip(builder.compiler.for_models.lower(model.text, to="executable-sources", name=model.name))

    def disturbed() -> Path | None:
        report(f"asking how {model.name} answers to rounding errors")
        return builder.disturbed_model(sources, None)

    tolerance = model_tolerance(like, name, tasks, [model.name])
    function = ModelFunction(name, like.functions[name], tolerance, like.files, like.parameter_arguments, disturbed)
    return function, builder.model(sources)


def tuned_form(source: Source, spec: str, builder: Builder) -> Path:
    """Compile a source in its form with a spec, or untuned if the text of the spec is empty.

    Raises:
        CommandFailed: The compiler rejects the source, or a config of the spec.
        InputError: The compiler rejects the spec.
        CandidateFailed: The client's compile step fails.
    """
    if spec:
        text = apply_spec(source, spec, builder.compiler).text
    else:
        compiler = builder.compiler.for_models.with_flags(source.form.flags)
        text = strip(compiler.lower(source.text, to="executable-sources", name=source.name))
    return builder.model(text, source.form.flags)
