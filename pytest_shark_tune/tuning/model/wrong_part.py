"""A small part of a model that a form computes something else for, to report the wrong form with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from pytest_shark_tune.dispatch.flow import function_inputs
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.forms.model_part import count_ops, cut_part
from pytest_shark_tune.forms.onnx_rewrites import REWRITES
from pytest_shark_tune.measurement.correctness import Check
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.types import State
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels

__all__ = ["WrongPart", "smallest_wrong_part"]

_RESULTS = 8
"""The results of a part that are compared at once. The next part ends at the first one that is wrong."""
_SECONDS = 90.0
"""The time for finding a part."""
_MOST_BYTES = 4 << 20
"""The largest module that is kept. Constants may make it larger than all its ops."""


class WrongPart(NamedTuple):
    """A part of a model that a form computes something else for."""

    text: str
    """A module that iree-compile takes, with the flags and the difference in its first lines."""
    ops: int
    """The number of the model's ops that the part was cut from."""


def smallest_wrong_part(
    model: Source,
    form: Form,
    function: ModelFunction,
    untuned: UntunedModels,
    models: ModelRunner,
    is_spent: Callable[[], bool],
) -> WrongPart | None:
    """Look for the smallest part of a model whose results in a form are not those of the default form.

    A part is several ops in a row. Each has the model's own constants, and random data in place of what the ops before
    it compute. The part shrinks as long as its results are wrong.

    Args:
        model: The model.
        form: The form whose results are wrong.
        function: The function of the model that was compared.
        untuned: Compiles parts.
        models: Compares them.
        is_spent: Returns whether there is no time for another part.

    Returns:
        The part, with the form's flags in a comment; ``None`` if no part is wrong by itself, the form rewrites the ONNX
        graph, which has no ops of a module, or time is up.
    """
    if any(name in REWRITES for name in form.rewrites):
        return None
    search = _Search(model, form, function, untuned, models)
    until = time.monotonic() + _SECONDS
    found = None
    waiting = [(0, count_ops(model.text, function.name) - 1)]
    while waiting and time.monotonic() < until and not is_spent():
        first, last = waiting.pop(0)
        try:
            wrong = search.first_wrong(first, last)
        except (CandidateFailed, CommandFailed, InputError):
            continue
        if wrong is None:
            continue
        text, ops, number, reason = wrong
        if len(text) <= _MOST_BYTES:
            found = WrongPart(f"{_comment(form, reason)}{text}", last - first + 1)
        end = ops[number]
        smaller = ((ops[number - 1] + 1, end) if number else (first, end), (first, end))
        waiting = [part for part in dict.fromkeys(smaller) if part != (first, last)]
    return found


class _Wrong(NamedTuple):
    text: str
    """The part."""
    ops: Sequence[int]
    """The op of each of its results."""
    number: int
    """The first result that is wrong."""
    reason: str


@dataclass(frozen=True)
class _Search:
    """Compares parts of one model in the default form and in another one."""

    model: Source
    form: Form
    function: ModelFunction
    untuned: UntunedModels
    models: ModelRunner

    def first_wrong(self, first: int, last: int) -> _Wrong | None:
        """Compare the results of a part; ``None`` if all are right.

        Raises:
            CandidateFailed: the default form cannot be run.
            CommandFailed: the compiler rejects the part.
            InputError: the part has no inputs that data can be made for, or the form's rewrites fail.
        """
        text, ops = cut_part(self.model.text, self.function.name, first, last, _RESULTS)
        if not text:
            return None
        part = replace(self.model, text=text)
        formed = form_source(part, self.form)
        if formed is None:
            return None
        paths = [self.untuned.vmfb(source) for source in (part, formed)]
        inputs = function_inputs(self.untuned.builder.compiler.lower(text, to="input", name=part.name))
        if self.function.name not in inputs:
            raise InputError(f"{part.name}: a part has inputs without fixed sizes")

        @cache
        def disturbed() -> Path | None:
            return disturbed_model(self.untuned.builder, self.untuned.sources(part), None)

        function = ModelFunction(
            self.function.name, inputs[self.function.name], self.function.tolerance, disturbed=disturbed
        )
        try:
            self.models.check(function, *paths)
        except CandidateFailed as failure:
            check = failure.detail
            if failure.state is not State.WRONG_RESULT or not isinstance(check, Check):
                raise
            return _Wrong(text, ops, check.output, failure.reason)
        return None


def _comment(form: Form, reason: str) -> str:
    flags = " ".join(form.flags) or "no flags"
    rewrites = f", rewritten by {', '.join(form.rewrites)}" if form.rewrites else ""
    head = f"On random inputs the form {form.name} ({flags}{rewrites}) gives other results than plain iree-compile:"
    return "".join(f"// {line}\n" for line in (head, *reason.splitlines()))
