"""The files of a form beside a spec: a response file for iree-compile, and the record that it is derived from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.flags import SPEC_FLAG, check_flags
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.dispatch.foreign.trust import trusts_specs
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.files import decode_json, read_plain

__all__ = [
    "find_forms",
    "forms_of_models",
    "read_form",
    "record_path",
    "response_path",
    "response_text",
    "write_form",
    "wrong_part_path",
]

_RECORD, _RESPONSE, _WRONG_PART = ".form.json", ".flags", ".wrong.mlir"
_MOST_BYTES = 1 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


def record_path(directory: Path, model: str, target: str) -> Path:
    """Return the path of a form's record, ``MODEL-TARGET.form.json``."""
    return directory / f"{_file_name(model)}-{_file_name(target)}{_RECORD}"


def response_path(record: Path) -> Path:
    """Return the path of the response file beside a record, ``MODEL-TARGET.flags``."""
    return record.with_name(record.name.removesuffix(_RECORD) + _RESPONSE)


def find_forms(spec: Path) -> tuple[FormRecord, ...]:
    """Return the records of forms beside a spec that are for it, sorted by the name of the file.

    A run in which forms won, and no config of a dispatch, writes no spec. Without the file of a spec these are the
    records with the name that the spec would have, unless they are of the default form.

    Raises:
        InputError: a record cannot be read, or brings a flag or a rewrite that no file may bring.
    """
    stem = None if spec.exists() else _file_name(spec.stem)
    return tuple(record for record in _records_in(spec.parent) if _is_for(record, spec.name, stem))


def _is_for(record: FormRecord, name: str, stem: str | None) -> bool:
    """Whether a record names a spec; without a spec, also whether a form that won alone has the ``stem``."""
    won_alone = not record.spec and not record.form.is_default
    return record.spec == name or (won_alone and record.stem == stem)


def forms_of_models(directory: Path, target: str) -> dict[str, tuple[Form, ...]]:
    """Return the forms that the records in a directory have for a target, on all devices, by the model's name.

    Raises:
        InputError: a record cannot be read, or brings a flag or a rewrite that no file may bring.
    """
    found: dict[str, tuple[Form, ...]] = {}
    for record in _records_in(directory):
        if record.target == target and record.form not in found.get(record.model, ()):
            found[record.model] = (*found.get(record.model, ()), record.form)
    return found


def _records_in(directory: Path) -> Iterator[FormRecord]:
    """Yield the records in a directory, sorted by the name of the file."""
    return map(read_form, sorted(directory.glob(f"*{_RECORD}")))


def read_form(path: Path) -> FormRecord:
    """Read a record, which may come from elsewhere.

    Raises:
        InputError: it cannot be read, or brings a flag or a rewrite that no file may bring.
    """
    try:
        record = decode_json(read_plain(path, _MOST_BYTES), FormRecord)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path} is no record of a form: {error}") from error
    _check_form(record, str(path))
    return record


def _check_form(record: FormRecord, name: str) -> None:
    """Refuse a record with content that no file may bring, unless the user trusts it (``--tune-trust-spec``).

    Raises:
        InputError: a flag may do more than choose how code is made, or the spec lies in another directory. The message
            names the file ``name``.
    """
    if record.spec != Path(record.spec).name:
        raise InputError(f"{name} is refused: the spec of a form lies beside it, and it names {record.spec!r}")
    if record.stem != _file_name(record.stem):
        raise InputError(f"{name} is refused: its stem {record.stem!r} is no part of a file's name")
    Target.parse(record.target)
    if not trusts_specs():
        check_flags((*record.form.flags, *record.compile_flags), name, why_not_plain)


def write_form(directory: Path, record: FormRecord, stem: str, spec: Path | None, flags: Sequence[str] = ()) -> Path:
    """Write the record of a form and its response file.

    Args:
        directory: Where the spec is.
        record: The record.
        stem: The part of the names behind the model's: the target or, beside a suite, the target and the device.
        spec: The spec beside it; ``None`` if there is none, or the target does not load specs.
        flags: The user's flags for iree-compile.

    Returns:
        The path of the response file.

    Raises:
        OSError: a file cannot be written.
    """
    path = record_path(directory, record.model, stem)
    response = response_path(path)
    name = spec.name if spec is not None else ""
    kept = msgspec.structs.replace(record, spec=name, stem=_file_name(stem), compile_flags=tuple(flags))
    kept = msgspec.structs.replace(kept, commands=_commands_of(kept, response.name))
    journal.replace_file(path, msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    journal.replace_file(response, response_text(kept).encode())
    return response


def response_text(record: FormRecord) -> str:
    """Return the response file of a record: a flag a line.

    iree-compile splits response files like a shell, and knows no comments in them.
    """
    target = Target.parse(record.target)
    flags = [*target.flags, *record.form.flags, *record.compile_flags]
    if record.spec and target.loads_specs:
        flags.append(f"{SPEC_FLAG}={record.spec}")
    return "".join(f"{_quoted(flag)}\n" for flag in flags)


def wrong_part_path(directory: Path, model: str, form: str) -> Path:
    """Return the path of the part of a model that a form computes wrong, ``MODEL-form-NAME.wrong.mlir``."""
    return directory / f"{_file_name(model)}-form-{_file_name(form)}{_WRONG_PART}"


def _commands_of(record: FormRecord, response: str) -> tuple[str, ...]:
    """Return the commands that compile the model, to be run in the directory of the response file."""
    model = record.file or record.model
    shapes = [part for line in record.shape_lines for part in ("--tune-input-shape", line)]
    own = shlex.quote(f"{_file_name(record.model)}.mlir")
    out = shlex.quote(f"{_file_name(record.model)}.vmfb")
    if record.only_by_shark_tune:
        rewrites = ["--form", response.removesuffix(_RESPONSE) + _RECORD]
        return (shlex.join(["shark-tune", "compile", model, *shapes, *rewrites, "-o", f"{record.model}.vmfb"]),)
    commands = []
    if model.endswith(".onnx"):
        names = [part for name in record.form.rewrites for part in ("--rewrite", name)] or ["--rewrite", "none"]
        commands.append(f"{shlex.join(['shark-tune', 'rewrite', model, *names, *shapes])} -o {own}")
    else:
        own = shlex.quote(model)
    return (*commands, f"iree-compile @{shlex.quote(response)} {own} -o {out}")


def _quoted(flag: str) -> str:
    """A flag for a response file, in which blanks and quotation marks end a word."""
    escaped = flag.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if escaped != flag or any(part in flag for part in " '\t(") else flag


def _file_name(name: str) -> str:
    """A name from a model or a target as part of a file's name."""
    return _UNSAFE.sub("-", name).lstrip(".") or "model"
