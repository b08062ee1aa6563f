"""A form of a model: flags of iree-compile and rewrites that change how the compiler sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Final

import msgspec

from pytest_shark_tune.errors import InputError

__all__ = ["DEFAULT_FORM", "Form", "combined", "with_incumbents"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")
_CODEGEN = ("--iree-codegen-", "--iree-llvmcpu-", "--iree-llvmgpu-", "--iree-cuda-", "--iree-rocm-", "--iree-opt-level")
"""Prefixes of flags that the compiler reads again when it makes the code of a dispatch."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A way to hand a model to iree-compile. A form changes no result beyond rounding.

    Raises:
        InputError: the name is none for the id of a test, or a flag does not begin with two dashes.
    """

    name: str
    """The name, which is part of test ids and file names: letters, digits and ``_.+-``."""
    flags: tuple[str, ...] = ()
    """Flags of iree-compile, in addition to the target's and the user's."""
    rewrites: tuple[str, ...] = ()
    """Names of rewrites of the ONNX graph or of the imported MLIR, in order."""

    def __post_init__(self) -> None:
        """Check the name and the flags."""
        if not _NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} is no name of a form: use letters, digits and _.+-")
        for flag in self.flags:
            if not flag.startswith("--"):
                raise InputError(f"form {self.name}: {flag!r} is not a flag of iree-compile, which begins with --")

    @property
    def is_default(self) -> bool:
        """Whether the compiler gets the model as it is."""
        return not self.flags and not self.rewrites

    def source_name(self, model: str) -> str:
        """Return the name of the source of a model in this form."""
        return model if self.is_default else f"{model}-{self.name}"

    @property
    def codegen_flags(self) -> tuple[str, ...]:
        """The flags on which the code of a single dispatch depends."""
        return tuple(flag for flag in self.flags if flag.startswith(_CODEGEN))


DEFAULT_FORM: Final = Form(name="default")
"""The model as it is, without further flags."""


def with_incumbents(forms: Sequence[Form], incumbents: Iterable[Form]) -> tuple[Form, ...]:
    """Put the forms that an earlier run chose before the others, unless the others have them.

    An incumbent gets another name if its own is that of a form with other flags or rewrites.
    """
    known = {(form.flags, form.rewrites) for form in (DEFAULT_FORM, *forms)}
    taken = {DEFAULT_FORM.name, *(form.name for form in forms)}
    first: list[Form] = []
    for form in incumbents:
        if (form.flags, form.rewrites) in known:
            continue
        known.add((form.flags, form.rewrites))
        name = next(name for name in _numbered(form.name) if name not in taken)
        taken.add(name)
        first.append(msgspec.structs.replace(form, name=name))
    return (*first, *forms)


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def combined(first: Form, second: Form) -> Form | None:
    """Combine two forms; ``None`` if both set the same option or apply the same rewrite."""
    options = [flag.partition("=")[0] for flag in (*first.flags, *second.flags)]
    rewrites = (*first.rewrites, *second.rewrites)
    if len(set(options)) < len(options) or len(set(rewrites)) < len(rewrites):
        return None
    return Form(name=f"{first.name}+{second.name}", flags=(*first.flags, *second.flags), rewrites=rewrites)
