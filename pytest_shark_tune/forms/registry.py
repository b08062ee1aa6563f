"""Forms per backend: our own, and those of other packages, registered in the group ``pytest_shark_tune.forms``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.cpu import CPU_FORMS
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.forms.gpu import GPU_FORMS
from pytest_shark_tune.system.entry_points import describe_entry, load_entry

__all__ = ["GROUP", "FormProvider", "form_providers", "forms_for"]

GROUP = "pytest_shark_tune.forms"

FormProvider: TypeAlias = Callable[[Target], Sequence[Form]]
"""Returns the forms that models may profit from on a target; none for a target that it does not cover."""


def form_providers() -> tuple[EntryPoint, ...]:
    """Return the registered entry points, sorted by name: the order of their forms."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)))


def forms_for(target: Target, entries: Sequence[EntryPoint] | None = None) -> tuple[Form, ...]:
    """Return the forms to try on a target: our own, then those of other packages. The default form is not among them.

    Args:
        target: The target.
        entries: The entry points to ask, by default all that are registered.

    Raises:
        InputError: An entry point cannot be loaded, raises, returns something else than forms, or a form whose name
            another one has. It is named.
    """
    forms = list(CPU_FORMS if target.backend == "llvm-cpu" else GPU_FORMS)
    names = {DEFAULT_FORM.name, *(form.name for form in forms)}
    for entry in form_providers() if entries is None else entries:
        for form in _provided_by(entry, target):
            if form.name in names:
                raise InputError(
                    f"{describe_entry(entry)} gave a form {form.name!r}, and there is another of that name"
                )
            names.add(form.name)
            forms.append(form)
    return tuple(forms)


def _provided_by(entry: EntryPoint, target: Target) -> Iterator[Form]:
    provider = load_entry(entry)
    try:
        forms = tuple(provider(target))
    except Exception as error:  # Another package may raise anything.
        raise InputError(f"{describe_entry(entry)} failed for {target}: {type(error).__name__}: {error}") from error
    for form in forms:
        if not isinstance(form, Form):
            raise InputError(f"{describe_entry(entry)} gave {form!r} for {target}, which is no Form")
        yield form
