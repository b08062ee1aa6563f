"""The one door to devices: each is leased by a lock file of its host, so that no two runs share one."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock

__all__ = ["DeviceLeases"]

# Not TMPDIR: users and jobs may each have one of their own, and all of them share the devices.
_HOST_FOLDER = Path("/tmp/pytest-shark-tune")  # noqa: S108 - its files hold nothing and are only locked
_POLL_S = 0.02
_TELL_AFTER_S = 5.0


class DeviceLeases:
    """The devices of a run; ``acquire`` hands out one that nobody on this host holds.

    A lock is the operating system's: it ends with the process that holds it, so none can be stale. The lock
    files lie in a folder of the host and not of a run, since two runs with different caches share devices.
    """

    def __init__(self, uris: Sequence[str], *, folder: Path | None = None) -> None:
        self._folder = folder or _HOST_FOLDER
        if not self._folder.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                self._folder.chmod(0o1777)
        self._told = False
        self._gates = {uri: filelock.FileLock(self._folder / f"{_lock_name(uri)}.gate", mode=0o666) for uri in uris}
        self._locks = {uri: filelock.FileLock(self._folder / f"{_lock_name(uri)}.lock", mode=0o666) for uri in uris}

    @contextmanager
    def acquire(self, tell: Callable[[str], None] = lambda message: None) -> Iterator[str]:
        """Hold a device, waiting until one is free, and yield its URI; ``tell`` is told of a long wait.

        Whoever waits for the only device holds its gate, which a holder that wants it again must pass: so two runs
        that share a device take turns.
        """
        started = time.monotonic()
        with ExitStack() as held:
            if len(self._locks) == 1:
                self._wait(self._gates, started, tell, held)
            uri = self._wait(self._locks, started, tell, held)
            for gate in self._gates.values():
                gate.release()
            yield uri

    def _wait(
        self, locks: Mapping[str, filelock.BaseFileLock], started: float, tell: Callable[[str], None], held: ExitStack
    ) -> str:
        """Take the first of ``locks`` that is free, and leave it to ``held``."""
        for uri, lock in itertools.cycle(locks.items()):
            with suppress(filelock.Timeout):
                held.enter_context(lock.acquire(blocking=False))
                return uri
            if not self._told and time.monotonic() - started > _TELL_AFTER_S:
                self._told = True
                tell(f"waiting for a device: {', '.join(self._locks)} is in use by another process")
            time.sleep(_POLL_S)
        raise AssertionError("a run has at least one device")


def _lock_name(uri: str) -> str:
    """The lock's name: every URI of the host's processor is one device."""
    if uri.startswith("local"):
        return "cpu"
    return re.sub(r"[^A-Za-z0-9]+", "-", uri).strip("-")
