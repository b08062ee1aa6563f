"""The files of the chosen forms of models, written beside a run's spec or a suite's snapshot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.types import FormResult
from pytest_shark_tune.records.form_files import record_path, write_form, wrong_part_path
from pytest_shark_tune.results.run_results import RunResults
from pytest_shark_tune.system import journal

__all__ = ["named_wrong_part", "write_forms", "write_wrong_parts"]


def write_forms(
    results: RunResults, spec: Path, stem: str, flags: Sequence[str] = (), plans: Collection[str] | None = None
) -> list[Path]:
    """Write the record and the response file of every model whose forms were compared.

    Beside a suite a model that stays as it is gets no files: the default form without a spec is nothing to keep.

    Args:
        results: The results of the run.
        spec: The spec that the files belong to. It may be missing, if nothing won.
        stem: The part of the files' names behind the model's.
        flags: The user's flags for iree-compile.
        plans: The keys of the plans of a suite, whose models are written; the models of all plans by default.

    Returns:
        The paths of the response files.

    Raises:
        OSError: A file cannot be written.
    """
    late = {check.source for check in results.sources if check.late}
    paths = []
    for key, record in results.forms.values():
        if plans is not None and key not in plans:
            continue
        was_written = record_path(spec.parent, record.model, stem).exists()
        if plans is not None and record.form.is_default and not spec.exists() and not was_written:
            continue
        only_by_us = spec.exists() and (record.source in late or not Target.parse(record.target).loads_specs)
        whole = msgspec.structs.replace(record, only_by_shark_tune=only_by_us)
        paths.append(write_form(spec.parent, whole, stem, spec if spec.exists() else None, flags))
    return paths


def write_wrong_parts(results: RunResults, directory: Path) -> None:
    """Write the parts of models that forms compute wrong, a file each.

    Raises:
        OSError: A file cannot be written.
    """
    for plan in results.plans.values():
        for result in plan.forms:
            if result.wrong_part:
                path = wrong_part_path(directory, result.model, result.form.name)
                journal.replace_file(path, result.wrong_part.encode())


def named_wrong_part(result: FormResult) -> FormResult:
    """Return the result with the name of the file that `write_wrong_parts` writes, in place of its text."""
    if not result.wrong_part:
        return result
    return msgspec.structs.replace(result, wrong_part=wrong_part_path(Path(), result.model, result.form.name).name)
