"""The one door for commands: time-outs, memory limits, process groups and kept output, solved once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.system import cleanup

__all__ = ["Completed", "run", "stop_all", "stop_group"]


_HELD = ("/bin/sh", "-c", 'read -r _ && exec "$@"', "sh")
"""Starts a command once it is given a line. Without one, as this process ended before it was ready, it ends too."""

_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()
_stopped: set[subprocess.Popen[bytes]] = set()


class Completed(NamedTuple):
    """What a command that exited with 0 left: its output, whole, and the seconds it took."""

    stdout: str
    stderr: str
    seconds: float


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    stdin: str = "",
    memory_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``command``, fed with ``stdin``, in a process group of its own and return what it printed.

    The whole group is killed on a time-out, on any exception in the caller's thread, Ctrl-C included, and where this
    process ends before it, be it by SIGKILL.
    ``memory_bytes`` limits the command's address space.

    Raises:
        CommandFailed: the command could not be started, exited with another status than 0, or ran longer
            than ``timeout_s`` seconds; its stderr is kept whole.
    """
    name = os.path.basename(command[0])
    started = time.monotonic()
    if shutil.which(command[0], path=(os.environ if env is None else env).get("PATH")) is None:
        raise CommandFailed(f"{name} could not be started: {command[0]} is no program that can be run")
    try:
        process = subprocess.Popen(
            [*_HELD, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{name} could not be started: {error}") from error
    with _lock:
        _running.add(process)
    try:
        cleanup.watch_group(process.pid)
        _limit_memory(process.pid, memory_bytes)
        out, err = process.communicate(b"\n" + stdin.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        stop_group(process)
        _, err = process.communicate()
        raise CommandFailed(
            f"{name} ran longer than {timeout_s:g} s and was stopped",
            stderr=err.decode(errors="replace"),
            timed_out=True,
        ) from None
    except BaseException:
        stop_group(process)
        process.communicate()
        raise
    finally:
        cleanup.release_group(process.pid)
        with _lock:
            _running.discard(process)
            stopped = process in _stopped
            _stopped.discard(process)
    stderr = err.decode(errors="replace")
    if process.returncode < 0:
        ended_by = signal.Signals(-process.returncode).name
        raise CommandFailed(f"{name} was ended by {ended_by}", stderr=stderr, stopped=stopped)
    if process.returncode:
        raise CommandFailed(f"{name} exited with status {process.returncode}", stderr=stderr)
    return Completed(out.decode(errors="replace"), stderr, time.monotonic() - started)


def stop_all() -> None:
    """Kill every command that is running, in whichever thread; each raises ``CommandFailed``, ``stopped``, there."""
    with _lock:
        _stopped.update(_running)
        for process in _running:
            stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that ``process`` leads; a group that has already gone is no error."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _limit_memory(pid: int, memory_bytes: int | None) -> None:
    """Limit the address space of a process that has just started.

    Set from outside, since a ``preexec_fn`` is unsafe in a parent with threads; where the system has no
    ``prlimit`` (anything but Linux) there is no limit.
    """
    if memory_bytes is None or not hasattr(resource, "prlimit"):
        return
    with suppress(ProcessLookupError):
        _, hardest = resource.prlimit(pid, resource.RLIMIT_AS)
        if hardest != resource.RLIM_INFINITY:  # Whoever is not root may not raise it.
            memory_bytes = min(memory_bytes, hardest)
        resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
