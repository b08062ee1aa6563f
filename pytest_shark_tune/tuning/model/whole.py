"""Whole models in a form: untuned in their default form, which is the reference, and with a spec in any form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.device.onnx_engine import arrays_of, has_onnxruntime, run_onnx, tensors_like
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.runner import ModelFunction

Tensors: TypeAlias = Sequence[TensorData]

__all__ = ["UntunedModels", "default_form", "onnx_file", "tuned_form"]


class UntunedModels:
    """The models of one process of a run without a spec: each is compiled once.

    Args:
        builder: compiles them.
        asks_onnx: whether their results are compared with those of ONNX Runtime, or of onnx's own evaluator.
    """

    def __init__(self, builder: Builder, *, asks_onnx: bool = False) -> None:
        self.builder = builder
        """Compiles them."""
        self._asks_onnx = asks_onnx
        self._known: dict[str, Path] = {}
        self._answers: dict[str, Tensors] = {}

    def add(self, source: Source, vmfb: Path) -> None:
        """Remember a model that was compiled elsewhere."""
        self._known[content_key(source.content)] = vmfb

    def expected(self, model: Source) -> Callable[[Tensors, Tensors], Tensors] | None:
        """What computes the outputs that a model should have; ``None`` if its default form is right by definition."""
        if not self._asks_onnx or not model.path.endswith(".onnx"):
            return None

        def ask(inputs: Tensors, outputs: Tensors) -> Tensors:
            key = content_key(model.content, [tensor.data for tensor in inputs])
            if key not in self._answers:
                with run_onnx(Path(model.path), arrays_of(inputs)) as engine:
                    self._answers[key] = tensors_like(outputs, engine.outputs)
            return self._answers[key]

        return ask

    def sources(self, source: Source) -> str:
        """The executable sources of a model, without configs.

        Raises:
            CommandFailed: the compiler rejects the model.
        """
        compiler = self.builder.compiler.for_models.with_flags(source.form.flags)
        return strip(compiler.lower(source.text, to="executable-sources", name=source.name))

    def vmfb(self, source: Source) -> Path:
        """The compiled model.

        Raises:
            CommandFailed: the compiler rejects the model.
            CandidateFailed: the client's compile step fails.
        """
        key = content_key(source.content)
        if key not in self._known:
            self._known[key] = self.builder.model(self.sources(source), source.form.flags)
        return self._known[key]


def default_form(
    model: Source,
    like: Source,
    tasks: Iterable[Task],
    untuned: UntunedModels,
    report: Callable[[str], None],
) -> tuple[ModelFunction, Path]:
    """Compile a model in its default form, and describe its function.

    A form changes sums that belong to no task, so the tolerance counts all sums of the tasks. If a result seems wrong,
    the default form is asked how it responds to rounding errors of all its sums.

    Args:
        model: The model as it is.
        like: A source of the model with known functions, of which it runs exactly one.
        tasks: The dispatches of ``like``.
        untuned: Compiles the model, also with disturbed sums.
        report: Gets a message about work that takes long.

    Returns:
        The function, and the compiled model.

    Raises:
        CommandFailed: The compiler rejects the model.
    """
    (name,) = like.run_whole

    @cache
    def disturbed() -> Path | None:
        report(Step(f"asking how {model.name} answers to rounding errors", Stage.EXTRACT))
        return disturbed_model(untuned.builder, untuned.sources(model), None)

    tolerance = model_tolerance(like, name, tasks, [model.name])
    expected, vmfb = untuned.expected(model), untuned.vmfb(model)
    inputs, parameters = like.functions[name], like.parameter_arguments
    return ModelFunction(name, inputs, tolerance, like.files, parameters, disturbed, expected), vmfb


def onnx_file(model: Source, report: Callable[[str], None]) -> Path | None:
    """The file of an ONNX model, if ONNX Runtime can run it here; ``report`` gets the reason if it cannot."""
    if not model.path.endswith(".onnx"):
        return None
    if not has_onnxruntime():
        report(f"{model.name} is not timed in ONNX Runtime, which this Python does not have")
        return None
    return Path(model.path)


def tuned_form(source: Source, spec: str, untuned: UntunedModels) -> Path:
    """Compile a source in its form with a spec, or untuned if the text of the spec is empty.

    Raises:
        CommandFailed: The compiler rejects the source, or a config of the spec.
        InputError: The compiler rejects the spec.
        CandidateFailed: The client's compile step fails.
    """
    if not spec:
        return untuned.vmfb(source)
    builder = untuned.builder
    return builder.model(apply_spec(source, spec, builder.compiler).text, source.form.flags)
