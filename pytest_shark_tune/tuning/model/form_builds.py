"""Compiled forms of a model: each as a whole, unless it equals one that was compiled before."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock

from msgspec.structs import replace

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import FormResult
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import content_key, file_digest
from pytest_shark_tune.tuning.compile_step import command_failure
from pytest_shark_tune.tuning.model.whole import UntunedModels

__all__ = ["FormBuilds"]


class FormBuilds:
    """Compiles the forms of one model, from several threads.

    Args:
        model: the model.
        default: the model in its default form, compiled.
        untuned: compiles the others, and keeps them.
    """

    def __init__(self, model: Source, default: Path, untuned: UntunedModels) -> None:
        self._model = model
        self._untuned = untuned
        self._bindings = Lock()
        self.seconds: dict[str, float] = {}
        """The time that the compilation of a form took, by its name."""
        self._by_sources: dict[str, str] = {}
        self._by_binary = {file_digest(default): DEFAULT_FORM.name}

    def build(self, form: Form) -> Path | FormResult:
        """Compile a form, or return its result if it fails or equals another."""
        began_s = time.monotonic()
        failed = FormResult(model=self._model.name, form=form, state=State.COMPILE_FAILED)
        try:
            source = form_source(self._model, form)
            if source is None:
                return _equal(failed, DEFAULT_FORM.name, "its rewrites change nothing in the model")
            builder = self._untuned.builder
            compiler = builder.compiler.for_models.with_flags(form.flags)
            lowered = compiler.lower(source.text, to="executable-sources", name=self._model.name)
            with self._bindings:  # They are not thread-safe.
                sources = strip(lowered)
            owner = self._by_sources.setdefault(content_key(sources, form.codegen_flags), form.name)
            if owner != form.name:
                return _equal(failed, owner, "it makes the same dispatches")
            vmfb = builder.model(sources, form.flags, holds_processor=True)
            self._untuned.add(source, vmfb)
        except CommandFailed as error:
            failure = command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT)
            reason = str(error) if error.timed_out else first_error(error)
            return replace(failed, state=failure.state, reason=reason)
        except (CandidateFailed, InputError) as error:
            return replace(failed, reason=str(error))
        self.seconds[form.name] = round(time.monotonic() - began_s, 3)
        owner = self._by_binary.setdefault(file_digest(vmfb), form.name)
        if owner != form.name:
            return _equal(failed, owner, "it compiles to the same binary")
        return vmfb


def _equal(result: FormResult, owner: str, reason: str) -> FormResult:
    return replace(result, state=State.DUPLICATE, duplicate_of=owner, reason=f"{reason} as {owner}")
