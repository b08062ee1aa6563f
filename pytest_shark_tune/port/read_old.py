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
    """An entry of the old spec; ``matcher`` is empty where the spec is known from its records alone.

    ``compilation_info`` is empty where this IREE does not parse it, and ``config`` is ``None`` where nobody could read
    it.
    """

    name: str
    matcher: str = ""
    compilation_info: str = ""
    config: ReadConfig | None = None
    record: WinnerRecord | None = None


class OldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The spec at ``path`` as this IREE can read it: its entries and, if its matchers could be read, its text.

    Configs may stand in the text as mere names.
    """

    path: Path
    entries: tuple[OldEntry, ...]
    text: str = ""


def read_old(path: Path, python: Path | None, *, timeout_s: float = _READER_TIMEOUT_S) -> OldSpec:
    """Read a spec and the records beside it; ``python`` runs in an environment with the IREE that wrote it.

    Raises:
        InputError: the file cannot be read, or nobody parses it and there are no records.
    """
    text = read_text(path)
    records = [each for each in read_records(path) if each.root is not None]
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
    """The entries of a spec with their records; ``configs`` are those that could be read, by matcher."""
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
    """A `ReadConfig`, whose recursive type cannot be decoded."""

    pipeline: str
    tree: dict[str, Any]


class _Elsewhere(msgspec.Struct, frozen=True):
    """What the reader in another environment writes."""

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
        raise InputError(f"--from-python {python}: what it says of {path} is not understood: {error}") from error
    configs = {
        matcher: ReadConfig(pipeline=read.configs[name].pipeline, tree=read.configs[name].tree)
        for matcher, name in named_configs(read.spec).items()
        if name in read.configs
    }
    return OldSpec(path=path, text=read.spec, entries=_entries(read_spec(read.spec), records, configs))


def target_of(path: Path) -> str | None:
    """The target that a spec's records are of, where there are any and they agree."""
    targets = recorded_targets(path)
    return targets.pop() if len(targets) == 1 else None
