"""Snapshots: a spec and, in a file beside it, the records that its entries were made from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.versions import as_installed
from pytest_shark_tune.dispatch.extraction import read_module
from pytest_shark_tune.errors import InputError, SpecRefused
from pytest_shark_tune.records.draft import Draft, entry_of
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.build import build_spec
from pytest_shark_tune.spec.module import matcher_name
from pytest_shark_tune.spec.read import SpecRow, read_spec, select_entries
from pytest_shark_tune.system import files, journal
from pytest_shark_tune.system.lock import FileLock

__all__ = [
    "DIRECTORY",
    "check_snapshots",
    "damaged_records",
    "find_snapshots",
    "locked",
    "places_of",
    "read_records",
    "read_text",
    "recorded_targets",
    "records_digest",
    "records_of",
    "records_path",
    "replace_spec",
    "snapshot_draft",
    "snapshot_path",
    "stream_records",
    "why_not_replaced",
    "write_draft",
    "write_spec",
    "write_text",
]

DIRECTORY = "__specs__"
"""The directory of a suite's snapshots, beside its tests."""
_POLL_S = 0.02
_MOST_PLACES = 10


def snapshot_path(suite: Path, target: str, device_slug: str) -> Path:
    """Return the path of a suite's snapshot for a target and a model of device."""
    return suite / DIRECTORY / f"{_prefix(target)}{device_slug}.mlir"


def find_snapshots(suite: Path, target: str) -> tuple[Path, ...]:
    """Return a suite's snapshots for a target, of all devices.

    Names of targets may begin alike (``llvm-cpu``, ``llvm-cpu:x86-64-v3``), so snapshots with records of another target
    are left out.
    """
    found = sorted((suite / DIRECTORY).glob(f"{_prefix(target)}*.mlir"))
    return tuple(path for path in found if target in (recorded_targets(path) or {target}))


def check_snapshots(suite: Path, target: str) -> None:
    """Refuse a suite's snapshots for a target if the compiler might do more with one than match and annotate.

    A snapshot that this IREE does not parse is left to the code that reads it.

    Raises:
        InputError: a spec, or a record beside it, holds something that no spec needs (`dispatch.foreign.trust`).
    """
    for path in find_snapshots(suite, target):
        _pass_on_refusal(partial(read_spec, read_text(path)), path)
        for record in read_records(path):
            if record.root is not None:
                _pass_on_refusal(partial(build_spec, [entry_of(record)]), records_path(path))


def _pass_on_refusal(read: Callable[[], object], path: Path) -> None:
    try:
        read()
    except SpecRefused as error:
        raise InputError(f"{path}: {error}") from error
    except InputError:
        return


@contextmanager
def locked(spec: Path) -> Iterator[None]:
    """Keep other processes from writing a spec and its records between reading and writing them.

    If no lock file can be made, because the directory is read-only or the file system has no locks, there is no lock.
    """
    directory = spec.parent
    is_new = not directory.exists()
    lock = FileLock(directory / f".{spec.name}.lock", mode=0o666, remove=True)
    with suppress(OSError):
        while not _try_lock(lock):
            time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()
        if is_new:
            with suppress(OSError):  # It stays unless it is empty.
                directory.rmdir()


def _try_lock(lock: FileLock) -> bool:
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return lock.try_acquire()
    except FileNotFoundError:  # Another run made the directory, wrote nothing and has just removed it.
        return False


def recorded_targets(spec: Path) -> set[str]:
    """Return the targets of a spec's records."""
    return {record.target for record in journal.stream(records_path(spec), _RecordTarget)}


class _RecordTarget(msgspec.Struct, frozen=True):
    """The target of a record, which is all that is read of many records."""

    id: str
    dispatch: str
    state: str
    target: str


def records_path(spec: Path) -> Path:
    """Return the path of a spec's records."""
    return spec.with_suffix(".jsonl")


def read_text(spec: Path) -> str:
    """Return the text of a spec file, which holds text or MLIR bytecode. The text need not parse.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return as_installed(read_module(files.read_plain(spec)))
    except FileNotFoundError as error:
        hint = "a run of pytest --tune writes one only if a config won"
        raise InputError(f"tuning spec {spec} cannot be read: {error.strerror}; {hint}") from error
    except OSError as error:
        raise InputError(f"tuning spec {spec} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"tuning spec {spec}: {error}") from error


def read_records(spec: Path) -> tuple[WinnerRecord, ...]:
    """Return the records that a spec was made from, none if there is no such file.

    Raises:
        InputError: the file cannot be read.
    """
    return tuple(map(_as_installed, journal.read(records_path(spec), WinnerRecord)))


def stream_records(spec: Path) -> Iterator[WinnerRecord]:
    """Return the records that a spec was made from, one after the other: it may have more than memory should hold.

    Raises:
        InputError: the file cannot be read.
    """
    return map(_as_installed, journal.stream(records_path(spec), WinnerRecord))


def _as_installed(record: WinnerRecord) -> WinnerRecord:
    """The record with its config as the installed release writes it."""
    info = as_installed(record.compilation_info)
    return record if info == record.compilation_info else msgspec.structs.replace(record, compilation_info=info)


def records_digest(spec: Path) -> str:
    """Return a hash of the file with a spec's records; empty without one.

    Raises:
        InputError: the file cannot be read.
    """
    return journal.digest(records_path(spec))


def damaged_records(spec: Path) -> tuple[int, ...]:
    """Return the numbers of the lines beside a spec that should be records and are none, as a merge may leave them.

    Raises:
        InputError: the file cannot be read.
    """
    return journal.damaged_lines(records_path(spec), WinnerRecord)


def places_of(path: Path, lines: Sequence[int]) -> str:
    """Return the first of some lines of a file as FILE:NUMBER, and the number of the others."""
    places = ", ".join(f"{path.name}:{number}" for number in lines[:_MOST_PLACES])
    return places + (f" or {len(lines) - _MOST_PLACES} more lines" if len(lines) > _MOST_PLACES else "")


def records_of(rows: Sequence[SpecRow], records: Iterable[WinnerRecord]) -> tuple[WinnerRecord | None, ...]:
    """Return the record of each entry of a spec: the record of the dispatch that the entry names.

    An entry that names no dispatch has the record with a dispatch that gives the matcher its name. An entry that was
    written or renamed by hand has none, and no record belongs to two entries.

    Args:
        rows: the entries.
        records: the records beside the spec. Only those are held that an entry may have.
    """
    free = list(_candidates_for(rows, records))
    found: dict[int, WinnerRecord] = {}
    # Entries that name a dispatch come first: another entry's matcher may have the name that such a dispatch gives.
    for place in sorted(range(len(rows)), key=lambda place: not _dispatch_of(rows[place])):
        record = next((record for record in free if _is_of(record, rows[place])), None)
        if record is not None:
            found[place] = record
            free.remove(record)
    return tuple(found.get(place) for place in range(len(rows)))


def _candidates_for(rows: Sequence[SpecRow], records: Iterable[WinnerRecord]) -> Iterator[WinnerRecord]:
    """Yield the records that an entry may have, of each dispatch at most as many as there are such entries."""
    by_dispatch = Counter(filter(None, map(_dispatch_of, rows)))
    by_matcher = Counter(row.matcher for row in rows if not _dispatch_of(row))
    taken: Counter[str] = Counter()
    for record in records:
        name = record.dispatch
        if taken[name] < by_dispatch[name] + (by_matcher[matcher_name(name)] if by_matcher else 0):
            taken[name] += 1
            yield record


def _is_of(record: WinnerRecord, row: SpecRow) -> bool:
    dispatch = _dispatch_of(row)
    return record.dispatch == dispatch if dispatch else matcher_name(record.dispatch) == row.matcher


def _dispatch_of(row: SpecRow) -> str:
    return str(row.provenance.get("dispatch", ""))


def write_spec(path: Path, winners: Sequence[WinnerRecord], starter: str | None = None) -> None:
    """Write the spec of ``winners``, in their order and before ``starter``, as `write_draft` does."""
    write_draft(path, Draft(tuple(map(entry_of, winners)), starter or ""), winners)


def write_draft(path: Path, draft: Draft, winners: Iterable[WinnerRecord]) -> None:
    """Write the spec of a draft, and the records of its entries beside it.

    A draft without entries of its own makes no file. A file that has the same content already is not touched.

    Args:
        path: the spec.
        draft: the draft.
        winners: the records of its entries; others among them are left out.
    """
    if not draft.entries:
        path.unlink(missing_ok=True)
        records_path(path).unlink(missing_ok=True)
        return
    places = {entry.name: place for place, entry in enumerate(draft.entries)}
    own = [winner for winner in winners if winner.dispatch in places]
    write_text(path, draft.text, sorted(own, key=lambda winner: places[winner.dispatch]))


def why_not_replaced(spec: Path) -> str:
    """Return why a spec cannot be brought up to date; empty if it can."""
    if lines := damaged_records(spec):
        path = records_path(spec)
        return (
            f"{places_of(path, lines)} is no record, so nobody knows which entries have one: take {path.name} from "
            "version control again, or delete that line"
        )
    try:
        _spec_rows(spec)
    except InputError as error:
        return str(error)
    return ""


def snapshot_draft(path: Path, winners: Iterable[WinnerRecord]) -> Draft:
    """Return the draft of the snapshot at ``path`` with ``winners`` in place of its recorded entries.

    Entries without a record stay behind the winners, since somebody may have put them there. Only an entry with a
    winner's matcher goes.

    Raises:
        InputError: the snapshot does not tell which entries have a record (see `why_not_replaced`).
    """
    if why := why_not_replaced(path):
        raise InputError(why)
    rows = _spec_rows(path)
    records = records_of(rows, read_records(path))
    left = [row.matcher for row, record in zip(rows, records, strict=True) if record is None]
    return Draft(tuple(map(entry_of, winners)), select_entries(read_text(path), left) if left else "")


def replace_spec(path: Path, draft: Draft, winners: Iterable[WinnerRecord]) -> None:
    """Write a draft, as `write_draft` does, in place of the snapshot at ``path``; see `snapshot_draft`.

    A spec that has no records is somebody's own: without a winner it stays as it is.
    """
    if draft.entries or not draft.starter:
        write_draft(path, draft, winners)
    elif read_records(path):
        write_text(path, draft.starter, ())


def _spec_rows(spec: Path) -> tuple[SpecRow, ...]:
    """Return the entries of a spec, none if there is no such file."""
    text = read_text(spec) if spec.exists() else ""
    return read_spec(text) if text else ()


def write_text(path: Path, text: str, records: Sequence[WinnerRecord]) -> None:
    """Write the text of a spec, and the records of its entries beside it; without records there is no such file.

    A file that has the same content already is not touched.
    """
    _write_if_changed(path, text.encode())
    if records:
        _write_if_changed(records_path(path), msgspec.json.Encoder().encode_lines(records))
    else:
        records_path(path).unlink(missing_ok=True)


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        journal.replace_file(path, content)


def _prefix(target: str) -> str:
    return f"{target.replace(':', '-')}-"


def read_spec_file(path: Path) -> str:
    """Return the text of a tuning spec.

    Raises:
        InputError: the file cannot be read, or holds no tuning spec that this IREE parses.
    """
    text = read_text(path)
    try:
        read_spec(text)
    except InputError as error:
        raise InputError(f"tuning spec {path}: {error}") from error
    return text
