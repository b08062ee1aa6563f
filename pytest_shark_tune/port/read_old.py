"""Specs of other IREE releases, read by the release that wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_shark_tune.errors import CommandFailed, InputError, SpecNotParsed, SpecRefused
from pytest_shark_tune.port import old_iree_script
from pytest_shark_tune.records.snapshot import read_records, read_text, recorded_targets, records_of, records_path
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space.config_reader import ReadConfig, read_config
from pytest_shark_tune.spec.read import SpecRow, named_configs, read_spec
from pytest_shark_tune.system import process

__all__ = ["OldEntry", "OldSpec", "read_old", "target_of"]


_READER_TIMEOUT_S = 120.0


class OldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the old spec."""

    name: str
    matcher: str = ""
    """The matcher's name; empty if the spec is known from its records alone."""
    compilation_info: str = ""
    """The config's attribute; empty if this IREE does not parse it."""
    config: ReadConfig | None = None
    """The config, if it could be read."""
    record: WinnerRecord | None = None


class OldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An old spec as far as this IREE can read it."""

    path: Path
    entries: tuple[OldEntry, ...]
    text: str = ""
    """The text, in which names may stand for configs; empty if the matchers could not be read."""


def read_old(path: Path, python: Path | None, *, timeout_s: float = _READER_TIMEOUT_S) -> OldSpec:
    """Read a spec and the records beside it.

    Args:
        path: the spec.
        python: the Python of an environment with the IREE that wrote the spec; asked if this IREE does not parse it.
        timeout_s: the seconds that it has to read the spec.

    Raises:
        InputError: the file cannot be read, or it does not parse and has no records.
    """
    text = read_text(path)
    records = [record for record in read_records(path) if record.root is not None]
    try:
        rows = read_spec(text)
    except SpecRefused as error:
        raise InputError(f"{path}: {error}") from error
    except InputError as error:
        if python is not None:
            return _read_elsewhere(path, text, python, records, timeout_s)
        if records:
            return OldSpec(path=path, entries=tuple(map(_recorded_entry, records)))
        said = error.problem if isinstance(error, SpecNotParsed) else error
        raise InputError(
            f"{path}: {said}. It has no records in {records_path(path).name} either: give --from-python "
            "/path/to/python of an environment with the IREE that wrote it"
        ) from error
    configs = {row.matcher: read_config(row.compilation_info) for row in rows if row.compilation_info}
    return OldSpec(path=path, text=text, entries=_entries(rows, records, configs))


def _entries(
    rows: Sequence[SpecRow], records: Sequence[WinnerRecord], configs: Mapping[str, ReadConfig]
) -> tuple[OldEntry, ...]:
    """Return the entries of a spec with their records and, by matcher, the configs that could be read."""
    return tuple(
        OldEntry(
            name=record.dispatch if record else row.matcher,
            matcher=row.matcher,
            compilation_info=row.compilation_info,
            config=configs.get(row.matcher),
            record=record,
        )
        for row, record in zip(rows, records_of(rows, records), strict=True)
    )


def _recorded_entry(record: WinnerRecord) -> OldEntry:
    try:
        config, info = read_config(record.compilation_info), record.compilation_info
    except InputError:
        config, info = None, ""
    return OldEntry(name=record.dispatch, compilation_info=info, config=config, record=record)


class _ConfigElsewhere(msgspec.Struct, frozen=True):
    """A `ReadConfig` for msgspec, which does not decode recursive types."""

    pipeline: str
    tree: dict[str, Any]


class _Elsewhere(msgspec.Struct, frozen=True):
    """The output of the reader in another environment."""

    iree: str
    spec: str
    configs: dict[str, _ConfigElsewhere]


def _read_elsewhere(path: Path, text: str, python: Path, records: Sequence[WinnerRecord], timeout_s: float) -> OldSpec:
    try:
        done = process.run([str(python), str(Path(old_iree_script.__file__))], stdin=text, timeout_s=timeout_s)
        read = msgspec.json.decode(done.stdout, type=_Elsewhere)
    except CommandFailed as error:
        raise InputError(f"--from-python {python}: it cannot read {path}: {error.stderr.strip() or error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"--from-python {python}: its output for {path} is not understood: {error}") from error
    configs = {
        matcher: ReadConfig(pipeline=read.configs[name].pipeline, tree=read.configs[name].tree)
        for matcher, name in named_configs(read.spec).items()
        if name in read.configs
    }
    return OldSpec(path=path, text=read.spec, entries=_entries(read_spec(read.spec), records, configs))


def target_of(path: Path) -> str | None:
    """Return the target of a spec's records, if there are any and they agree."""
    targets = recorded_targets(path)
    return targets.pop() if len(targets) == 1 else None
