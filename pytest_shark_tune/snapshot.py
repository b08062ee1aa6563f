"""Snapshots: a spec and, in a file beside it, the records that it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.stages.record import WinnerRecord
from pytest_shark_tune.stages.spec import SpecEntry, SpecRow, build_spec, link_spec, matcher_name
from pytest_shark_tune.tools import journal

__all__ = [
    "damaged_records",
    "entry_of",
    "find_snapshots",
    "read_records",
    "read_text",
    "record_of",
    "recorded_targets",
    "records_path",
    "snapshot_path",
    "write_spec",
    "write_text",
]

FOLDER = "__specs__"
"""Where the snapshots of a suite are, beside its tests."""


def snapshot_path(suite: Path, target: str, device_slug: str) -> Path:
    """Where a suite's snapshot for a target and a device's model is."""
    return suite / FOLDER / f"{_prefix(target)}{device_slug}.mlir"


def find_snapshots(suite: Path, target: str) -> tuple[Path, ...]:
    """A suite's snapshots for a target, of all devices.

    Names of targets may begin alike (``llvm-cpu``, ``llvm-cpu:x86-64-v3``): what records say is of others is left out.
    """
    found = sorted((suite / FOLDER).glob(f"{_prefix(target)}*.mlir"))
    return tuple(path for path in found if target in (recorded_targets(path) or {target}))


def recorded_targets(spec: Path) -> set[str]:
    """The targets that the records of a spec are of; none without any."""
    return {each.target for each in read_records(spec)}


def records_path(spec: Path) -> Path:
    """Where the records of a spec are."""
    return spec.with_suffix(".jsonl")


def read_text(spec: Path) -> str:
    """The text of a spec file, which need not parse.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return spec.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"tuning spec {spec} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"tuning spec {spec} is no text: {error}") from error


def read_records(spec: Path) -> tuple[WinnerRecord, ...]:
    """The records that a spec was made from, none where there is no such file."""
    return tuple(journal.read(records_path(spec), WinnerRecord))


def damaged_records(spec: Path) -> tuple[int, ...]:
    """The numbers of the lines beside a spec that should be records and are none, as a merge may leave them."""
    return journal.damaged_lines(records_path(spec), WinnerRecord)


def record_of(row: SpecRow, records: Iterable[WinnerRecord]) -> WinnerRecord | None:
    """The record of an entry: that of the dispatch that it names, else that whose dispatch gives it its matcher's name.

    An entry that somebody wrote or renamed by hand has none.
    """
    dispatch = row.provenance.get("dispatch")
    return next(
        (
            each
            for each in records
            if (each.dispatch == dispatch if dispatch else matcher_name(each.dispatch) == row.matcher)
        ),
        None,
    )


def write_spec(path: Path, winners: Sequence[WinnerRecord], starter: str | None = None) -> None:
    """Write the spec of ``winners``, before ``starter``, and their records beside it; without any there is no file.

    A file that has just this content already is not touched.
    """
    if not winners:
        path.unlink(missing_ok=True)
        records_path(path).unlink(missing_ok=True)
        return
    write_text(path, link_spec(build_spec([entry_of(each) for each in winners], starter)), winners)


def write_text(path: Path, text: str, records: Sequence[WinnerRecord]) -> None:
    """Write the text of a spec, and the records of its entries beside it; without any there is no such file.

    A file that has just this content already is not touched.
    """
    _write(path, text.encode())
    if records:
        _write(records_path(path), b"".join(msgspec.json.encode(each) + b"\n" for each in records))
    else:
        records_path(path).unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        journal.replace_file(path, content)


def entry_of(winner: WinnerRecord) -> SpecEntry:
    """The spec entry of a winner; it tells where it comes from."""
    assert winner.root is not None
    return SpecEntry(
        name=winner.dispatch,
        root=winner.root,
        compilation_info=winner.compilation_info,
        provenance={
            "dispatch": winner.dispatch,
            "device": winner.device,
            "iree": winner.iree,
            **({} if winner.ratio is None else {"speedup": f"{winner.ratio:.3f}"}),
            "candidate": winner.id,
        },
    )


def _prefix(target: str) -> str:
    return f"{target.replace(':', '-')}-"
