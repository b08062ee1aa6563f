"""The forms beside a spec of another IREE release, written anew beside the ported spec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.forms.mlir_rewrites import mlir_rewrite_names
from pytest_shark_tune.forms.onnx_rewrites import REWRITES
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms, write_form

__all__ = ["PortedForm", "port_forms"]


class PortedForm(NamedTuple):
    """A form after porting."""

    record: FormRecord
    """The record as it was."""
    response: Path | None
    """The response file that was written; ``None`` if the form could not be ported."""
    reason: str = ""
    """The reason why not."""


def port_forms(old: Path, output: Path, compiler: Compiler) -> Iterator[PortedForm]:
    """Write the forms beside a spec anew beside the ported one.

    A form keeps its flags and rewrites if this release knows all of them. Its figures are dropped, since another
    release measured them.

    Args:
        old: The spec of the other release.
        output: The ported spec.
        compiler: The compiler of this release.

    Raises:
        InputError: A record cannot be read, or brings a flag that no file may bring.
    """
    for record in find_forms(old):
        if why := _why_lost(record, compiler):
            yield PortedForm(record, None, why)
            continue
        kept = FormRecord(
            model=record.model,
            form=record.form,
            target=record.target,
            device=record.device,
            iree=compiler.version,
            shapes=record.shapes,
            note=f"ported from IREE {record.iree}, and not measured by this release",
            file=record.file,
            only_by_shark_tune=record.only_by_shark_tune,
        )
        spec = output if output.exists() else None
        yield PortedForm(record, write_form(output.parent, kept, record.stem, spec, record.compile_flags))


def _why_lost(record: FormRecord, compiler: Compiler) -> str:
    known = {*REWRITES, *mlir_rewrite_names()}
    if unknown := [name for name in record.form.rewrites if name not in known]:
        return f"there is no rewrite {unknown[0]!r}"
    flags = (*record.form.flags, *record.compile_flags)
    try:
        Compiler(Target.parse(record.target), flags, timeout_s=compiler.timeout_s).check()
    except (CommandFailed, InputError) as error:
        return str(error)
    return ""
