"""The only module that leases devices. A lock file of the host stands for a device, so that no two runs share one."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.lock import FileLock

__all__ = ["DeviceLeases", "device_key", "signature", "who_holds"]

# Not TMPDIR: users and jobs may have their own, and all of them share the devices.
_HOST_DIRECTORY = Path("/tmp/pytest-shark-tune")  # noqa: S108 - its files hold only who holds them
_POLL_S = 0.02
_REPORT_AFTER_S = 5.0
_REPORT_EVERY_S = 60.0
_RECHECK_S = 0.5
_CHANCES = 2
_LONGEST_COMMAND = 120
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")

_logger = logging.getLogger(__name__)


class Holder(msgspec.Struct, frozen=True):
    """The holder of a device."""

    pid: int
    """The process that the user started."""
    command: str
    run: str
    """The run that it belongs to; empty for a process on its own."""
    since: float
    """The Unix time when it got the device."""


class DeviceLeases:
    """The devices of a run. No two processes of this host hold the same device at a time.

    Args:
        uris: The devices.
        directory: The directory of the lock files. It belongs to the host and not to a run, since runs with different
            caches share devices.
        run: The id that the processes of one run have in common. They wait for one another all the time, so such a wait
            is not reported.

    Raises:
        InputError: the devices cannot be locked. The message gives the reason.
    """

    def __init__(self, uris: Sequence[str], *, directory: Path | None = None, run: str = "") -> None:
        directory = directory or _HOST_DIRECTORY
        _make_shared(directory)
        self._run = run
        self._gates = {uri: FileLock(directory / f"{device_key(uri)}.gate", mode=0o666) for uri in uris}
        self._locks = {uri: FileLock(directory / f"{device_key(uri)}.lock", mode=0o666) for uri in uris}
        self._order = list(uris)
        self._report_at = 0.0
        self._unsigned: dict[str, int] = {}

    @property
    def has_devices(self) -> bool:
        """Whether there are devices at all. Without any, a wait would never end."""
        return bool(self._order)

    def check(self) -> None:
        """Make sure that the devices can be locked, now or later.

        Raises:
            InputError: they cannot be locked. The message gives the reason.
        """
        for lock in (*self._gates.values(), *self._locks.values()):
            try:
                lock.check()
            except OSError as error:
                raise InputError(_why_not_locked(error, lock.path)) from error

    @contextmanager
    def acquire(self, report: Callable[[str], None] = lambda message: None) -> Iterator[str]:
        """Wait until a device is free, and hold it.

        The device held last comes first, since its modules are still loaded. A process that waits for a device holds
        its gate, and a holder that wants the device again has to pass the gate. So processes that share a device take
        turns. ``report`` gets a message about a long wait.

        Yields:
            The URI of the device.
        """
        uri = self._wait(report)
        _logger.debug("holds %s", uri)
        try:
            self._order.remove(uri)
            self._order.insert(0, uri)
            yield uri
        finally:
            _logger.debug("lets go of %s", uri)
            self._locks[uri].release()

    def _wait(self, report: Callable[[str], None]) -> str:
        """Take the first device that is free."""
        self._report_at = time.monotonic() + _REPORT_AFTER_S
        self._unsigned = {}
        passed: list[str] = []
        try:
            while True:
                for uri in self._order:
                    if uri not in passed and self._gates[uri].try_acquire():
                        passed.append(uri)
                    if uri in passed and self._locks[uri].try_acquire(signature(self._run)):
                        return uri
                self._report_wait(report)
                time.sleep(_POLL_S)
        except OSError as error:
            raise InputError(_why_not_locked(error, Path(error.filename or _HOST_DIRECTORY))) from error
        finally:
            for uri in passed:
                self._gates[uri].release()

    def _report_wait(self, report: Callable[[str], None]) -> None:
        if time.monotonic() < self._report_at:
            return
        notes = {uri: lock.note() for uri, lock in self._locks.items()}
        # While a device changes hands there is no note, so a note counts as missing only if it is missing repeatedly.
        self._unsigned = {uri: self._unsigned.get(uri, 0) + 1 for uri, note in notes.items() if not note}
        holders = {uri: _read_holder(note) for uri, note in notes.items() if note or self._unsigned[uri] > _CHANCES}
        waits = [
            f"{uri}: {_describe_holder(holder)}"
            for uri, holder in holders.items()
            if not (holder and self._run and holder.run == self._run)
        ]
        self._report_at = time.monotonic() + (_REPORT_EVERY_S if waits else _RECHECK_S)
        if waits:
            report(f"waiting for {', '.join(waits)}")


def device_key(uri: str) -> str:
    """The name of a device's lock files, equal for all URIs of one physical device.

    The processor is one device, however it is driven. A GPU goes by its UUID, which all drivers report, with different
    spellings. Options behind a question mark do not matter.
    """
    scheme, _, rest = uri.partition("://")
    if scheme.startswith("local"):
        return "cpu"
    path = rest.partition("?")[0].lower()
    if uuid := _UUID.search(path):
        return f"gpu-{uuid[0].replace('-', '')}"
    return re.sub(r"[^a-z0-9]+", "-", f"{scheme}-{path}").strip("-")


def signature(run: str = "") -> bytes:
    """The note of this process for a lock that it holds from now on. `who_holds` reads it."""
    pid, command = _started_by()
    return msgspec.json.encode(Holder(pid, command, run, time.time()))


def who_holds(note: bytes) -> str:
    """Describe the holder of the lock that has this note."""
    return _describe_holder(_read_holder(note))


def _make_shared(directory: Path) -> None:
    """Make the directory of the locks. Every user of the host may add files and remove only their own.

    It belongs to the user who was the first to measure. Nothing is loaded from there.
    """
    if directory.is_symlink():
        raise InputError(
            f"devices are locked by files in {directory}, so that no two runs measure on one at a time, and it is a "
            "link that somebody put there, to have these files written elsewhere: remove it"
        )
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                directory.chmod(0o1777)
    except OSError as error:
        raise InputError(_why_not_locked(error, directory)) from error


def _why_not_locked(error: OSError, path: Path) -> str:
    directory = path if path.suffix not in (".gate", ".lock") else path.parent
    return (
        f"devices are locked by files in {directory}, so that no two runs measure on one at a time, and {path} cannot "
        f"be written: {error.strerror}. Every user of this host needs to write there: chmod 1777 {directory}"
    )


@cache
def _started_by() -> tuple[int, str]:
    """The id and the command of the process that the user started: this one, or the parent of an xdist worker."""
    pid = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        words = sys.argv
    command = " ".join(shlex.join(word for word in words if word).split())
    return pid, command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}…"


def _read_holder(note: bytes) -> Holder | None:
    """Read a note; ``None`` if no such process lives: it was killed, or it lives in another container."""
    with suppress(PermissionError):
        try:
            holder = msgspec.json.decode(note, type=Holder)
            os.kill(holder.pid, 0)
        except (msgspec.DecodeError, ProcessLookupError, OverflowError):
            return None
    return holder


def _describe_holder(holder: Holder | None) -> str:
    if holder is None:
        return "held by another process"
    seconds = max(0, round(time.time() - holder.since))
    return f"held by process {holder.pid} ({holder.command}) for {seconds} s"
